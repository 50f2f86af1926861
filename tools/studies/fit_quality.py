"""Measures the accuracy of the lens fit on simulated images, and on real images if available.

  python tools/studies/fit_quality.py

  --images N      simulated common_test images per class (default 1,000)
  --seed N        seed of the simulation (default 0)
  --model NAME    model to fit: common_test or general (default common_test)
  --noise KIND    noise known to the fit: counts (image * scale is photon counts minus an
                  integer) or unknown (default counts)
  --real FOLDER   real images: no/, sphere/ and vort/ with .npy files (default: the environment
                  variable LENSJAX_REAL_SAMPLES)

The excess is the reduced chi-square of the fit minus that of the true smooth lens with its best
amplitude and sky, in the same noise. Pulls are (fit - truth) / standard deviation.
Exit codes: 0 success; 2 invalid command.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags

from lensjax import fitting, simulation
from lensjax.cli import runner
from lensjax.data.counts import recover_counts
from lensjax.data.images import CLASSES
from lensjax.errors import UserError
from lensjax.runtime.progress import log, progress_bar

RINGS = 8


def main(arguments: Sequence[str]) -> None:
    """Prints the tables.

    Raises:
      UserError: if a flag is invalid.
    """
    values = flags.FlagValues()
    flags.DEFINE_integer("images", 1_000, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "", lower_bound=0, flag_values=values)
    flags.DEFINE_string("model", "common_test", "", flag_values=values)
    flags.DEFINE_enum("noise", "counts", ["counts", "unknown"], "", flag_values=values)
    flags.DEFINE_string("real", os.environ.get("LENSJAX_REAL_SAMPLES"), "", flag_values=values)
    runner.read_flags(values, arguments)
    model = fitting.smooth_model(values.model)
    counts = values.noise == "counts"
    report_simulated(model, len(CLASSES) * values.images, values.seed, counts)
    if values.real:
        report_real(Path(values.real).expanduser(), model, counts)


def report_simulated(model: fitting.SmoothModel, number: int, seed: int, counts: bool) -> None:
    """Fits simulated images and compares the fits with the true parameters."""
    images = simulation.simulate_split("common_test", seed=seed, split="validation", num_images=number)
    fit = fit_images(images.pixels / images.scale[:, None, None], images.scale, model, counts)
    excess = fit.reduced_chi_square - true_chi_square(images, fit, model)
    error = np.abs(fit.parameters["theta_E"] / images.scenes.theta_E - 1)
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
    deviation = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
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
    source = simulation.preset("common_test").source
    known: dict[str, np.ndarray | float] = {
        "amp": source.amp / images.scale,
        "R_sersic": source.R_sersic,
        "n_sersic": source.n_sersic,
        "gamma": 2.0,
        **dict.fromkeys(("lens_x", "lens_y", "lens_e1", "lens_e2"), 0.0),
    }
    return known[name] if name in known else getattr(images.scenes, name, None)


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


def report_real(folder: Path, model: fitting.SmoothModel, counts: bool) -> None:
    """Fits real images and prints the power of the residuals, which is white without substructure."""
    files = [file for name in CLASSES for file in sorted((folder / name).glob("*.npy"))]
    if not files:
        raise UserError(f"{folder} has no .npy files in no/, sphere/ or vort/; change --real")
    images = np.stack([np.load(file, allow_pickle=False).squeeze() for file in files])
    recovered = [recover_counts(image) for image in images]
    scale = np.array([np.nan if found is None else found[1] for found in recovered])
    fit = fit_images(images, scale, model, counts)
    power = np.stack([ring_power(residual) for residual in fit.residual[..., 0]])
    log.info("%d real images: reduced chi-square, converged, theta_E and its deviation,", len(files))
    log.info("and the power of the residual in %d rings of spatial frequency (white: 1)", RINGS)
    for row, file in enumerate(files):
        rings = " ".join(f"{ring:.2f}" for ring in power[row])
        log.info(
            "  %-8s %6.3f %5s  %.4f %.4f  %s",
            *(file.parent.name, fit.reduced_chi_square[row], fit.converged[row]),
            *(fit.parameters["theta_E"][row], np.sqrt(fit.covariance[row, 0, 0]), rings),
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


def run() -> int:
    """Runs the command and returns its exit code."""
    return runner.run(main, __doc__, name="fit_quality")


if __name__ == "__main__":
    sys.exit(run())
