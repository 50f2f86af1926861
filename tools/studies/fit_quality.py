"""Measures the accuracy of the lens fit on simulated images, and on published images if available."""

import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lensjax import fitting, simulation
from lensjax.cli import runner
from lensjax.cli.flags import Flag, choice, integer, parse_flags, random_seed, usage
from lensjax.data.images import CLASSES
from lensjax.data.reference_layout import read_class_folders
from lensjax.data.residuals import counts_per_unit
from lensjax.runtime.progress import log, progress_bar

FLAGS = {
    "images": integer("Number of common_test images per class; 1,000 if not given.", 1_000, 1),
    "seed": random_seed("of the simulation"),
    "model": Flag("NAME", "Model to fit: common_test (default) or general.", default="common_test"),
    "noise": choice(
        "KIND",
        "Noise that the fit assumes: counts (default; image * scale is photon counts minus an integer) or "
        "unknown.",
        ("counts", "unknown"),
        "counts",
    ),
    "published": Flag(
        "FOLDER",
        "Published images: no/, sphere/ and vort/ with .npy files; $LENSJAX_PUBLISHED_SAMPLES if not given.",
        default=os.environ.get("LENSJAX_PUBLISHED_SAMPLES"),
    ),
}
USAGE = usage(
    "Measures the accuracy of the lens fit on simulated images, and on published images if available.",
    ["python tools/studies/fit_quality.py"],
    FLAGS,
    "The excess is the reduced chi-square of the fit minus that of the true smooth lens with its best "
    "amplitude and sky, in the same noise. Pulls are (fit - truth) / standard deviation.",
)
RINGS = 8


def main(arguments: Sequence[str]) -> None:
    """Prints the tables."""
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    model = fitting.smooth_model(values.model)
    counts = values.noise == "counts"
    report_simulated(model, len(CLASSES) * values.images, values.seed, counts)
    if values.published:
        report_published(Path(values.published).expanduser(), model, counts)


def report_simulated(model: fitting.SmoothModel, number: int, seed: int, counts: bool) -> None:
    """Fits simulated images and compares the fits with the true parameters."""
    images = simulation.simulate_split("common_test", seed=seed, split="validation", num_images=number)
    fit = fit_images(images.pixels / images.scale[:, None, None], images.scale, model, counts)
    excess = fit.reduced_chi_square - true_chi_square(images, fit, model)
    error = np.abs(fit.parameters["mass.0.theta_E"] / images.scenes.theta_E - 1)
    log.info("%d simulated images, model %s", number, ", ".join(model.names))
    log.info("reduced chi-square of the fit, at the percentiles 1, 50 and 99, and the largest")
    for label, name in enumerate(CLASSES):
        rows = images.labels == label
        spread = np.percentile(fit.reduced_chi_square[rows], [1, 50, 99, 100])
        log.info("  %-8s %6.3f %6.3f %6.3f %6.3f", name, *spread)
    log.info("                            no    sphere      vort")
    shares = {
        "excess below 0.005, %": np.asarray(excess < 0.005),
        "theta_E within 0.5 %, %": np.asarray(error < 0.005),
        "converged, %": np.asarray(fit.converged),
    }
    for what, holds in shares.items():
        row = [100 * holds[images.labels == label].mean() for label in range(len(CLASSES))]
        log.info("  %-24s %5.1f %9.1f %9.1f", what, *row)
    report_pulls(model, images, fit)


def report_pulls(
    model: fitting.SmoothModel, images: simulation.SimulatedImages, fit: fitting.LensFit
) -> None:
    """Prints the pulls for images without substructure, which test the uncertainties."""
    smooth = images.labels == 0
    deviation = fit.standard_errors
    log.info("pulls on `no`          mean  width  largest    standard deviation")
    for column, name in enumerate(model.names[:-1]):
        truth = true_value(name, images)
        if truth is None:
            continue
        pull = ((fit.parameters[name] - truth) / deviation[:, column])[smooth]
        log.info(
            "  %-18s %6.3f %6.3f %8.2f    %.1e",
            *(name, pull.mean(), pull.std(), np.abs(pull).max()),
            np.median(deviation[smooth, column]),
        )


def true_value(name: str, images: simulation.SimulatedImages) -> np.ndarray | float | None:
    """True value of a parameter of the fit; None if the simulation has no such parameter."""
    source, scenes = simulation.preset("common_test").source, images.scenes
    known: dict[str, Any] = {
        "mass.0.theta_E": scenes.theta_E,
        "mass.0.gamma": 2.0,
        **dict.fromkeys((f"mass.0.{name}" for name in ("e1", "e2", "center_x", "center_y")), 0.0),
        "mass.1.gamma1": scenes.gamma1,
        "mass.1.gamma2": scenes.gamma2,
        "source.0.center_x": scenes.source_x,
        "source.0.center_y": scenes.source_y,
        "source.0.e1": scenes.source_e1,
        "source.0.e2": scenes.source_e2,
        "source.0.R_sersic": source.R_sersic,
        "source.0.n_sersic": source.n_sersic,
        "source.0.amp": source.amp / images.scale,
    }
    return known.get(name)


def true_chi_square(
    images: simulation.SimulatedImages, fit: fitting.LensFit, model: fitting.SmoothModel
) -> np.ndarray:
    """Reduced chi-square of the true main lens without substructure, as the simulator renders it."""
    preset = simulation.preset("common_test")
    render = jax.jit(lambda scene: simulation.expected_counts(scene, preset))
    chi_squares = []
    for row, pixels in enumerate(images.pixels):
        scene = jax.tree.map(lambda leaf, row=row: leaf[row], images.scenes)
        scene.masses[:] = 0
        source = np.asarray(render(scene), np.float64) - preset.instrument.sky
        image = pixels / np.float64(images.scale[row])
        variance = fit.background_variance[row] + fit.gain[row] * source / images.scale[row]
        basis = np.stack([source, np.ones_like(source)]).reshape(2, -1) / np.sqrt(variance).ravel()
        target = (image / np.sqrt(variance)).ravel()
        residual = target - basis.T @ np.linalg.lstsq(basis.T, target, rcond=None)[0]
        chi_squares.append((residual**2).sum() / (residual.size - len(model.names)))
    return np.array(chi_squares)


def report_published(folder: Path, model: fitting.SmoothModel, counts: bool) -> None:
    """Fits published images and prints the power of the residuals, which is white without substructure."""
    published = read_class_folders(folder, simulation.preset("common_test").instrument.image_size)
    fit = fit_images(published.images()[..., 0], counts_per_unit(published), model, counts)
    power = np.stack([ring_power(residual) for residual in np.asarray(fit.residual[..., 0])])
    log.info("%d published images: reduced chi-square, converged, theta_E and its deviation,", len(published))
    log.info("and the power of the residual in %d rings of spatial frequency (white: 1)", RINGS)
    for row, label in enumerate(published.labels):
        rings = " ".join(f"{ring:.2f}" for ring in power[row])
        log.info(
            "  %-8s %6.3f %5s  %.4f %.4f  %s",
            *(CLASSES[label], fit.reduced_chi_square[row], fit.converged[row]),
            *(fit.parameters["mass.0.theta_E"][row], fit.standard_errors[row, 0], rings),
        )


def ring_power(residual: np.ndarray) -> np.ndarray:
    """Mean power of a map of unit noise in rings of equal width up to the Nyquist frequency."""
    power = np.abs(np.fft.fft2(residual)) ** 2 / residual.size
    rows, columns = (np.fft.fftfreq(length) for length in residual.shape)
    ring = (np.hypot(rows[:, None], columns[None, :]) / 0.5 * RINGS).astype(int)
    return np.array([power[ring == number].mean() for number in range(RINGS)])


def fit_images(
    images: np.ndarray, scale: np.ndarray, model: fitting.SmoothModel, counts: bool
) -> fitting.LensFit:
    """Fits images, with a progress bar."""
    noise = None
    if counts:
        noise = fitting.photon_noise(scale.astype(np.float32))
    with progress_bar(len(images), "fit") as bar:
        return fitting.fit_in_batches(
            images[..., None].astype(np.float32), model, noise=noise, report=bar.update
        )


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="fit_quality"))
