"""Measures the accuracy of `modeling.fit` on simulated lenses as seen by the Hubble Space Telescope."""

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal

from lensjax import modeling, physics
from lensjax.cli import runner
from lensjax.cli.flags import Flag, choice, integer, parse_flags, random_seed, usage
from lensjax.errors import UserError
from lensjax.json_text import encode_json
from lensjax.runtime.progress import log, progress_bar

FLAGS = {
    "output": Flag("FILE", "Results, one JSON object per line; rerun the same command to resume."),
    "number": integer("Number of lenses; 60 if not given.", 60, 1),
    "seed": random_seed("of the simulation"),
    "main-lens": choice(
        "NAME", "Mass of the lens, simulated and fitted: SIE (default) or EPL.", ("SIE", "EPL"), "SIE"
    ),
}
USAGE = usage(
    "Measures the accuracy of modeling.fit on simulated lenses as seen by the Hubble Space Telescope.",
    ["python tools/studies/simulated_lenses.py --output runs/simulated_lenses.jsonl"],
    FLAGS,
    "Pulls are (fit - truth) / standard deviation; 68 % of them are within 1 if the errors are correct.",
)
SCALE, SIDE, FINE = 0.05, 120, 4  # arcsec, pixels, rays per pixel along each axis
PSF_SIDE, PSF_FWHM, MOFFAT_BETA = 15, 0.1, 2.5
GAIN = 12.6  # photons per unit; the unit is the noise of the sky, as in an exposure of 2,000 s with ACS
SCATTER, NEIGHBORS = 0.68, 0.25  # noise in units of the noise map, and correlation, of a drizzled image
MAX_CLUMPS = 3


def main(arguments: Sequence[str]) -> None:
    """Simulates and fits the lenses, and prints the tables."""
    values = parse_flags(FLAGS, arguments, required=["output"])
    number, seed, main_lens = values["number"], values["seed"], values["main-lens"]
    path = Path(values["output"]).expanduser()
    rows = _read(path, seed, main_lens)
    path.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar(number, "fit") as bar, path.open("a") as file:
        for index in range(number):
            if index not in rows:
                rows[index] = measure(seed, index, main_lens)
                file.write(encode_json(rows[index]) + "\n")
                file.flush()
            bar.update(1)
    report([rows[index] for index in range(number)])


def _read(path: Path, seed: int, main_lens: str) -> dict[int, dict[str, Any]]:
    """Rows of an earlier run by number."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if any((row["seed"], row["main_lens"]) != (seed, main_lens) for row in rows):
        raise UserError(f"{path}: contains lenses of another --seed or --main-lens; choose another --output")
    return {row["number"]: row for row in rows}


def measure(seed: int, number: int, main_lens: str) -> dict[str, Any]:
    """Simulates and fits one lens."""
    generator = np.random.default_rng([seed, number])
    truth = draw_mass(generator, main_lens)
    observation = observe(generator, truth, main_lens)
    start = time.process_time()
    fit = modeling.fit(observation, modeling.galaxy_model(main_lens.lower()))
    return {
        "seed": seed,
        "number": number,
        "main_lens": main_lens,
        "truth": truth,
        "fit": {name: fit.parameters[name] for name in truth},
        "errors": {name: fit.standard_errors[name] for name in truth},
        "verdict": fit.verdict.name,
        "reasons": fit.verdict.reasons,
        "detection": fit.detection,
        "reduced_chi_square": fit.reduced_chi_square,
        "sky_variance": fit.sky_variance,
        "radii": fit.radii,
        "others": fit.others,
        "cpu_seconds": time.process_time() - start,
    }


def draw_mass(generator: np.random.Generator, main_lens: str) -> dict[str, float]:
    """Draws the parameters of the mass, with the names that they have in a fit."""
    truth = {"mass.0.theta_E": generator.uniform(0.7, 1.8)}
    if main_lens == "EPL":
        truth["mass.0.gamma"] = np.clip(generator.normal(2.08, 0.15), 1.6, 2.5)
    names = ("mass.0.e1", "mass.0.e2", "mass.0.center_x", "mass.0.center_y", "mass.1.gamma1", "mass.1.gamma2")
    widths = (0.12, 0.12, 0.05, 0.05, 0.035, 0.035)
    truth |= dict(zip(names, generator.normal(0, widths), strict=True))
    return {name: float(value) for name, value in truth.items()}


def observe(generator: np.random.Generator, truth: dict[str, float], main_lens: str) -> modeling.Observation:
    """Simulates the observation of a lens."""
    light, arcs = render(main_lens, truth, draw_light(generator, truth), draw_source(generator, truth))
    # The brightest pixel of the galaxy is 100 to 200 times its noise, that of the arcs 5 to 15 times.
    ratio = generator.uniform(100, 200)
    light *= (ratio**2 / GAIN + np.sqrt(ratio**4 / GAIN**2 + 4 * ratio**2)) / 2 / light.max()
    arcs *= generator.uniform(5, 15) / (arcs / np.sqrt(1 + light / GAIN)).max()
    image = light + arcs
    noise = np.sqrt(1 + image / GAIN)
    return modeling.Observation(
        image + noise * SCATTER * correlated_noise(generator, image.shape),
        noise,
        moffat(PSF_SIDE * FINE).reshape(PSF_SIDE, FINE, PSF_SIDE, FINE).sum((1, 3)),
        pixel_scale=SCALE,
    )


def draw_light(generator: np.random.Generator, truth: dict[str, float]) -> list[dict[str, float]]:
    """Draws Sersic profiles of the lens galaxy: one, or a bulge and an envelope, aligned with the mass."""
    e1, e2 = (truth[f"mass.0.{name}"] + generator.normal(0, 0.08) for name in ("e1", "e2"))
    x, y = (truth[f"mass.0.{name}"] + generator.normal(0, 0.01) for name in ("center_x", "center_y"))
    place = {"e1": e1, "e2": e2, "center_x": x, "center_y": y}
    bulge = {"amp": 1.0, "n_sersic": generator.uniform(3, 5), **place}
    if generator.random() < 0.5:
        return [{**bulge, "R_sersic": generator.uniform(1, 2.5)}, {**bulge, "amp": 0.0, "R_sersic": 1.0}]
    bulge["R_sersic"] = generator.uniform(0.4, 1)
    turned = {name: place[name] + generator.normal(0, 0.05) for name in ("e1", "e2")}
    envelope = {
        **bulge,
        **turned,
        "amp": generator.uniform(0.2, 0.8),
        "n_sersic": generator.uniform(1, 2),
        "R_sersic": generator.uniform(1.5, 2.5),
    }
    return [bulge, envelope]


def draw_source(generator: np.random.Generator, truth: dict[str, float]) -> list[dict[str, float]]:
    """Draws Sersic profiles of the source: a disk and one to three clumps, inside or near the caustics."""
    distance = 0.4 * truth["mass.0.theta_E"] * np.sqrt(generator.random())
    angle = generator.uniform(0, 2 * np.pi)
    x, y = (truth[f"mass.0.center_{axis}"] for axis in "xy")
    disk = {
        "amp": 1.0,
        "R_sersic": generator.uniform(0.1, 0.25),
        "n_sersic": generator.uniform(0.8, 1.5),
        "e1": generator.normal(0, 0.15),
        "e2": generator.normal(0, 0.15),
        "center_x": x + distance * np.cos(angle),
        "center_y": y + distance * np.sin(angle),
    }
    clumps = []
    number = generator.integers(1, MAX_CLUMPS + 1)
    for index in range(MAX_CLUMPS):
        place = {
            name: disk[name] + generator.normal(0, 0.7 * disk["R_sersic"])
            for name in ("center_x", "center_y")
        }
        clump = {
            "amp": generator.uniform(0.3, 2),
            "R_sersic": generator.uniform(0.05, 0.12),
            "n_sersic": 1.0,
            "e1": generator.normal(0, 0.1),
            "e2": generator.normal(0, 0.1),
        }
        clumps.append({**clump, **place, "amp": clump["amp"] if index < number else 0.0})
    return [disk, *clumps]


def render(
    main_lens: str, mass: dict[str, float], light: list[dict[str, float]], source: list[dict[str, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Images of the lens galaxy and of the arcs, blurred, in an arbitrary unit."""
    return blur(_fine_images(main_lens, mass, light, source))


def blur(images: Sequence[jax.Array], width: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Two images on fine pixels, blurred by the point-spread function and binned.

    Args:
      images: the lens galaxy and the arcs, with a margin.
      width: width of the point-spread function relative to `PSF_FWHM`.
    """
    kernel = moffat(PSF_SIDE * FINE - 1, width)  # odd: centered on a fine pixel
    blurred = [signal.fftconvolve(np.asarray(image, np.float64), kernel, mode="valid") for image in images]
    light_image, arcs = (image.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3)) for image in blurred)
    return light_image, arcs


def fine_positions() -> tuple[np.ndarray, np.ndarray]:
    """Positions of the fine pixels, arcsec."""
    number = SIDE * FINE + PSF_SIDE * FINE - 2
    axis = (np.arange(number) - (number - 1) / 2) * SCALE / FINE
    x, y = np.meshgrid(axis, axis)
    return x, y


@partial(jax.jit, static_argnums=0)
def _fine_images(
    main_lens: str, mass: dict[str, Any], light: list[dict[str, Any]], source: list[dict[str, Any]]
) -> tuple[jax.Array, jax.Array]:
    x, y = (jnp.asarray(each, jnp.float32) for each in fine_positions())
    beta = physics.lens_equation(x, y, *deflection(main_lens, x, y, mass))
    return brightness(light, x, y), brightness(source, *beta)


def deflection(
    main_lens: str, x: jax.Array, y: jax.Array, mass: dict[str, Any]
) -> tuple[jax.Array, jax.Array]:
    """Deflection of the main lens and the shear."""
    main = {name.removeprefix("mass.0."): value for name, value in mass.items() if name.startswith("mass.0.")}
    profile = physics.sie_deflection if main_lens == "SIE" else physics.epl_deflection
    of_lens = profile(x, y, main.pop("theta_E"), **main)
    of_shear = physics.external_shear_deflection(x, y, mass["mass.1.gamma1"], mass["mass.1.gamma2"])
    return of_lens[0] + of_shear[0], of_lens[1] + of_shear[1]


def brightness(profiles: list[dict[str, Any]], x: jax.Array, y: jax.Array) -> jax.Array:
    """Sum of Sersic profiles."""
    return jnp.stack([physics.sersic(x, y, **profile, core=1e-3) for profile in profiles]).sum(0)


def moffat(side: int, width: float = 1.0) -> np.ndarray:
    """Moffat profile on fine pixels, which sums to 1; its width is relative to `PSF_FWHM`."""
    axis = (np.arange(side) - (side - 1) / 2) * SCALE / FINE
    radius = np.hypot(axis[:, None], axis)
    core = width * PSF_FWHM / 2 / np.sqrt(2 ** (1 / MOFFAT_BETA) - 1)
    profile = (1 + (radius / core) ** 2) ** -MOFFAT_BETA
    return profile / profile.sum()


def correlated_noise(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of variance 1 in which neighbors along each axis have the correlation `NEIGHBORS`."""
    side = (1 - np.sqrt(1 - 2 * NEIGHBORS**2)) / (2 * NEIGHBORS)  # 2 side / (1 + 2 side^2) = NEIGHBORS
    smoothing = np.array([side, 1, side]) / np.sqrt(1 + 2 * side**2)
    white = generator.normal(size=[length + 2 for length in shape])
    return signal.convolve2d(white, np.outer(smoothing, smoothing), mode="valid")


def report(rows: list[dict[str, Any]]) -> None:
    """Prints accuracy, verdicts and pulls."""
    deviation = np.array([row["fit"]["mass.0.theta_E"] / row["truth"]["mass.0.theta_E"] - 1 for row in rows])
    verdicts = np.array([row["verdict"] for row in rows])
    seconds = np.median([row["cpu_seconds"] for row in rows])
    log.info("%d lenses, %s; median of %.0f CPU-seconds", len(rows), rows[0]["main_lens"], seconds)
    log.info("theta_E        lenses  within 2 %  within 5 %  within 10 %  largest deviation")
    for name in ("all", "good", "doubtful", "failed"):
        group = np.abs(deviation[(verdicts == name) | (name == "all")])
        if len(group):
            shares = [100 * (group < limit).mean() for limit in (0.02, 0.05, 0.1)]
            log.info(
                "  %-10s %8d %9.1f %% %8.1f %% %9.1f %% %14.1f %%",
                name,
                len(group),
                *shares,
                100 * group.max(),
            )
    log.info("pulls                      mean   width  within 1   median error")
    for name in ("all", "good"):
        chosen = [row for row in rows if name in ("all", row["verdict"])]
        for parameter in rows[0]["truth"] if chosen else ():
            errors = [row["errors"][parameter] for row in chosen]
            error = np.array([np.inf if each is None else each for each in errors])  # null if infinite
            pull = np.array([row["fit"][parameter] - row["truth"][parameter] for row in chosen]) / error
            log.info(
                "  %-8s %-16s %6.2f %6.2f %7.1f %%      %.2g",
                *(
                    name,
                    parameter,
                    pull.mean(),
                    pull.std(),
                    100 * (np.abs(pull) < 1).mean(),
                    np.median(error),
                ),
            )


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="simulated_lenses"))
