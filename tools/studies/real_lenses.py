"""Fits real lenses and compares their Einstein radii with published ones.

    python tools/studies/real_lenses.py --folder FOLDER --output real_lenses.jsonl

The folder contains a subfolder per lens with image.fits, noise.fits and psf.fits, and table.csv with the
columns `name` and `theta_E_published_arcsec`. All lenses are fitted with the same settings.
"""

import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensjax import modeling
from lensjax.cli import runner
from lensjax.cli.flags import Flag, parse_flags, real, usage
from lensjax.json_text import encode_json
from lensjax.runtime.progress import log

FLAGS = {
    "folder": Flag(
        "FOLDER",
        "Folder with a subfolder per lens (image.fits, noise.fits and psf.fits), and table.csv with the "
        "columns name and theta_E_published_arcsec.",
    ),
    "output": Flag("FILE", "Results, one JSON object per line; rerun the same command to resume."),
    "pixel-scale": real("Side of a pixel; read from the header if not given.", None, 1e-3, value="ARCSEC"),
    "psf": Flag("FILE", "Point-spread function of lenses that have no psf.fits."),
}
USAGE = usage(
    "Fits real lenses and compares their Einstein radii with published ones.",
    ["python tools/studies/real_lenses.py --folder lenses --output real_lenses.jsonl"],
    FLAGS,
)


def main(arguments: Sequence[str]) -> None:
    """Fits the lenses and prints the summary."""
    values = parse_flags(FLAGS, arguments, required=("folder", "output"))
    folder, output = (Path(values[name]).expanduser() for name in ("folder", "output"))
    with (folder / "table.csv").open(newline="") as file:
        published = {row["name"]: float(row["theta_E_published_arcsec"]) for row in csv.DictReader(file)}
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    done = {row["name"] for row in rows}
    for name, radius in published.items():
        if name in done:
            continue
        row = fit_lens(folder / name, values["pixel-scale"], values["psf"]) | {"published": radius}
        rows.append({"name": name} | row)
        with output.open("a", encoding="utf-8") as file:
            file.write(encode_json(rows[-1]) + "\n")
        log.info("%s", describe(rows[-1]))
    log.info("%s", summarize(rows))


def fit_lens(folder: Path, pixel_scale: float | None, psf: str | None) -> dict[str, Any]:
    """Fits the lens in a folder.

    Args:
      folder: folder of the lens.
      pixel_scale: side of a pixel, arcsec; None for that of the header.
      psf: file of the point-spread function of lenses without one.

    Returns:
      Results by name, which JSON can represent.
    """
    own = folder / "psf.fits"
    observation = modeling.Observation.from_fits(
        folder / "image.fits",
        folder / "noise.fits",
        own if own.exists() or psf is None else psf,
        pixel_scale=pixel_scale,
    )
    started, cpu = time.monotonic(), time.process_time()
    fit = modeling.fit(observation)
    return {
        "theta_E": fit.einstein_radius,
        "error": fit.standard_errors["mass.0.theta_E"],
        "verdict": fit.verdict.name,
        "reasons": fit.verdict.reasons,
        "radii": fit.radii,
        "others": fit.others,
        "reduced_chi_square": fit.reduced_chi_square,
        "detection": fit.detection,
        "masked_pixels": int(fit.artifacts.sum()),
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
    }


def describe(row: dict[str, Any]) -> str:
    """One row of a Markdown table."""
    deviation = 100 * (row["theta_E"] / row["published"] - 1)
    return (
        f"| {row['name']} | {row['published']:.2f} | {row['theta_E']:.3f} | {row['error']:.3f} | "
        f"{deviation:+.1f} % | {row['verdict']} | {'; '.join(row['reasons'])} | {row['cpu_seconds']:.1f} s |"
    )


def summarize(rows: Sequence[dict[str, Any]]) -> str:
    """Numbers of lenses within 2, 5, 10 and 20 % of the published radius, and the deviations per verdict."""
    deviations = np.array([abs(row["theta_E"] / row["published"] - 1) for row in rows])
    within = " / ".join(str(int((deviations <= limit).sum())) for limit in (0.02, 0.05, 0.1, 0.2))
    lines = [
        f"{len(rows)} lenses: {within} within 2 / 5 / 10 / 20 %, median {100 * np.median(deviations):.1f} %, "
        f"median {np.median([row['cpu_seconds'] for row in rows]):.1f} s of CPU time per lens"
    ]
    for verdict in ("good", "doubtful", "failed"):
        chosen = deviations[[row["verdict"] == verdict for row in rows]]
        if len(chosen):
            lines.append(f"{verdict}: {len(chosen)}, largest deviation {100 * chosen.max():.1f} %")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="real_lenses"))
