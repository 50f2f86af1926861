"""Measures how a trained lens-fit run degrades when an assumption of the fit is violated."""

import dataclasses
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# OpenBLAS threads only slow down small matrix decompositions.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np

from lensjax import fitting, physics, simulation
from lensjax.cli import runner
from lensjax.cli.flags import Flag, comma_list, integer, parse_flags, random_seed, usage
from lensjax.data.images import CLASSES, ImageSet
from lensjax.data.residuals import NO_FIT, add_residuals
from lensjax.errors import UserError
from lensjax.evaluation import scores
from lensjax.json_text import encode_json
from lensjax.prediction.trained_model import TrainedModel, load_trained_model
from lensjax.runtime.progress import log

BATCH_SIZE = 32
LENS_LIGHT = 0.3  # peak brightness, in units of the peak of the lensed source
AXIS_RATIO = 0.8


def main(arguments: Sequence[str]) -> None:
    """Prints the table.

    Raises:
      UserError: if a flag is invalid, or the run has no lens fit.
    """
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments, required=("workdir",)))
    for name in values.conditions:
        if name not in CONDITIONS:
            raise UserError(f"unknown condition {name!r}; expected one of {', '.join(CONDITIONS)}")
    output = None if values.output is None else Path(values.output).expanduser()
    if output is not None and output.exists():
        raise UserError(f"{output} already exists; move it or choose another file")
    trained = load_trained_model(Path(values.workdir).expanduser(), devices=jax.local_devices()[:1])
    own = trained.config.data.fit
    if own == NO_FIT:
        raise UserError(f"{values.workdir} was trained without a lens fit; choose a run with one")
    fits = values.fits or list(dict.fromkeys([own, "general"]))
    for name in fits:
        fitting.smooth_model(name)
    rows = []
    log.info("%d images per condition; AUC with 95 %% interval", values.images)
    log.info(
        "%-22s %-12s %6s %6s %6s %6s %15s %9s %10s",
        *("condition", "fit", *CLASSES, "mean", "", "converged", "chi-square"),
    )
    for row in table(trained, values.conditions, fits, values.images, values.seed):
        log.info(
            "%-22s %-12s %6.4f %6.4f %6.4f %6.4f (%.4f-%.4f) %9.3f %10.3f",
            *(row["condition"], row["fit"], *(row[f"auc_{name}"] for name in CLASSES)),
            *(row["auc"], *row["auc_interval"], row["converged"], row["chi_square"]),
        )
        rows.append(row)
    if output is not None:
        record = {
            "run": {"best_epoch": trained.best_epoch, "fit": own},
            "images": values.images,
            "seed": values.seed,
            "conditions": rows,
        }
        output.write_text(encode_json(record, indent=2) + "\n")


def table(
    trained: TrainedModel, conditions: Sequence[str], fits: Sequence[str], number: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yields the results of each condition and fit."""
    for condition in conditions:
        images = CONDITIONS[condition](number, seed)
        weights = scores.resample_weights(images.labels)
        for name in fits:
            fitted = add_residuals(images, name, keep=False, test=False)
            probabilities = trained.predict(fitted).probabilities
            assert fitted.fit is not None
            found = scores.compute_scores(images.labels, probabilities)
            draws = scores.bootstrap_scores(images.labels, probabilities, weights)
            yield {
                "condition": condition,
                "fit": name,
                **found,
                "auc_interval": scores.percentile_intervals(draws)["auc"],
                "converged": float(fitted.fit["fit_converged"].mean()),
                "chi_square": float(np.median(fitted.fit["reduced_chi_square"])),
            }


def simulate(preset: simulation.Preset, number: int, seed: int) -> ImageSet:
    """Simulates test images of a preset."""
    images = simulation.simulate_split(preset, seed=seed, split="test", num_images=number)
    return image_set(images.pixels, images.labels)


def image_set(pixels: np.ndarray, labels: np.ndarray) -> ImageSet:
    """Image set from counts."""
    pixels = pixels - pixels.min((1, 2), keepdims=True)
    names = tuple(f"simulated/{CLASSES[label]}/{row}" for row, label in enumerate(labels))
    return ImageSet(pixels.astype(np.uint16), pixels.max((1, 2)).astype(np.float32), labels, names)


def with_source(**factors: float) -> Callable[[int, int], ImageSet]:
    """Images whose source has some parameters multiplied by factors."""
    source = COMMON.source
    changed = {name: factor * getattr(source, name) for name, factor in factors.items()}
    preset = dataclasses.replace(COMMON, source=dataclasses.replace(source, **changed))
    return lambda number, seed: simulate(preset, number, seed)


def with_psf(factor: float) -> Callable[[int, int], ImageSet]:
    """Images with the width of the point-spread function multiplied by a factor."""
    instrument = dataclasses.replace(COMMON.instrument, psf_sigma=factor * COMMON.instrument.psf_sigma)
    preset = dataclasses.replace(COMMON, instrument=instrument)
    return lambda number, seed: simulate(preset, number, seed)


def with_elliptical_lens(number: int, seed: int) -> ImageSet:
    """Images of an isothermal ellipsoid at 45 degrees to the shear."""
    e2 = (1 - AXIS_RATIO) / (1 + AXIS_RATIO)
    return simulate(dataclasses.replace(COMMON, lens_e2=e2), number, seed)


def with_lens_light(number: int, seed: int) -> ImageSet:
    """Images with light of the main lens: a circular Sersic profile at the center."""
    scenes = simulation.draw_scenes(COMMON, seed=seed, split="test", num_images=number)
    instrument = COMMON.instrument
    render = jax.jit(jax.vmap(lambda scene: simulation.expected_counts(scene, COMMON)))
    x, y = physics.pixel_grid(instrument.image_size, instrument.pixel_scale)
    # The core approximates the point-spread function, which removes the cusp.
    light = np.asarray(physics.sersic(x, y, 1.0, R_sersic=0.4, n_sersic=2.0, core=instrument.psf_sigma))
    rng = np.random.default_rng(seed)
    pixels = []
    for first in range(0, number, BATCH_SIZE):
        rows = np.minimum(np.arange(first, first + BATCH_SIZE), number - 1)
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], scenes)
        expected = np.asarray(render(part), np.float64)[: number - first]
        peak = expected.max((1, 2), keepdims=True) - instrument.sky
        pixels.append(rng.poisson(expected + LENS_LIGHT * peak * light / light.max()))
    return image_set(np.concatenate(pixels), np.asarray(scenes.label))


COMMON = simulation.preset("common_test")
CONDITIONS: dict[str, Callable[[int, int], ImageSet]] = {
    "as trained": with_source(),
    "n_sersic + 20 %": with_source(n_sersic=1.2),
    "n_sersic - 20 %": with_source(n_sersic=0.8),
    "R_sersic + 20 %": with_source(R_sersic=1.2),
    "R_sersic - 20 %": with_source(R_sersic=0.8),
    "PSF 10 % wider": with_psf(1.1),
    "PSF 10 % narrower": with_psf(0.9),
    "elliptical lens": with_elliptical_lens,
    "lens light": with_lens_light,
    "model_1": lambda number, seed: simulate(simulation.preset("model_1"), number, seed),
}


FLAGS = {
    "workdir": Flag("PATH", "Run with a lens fit, such as runs/lens_fit-quick, or a model file."),
    "images": integer("Images per condition, all classes together; 600 if not given.", 600, 6),
    "seed": random_seed("of the simulation", 1),
    "conditions": comma_list("Conditions to measure, see below; all if not given.", list(CONDITIONS)),
    "fits": comma_list("Lens models to fit; if not given, that of the run and general.", None),
    "output": Flag("FILE", "Write the table as JSON."),
}
USAGE = usage(
    "Measures how a trained lens-fit run degrades when an assumption of the fit is violated.",
    ["python tools/studies/where_it_breaks.py --workdir runs/lens_fit-quick"],
    FLAGS,
    "Each condition except 'as trained' violates an assumption of the fit. Images that the run has not seen "
    "are simulated, fitted and classified: first with the fit of the run, then with the general fit. "
    "docs/where_it_breaks.md shows the table.",
    f"Conditions: {', '.join(CONDITIONS)}.",
    "Intervals contain the central 95 % of 1,000 bootstrap samples; AUC is one-vs-rest.",
)


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="where_it_breaks"))
