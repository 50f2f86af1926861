"""Measures how often perturbers are found in simulated lenses, and false alarms in lenses without one."""

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from perturbed_lenses import HALO, LOG10_MASS, Scene, simulate
from scipy.special import log_ndtr

from lensjax import modeling
from lensjax.cli import runner
from lensjax.cli.flags import Flag, integer, parse_flags, random_seed, usage
from lensjax.json_text import encode_json
from lensjax.modeling.foreground import add_model_noise
from lensjax.modeling.frame import Data, Frame, pixel_distances, prepare, with_weight
from lensjax.modeling.model import replace_source
from lensjax.modeling.result import LensModelFit
from lensjax.modeling.sources import LATER
from lensjax.modeling.variable_projection import Fit, fit_model, model_images
from lensjax.modeling.verdict import Verdict
from lensjax.report.plots import paper_style
from lensjax.runtime.progress import log, progress_bar
from lensjax.substructure import PerturberMap, map_perturbers

FLAGS = {
    "output": Flag("FILE", "Results, one JSON object per line; rerun the same command to resume."),
    "number": integer("Number of lenses; 500 if not given.", 500, 1),
    "seed": random_seed("of the simulation"),
    "figure": Flag(
        "FILE", "Plot the maps of the second lens, and found against predicted likelihood ratios."
    ),
}
USAGE = usage(
    "Measures how often perturbers are found in simulated lenses, and false alarms.",
    ["python tools/studies/substructure.py --output runs/substructure.jsonl --number 100"],
    FLAGS,
    "Lenses with odd numbers have a perturber. Fits start at the true lens, which saves the search.",
)
RADIUS = 2.6  # arcsec, of the fit
LIGHT_ERROR = 0.03  # as in the fit
STEP = 0.2  # arcsec, of the map
RENDERED = (8.5, 9.25, 10.0, 10.5)
RATES = (0.1, 0.01)  # false positives
FAR_TRUTH = 0.3  # arcsec; a perturber is located if the best position is closer


def main(arguments: Sequence[str]) -> None:
    """Simulates and fits the lenses, searches for perturbers and prints the tables."""
    values = parse_flags(FLAGS, arguments, required=["output"])
    path = Path(values["output"]).expanduser()
    lines = path.read_text().splitlines() if path.exists() else []
    rows = {row["number"]: row for row in map(json.loads, lines) if row["seed"] == values["seed"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar(values["number"], "search") as bar, path.open("a") as file:
        for index in range(values["number"]):
            if index not in rows:
                rows[index] = measure(values["seed"], index)
                file.write(encode_json(rows[index]) + "\n")
                file.flush()
            bar.update(1)
    ordered = [rows[index] for index in range(values["number"])]
    report(ordered)
    if values["figure"]:
        plot(Path(values["figure"]), ordered, *search(values["seed"], 1)[:2])


def search(seed: int, number: int) -> tuple[LensModelFit, PerturberMap, dict[str, Any]]:
    """Simulates and fits one lens, and searches for a perturber; odd numbers have one."""
    observation, scene, perturber = simulate(seed, number)
    start = time.process_time()
    fit = fit_near(observation, scene)
    fitted = time.process_time()
    found, _ = map_perturbers(observation, fit, HALO, log10_masses=RENDERED, step=STEP)
    about = {
        "perturber": perturber,
        "theta_E": [scene.mass["mass.0.theta_E"], fit.einstein_radius],
        "cpu_seconds": [fitted - start, time.process_time() - fitted],
    }
    return fit, found, about


def measure(seed: int, number: int) -> dict[str, Any]:
    """Result of `search` as a row."""
    fit, found, about = search(seed, number)
    x, y, log10_mass, ratio = found.best
    row: dict[str, Any] = {
        "seed": seed,
        "number": number,
        **about,
        "reduced_chi_square": fit.chi_square / max(fit.degrees_of_freedom, 1),
        "best": [x, y, log10_mass],
        "likelihood_ratio": ratio,
        "log_evidence": found.log_evidence,
        "misfit": found.misfit,
    }
    if (perturber := about["perturber"]) is not None:
        column = int(np.abs(found.x - perturber["x"]).argmin())
        line = int(np.abs(found.y - perturber["y"]).argmin())
        row["information"] = found.information[line, column].tolist()
    return row


def fit_near(observation: modeling.Observation, scene: Scene) -> LensModelFit:
    """Fits the default model from the true lens, without the search of `modeling.fit`."""
    mass, light, source = scene.mass, scene.light[0], scene.source[0]
    frame, data = prepare(observation, radius=RADIUS).fine
    center = mass["mass.0.center_x"], mass["mass.0.center_y"]
    values = mass | {
        f"lens_light.0.{prefix}{name}": light[name] for prefix in ("", "outer_") for name in ("e1", "e2")
    }
    values |= {f"lens_light.0.{name}": light[name] for name in ("center_x", "center_y")}
    values |= {f"source.0.{name}": source[name] for name in ("center_x", "center_y")}
    inside = np.where(pixel_distances(frame, center) > RADIUS, 0, data.weight)
    data = with_weight(data, inside)
    scale = float(np.clip(0.7 * source["R_sersic"], 0.05, 0.2))
    prior = modeling.Prior((("source.0.beta", 1.0),), scale, 0.4 * scale)
    values["source.0.beta"] = scale
    # The first fit gives the light of the lens, whose error is part of the noise of the second.
    simple, first = _fit(4, frame, data, values, prior)
    light_image = model_images(simple, frame, data, first.free, first.amplitudes)["lens_light"]
    data = with_weight(data, add_model_noise(data, light_image, LIGHT_ERROR))
    values |= dict(zip(simple.fitted, map(float, first.free), strict=True))
    model, fit = _fit(8, frame, data, values, prior)
    images = model_images(model, frame, data, fit.free, fit.amplitudes)
    with np.errstate(divide="ignore"):
        noise = 1 / data.weight.astype(np.float64)
    names = len(model.fitted)
    return LensModelFit(
        model=dataclasses.replace(model, priors=(*model.priors, prior)),
        parameters={name: float(value) for name, value in model.values(fit.free).items()},
        names=model.fitted,
        covariance=np.zeros((names, names)),
        amplitudes=fit.amplitudes,
        frame=frame,
        image=data.image,
        noise=noise,
        lens_light=images["lens_light"],
        sky=images["sky"],
        lensed_source=images["source"],
        artifacts=np.zeros(noise.shape, bool),
        chi_square=fit.chi_square,
        degrees_of_freedom=int((data.weight > 0).sum() - names - fit.active.sum()),
        sky_variance=1.0,
        detection=np.nan,
        radii={},
        others=(),
        verdict=Verdict("good", ()),
        notes=(),
    )


def _fit(
    order: int, frame: Frame, data: Data, values: dict[str, float], prior: modeling.Prior
) -> tuple[modeling.LensModel, Fit]:
    """The default model with shapelets of the given order, and its fit."""
    model = replace_source(modeling.GALAXY, (modeling.Shapelets(order=order),))
    fit = fit_model(model, frame, data, model.start(values), LATER, (prior,))
    assert fit is not None  # simulated images are finite
    return model, fit


def report(rows: list[dict[str, Any]]) -> None:
    """Prints thresholds, detection rates by mass, and predicted against measured detections."""
    null = [row for row in rows if row["perturber"] is None]
    real = [row for row in rows if row["perturber"] is not None]
    log.info("%d lenses without a perturber, %d with one", len(null), len(real))
    seconds = np.median([row["cpu_seconds"] for row in rows], axis=0)
    log.info("median CPU-seconds: %.1f for the fit, %.1f for map and sensitivity", *seconds)
    masses = np.array([row["perturber"]["log10_mass"] for row in real])
    distance = np.array(
        [
            np.hypot(row["best"][0] - row["perturber"]["x"], row["best"][1] - row["perturber"]["y"])
            for row in real
        ]
    )
    edges = np.arange(LOG10_MASS[0], LOG10_MASS[1] + 0.1, 0.5)
    for statistic, rate in itertools.product(("likelihood_ratio", "log_evidence"), RATES):
        values = np.array([row[statistic] for row in real])
        background = np.array([row[statistic] for row in null])
        limits = threshold_of_rate(background, rate)
        threshold = limits[0]
        found = values > threshold
        log.info("%s, %g false positives: threshold %.2f, 68 %%: %.2f to %.2f", statistic, rate, *limits)
        for first, last in itertools.pairwise(edges):
            inside = (masses >= first) & (masses < last)
            log.info("  %g to %g: %d of %d found", first, last, found[inside].sum(), inside.sum())
        if statistic == "likelihood_ratio":
            near = (distance < FAR_TRUTH) & found
            log.info("  of %d found, %d within %g arcsec", found.sum(), near.sum(), FAR_TRUTH)
            error = np.array([row["best"][2] for row in real]) - masses
            log.info("  error of their mass: median %.2f, 90 %% within %.2f dex", *_spread(error[near]))
            compare_sensitivity(real, found, threshold)


def threshold_of_rate(background: np.ndarray, rate: float) -> tuple[float, float, float]:
    """Threshold that a fraction of the values exceeds, and its interval of 68 % by resampling."""
    draws = np.random.default_rng(0).choice(background, (2000, background.size))
    low, high = np.quantile(np.quantile(draws, 1 - rate, axis=1), (0.16, 0.84))
    return float(np.quantile(background, 1 - rate)), float(low), float(high)


def _spread(values: np.ndarray) -> tuple[float, float]:
    return float(np.median(values)), float(np.quantile(np.abs(values), 0.9))


def compare_sensitivity(rows: list[dict[str, Any]], found: np.ndarray, threshold: float) -> None:
    """Prints where half of the perturbers are found, relative to the prediction of the sensitivity.

    The probability of a detection is modeled as a normal distribution function of the difference between the
    mass and the smallest detectable mass at the position of the perturber.
    """
    mass = np.array([row["perturber"]["log10_mass"] for row in rows])
    axis = LOG10_MASS[0] + 0.1 * np.arange(len(rows[0]["information"]))
    log_square = np.log10(np.maximum([row["information"] for row in rows], 1e-12))
    needed = np.log10(2 * threshold)
    smallest = np.array([np.interp(needed, np.maximum.accumulate(each), axis) for each in log_square])
    smallest -= np.maximum(log_square[:, 0] - needed, 0) / 2  # extrapolated as the squared mass
    expected = np.array([np.interp(m, axis, each) for m, each in zip(mass, log_square, strict=True)])
    expected = 10**expected / 2
    for name, group in (("found", expected >= threshold), ("missed", expected < threshold)):
        log.info("  predicted to be %s: %d, of which found %d", name, group.sum(), found[group].sum())
    strong = expected > threshold
    ratio = np.array([row["likelihood_ratio"] for row in rows])[strong] / expected[strong]
    log.info("  found likelihood ratio / predicted one of these: median %.2f", np.median(ratio))
    reached = log_square[:, -1] > needed
    generator = np.random.default_rng(0)
    offsets = [half_found(mass - smallest, found, np.flatnonzero(reached))]
    offsets += [
        half_found(mass - smallest, found, generator.choice(np.flatnonzero(reached), reached.sum()))
        for _ in range(200)
    ]
    log.info(
        "  half are found %.2f dex above the predicted mass (68 %%: %.2f to %.2f), %d perturbers",
        offsets[0],
        *np.quantile(offsets[1:], (0.16, 0.84)),
        reached.sum(),
    )


def half_found(difference: np.ndarray, found: np.ndarray, chosen: np.ndarray) -> float:
    """Difference at which the most likely normal distribution function is one half."""
    offset, width = np.meshgrid(np.arange(-0.8, 0.81, 0.02), np.arange(0.06, 0.9, 0.06), indexing="ij")
    score = (difference[chosen, None, None] - offset) / width * np.where(found[chosen], 1, -1)[:, None, None]
    return float(offset.ravel()[log_ndtr(score).sum(0).argmax()])


def plot(file: Path, rows: list[dict[str, Any]], fit: LensModelFit, found: PerturberMap) -> None:
    """Plots the maps of a lens, and found against predicted likelihood ratios of all lenses."""
    null = np.array([row["likelihood_ratio"] for row in rows if row["perturber"] is None])
    real = [row for row in rows if row["perturber"] is not None]
    threshold = float(np.quantile(null, 1 - RATES[0]))
    with paper_style():
        figure = Figure(figsize=(10.5, 3.2), layout="constrained")
        evidence, sensitivity, ratios = figure.subplots(1, 3)
        half = STEP / 2
        sides = (found.x[0] - half, found.x[-1] + half, found.y[0] - half, found.y[-1] + half)
        searched = found.information[..., -1] > 0
        ratio = np.where(searched, found.likelihood_ratio.max(2), np.nan)
        smallest = found.sensitivity(threshold)
        smallest = np.where(np.isfinite(smallest), smallest, np.nan)
        panels = (
            (evidence, ratio, "viridis", "log likelihood ratio"),
            (sensitivity, smallest, "magma_r", "log10 of the smallest detectable mass"),
        )
        truth = real[0]["perturber"]
        extent = fit.frame.columns * fit.frame.pixel_scale / 2
        for axes, values, colors, label in panels:
            shown = axes.imshow(values, origin="lower", extent=sides, cmap=colors)
            figure.colorbar(shown, ax=axes, label=label)
            axes.contour(
                fit.lensed_source / fit.noise, [2.0], extent=(-extent, extent, -extent, extent), colors="0.5"
            )
            axes.plot(truth["x"], truth["y"], "o", markerfacecolor="none", color="tab:red")
            axes.set(xlabel="x (arcsec)", ylabel="y (arcsec)")
        axis = LOG10_MASS[0] + 0.1 * np.arange(len(real[0]["information"]))
        masses = np.array([row["perturber"]["log10_mass"] for row in real])
        expected = [
            max(np.interp(mass, axis, row["information"]) / 2, 0.1)
            for mass, row in zip(masses, real, strict=True)
        ]
        measured = np.array([max(row["likelihood_ratio"], 0.1) for row in real])
        points = ratios.scatter(expected, measured, c=masses, s=6, cmap="viridis")
        figure.colorbar(points, ax=ratios, label="log10 of the true mass")
        ratios.axhline(threshold, color="tab:red", linewidth=1)
        ratios.axvline(threshold, color="tab:red", linewidth=1)
        ratios.set(xscale="log", yscale="log", xlabel="predicted", ylabel="found log likelihood ratio")
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=110)


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="substructure"))
