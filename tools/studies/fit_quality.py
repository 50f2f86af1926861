"""Measures how good the lens fit is on simulated images, and on real ones where there are any.

  python tools/studies/fit_quality.py

  --images N      simulated common_test images of each class (1,000 if not given)
  --seed N        seed of their simulation (0 if not given)
  --model NAME    what is fitted: common_test or general (common_test if not given)
  --noise WHAT    what the fit is told of the noise: counts (image * scale is counts less a
                  whole number) or nothing (counts if not given)
  --real FOLDER   real images: no/, sphere/ and vort/ of .npy files; what the environment
                  variable LENSJAX_REAL_SAMPLES names if not given

Excess is the reduced chi-square of the fit less that of the true smooth lens with its best
amplitude and sky, in the same noise. Pulls are (fit - truth) / standard deviation.
Exit codes: 0 done; 2 something in the command is wrong.
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
      UserError: a flag is wrong.
    """
    values = flags.FlagValues()
    flags.DEFINE_integer("images", 1_000, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "", lower_bound=0, flag_values=values)
    flags.DEFINE_string("model", "common_test", "", flag_values=values)
    flags.DEFINE_enum("noise", "counts", ["counts", "nothing"], "", flag_values=values)
    flags.DEFINE_string("real", os.environ.get("LENSJAX_REAL_SAMPLES"), "", flag_values=values)
    runner.read_flags(values, arguments)
    model = fitting.smooth_model(values.model)
    counts = values.noise == "counts"
    simulated(model, len(CLASSES) * values.images, values.seed, counts)
    if values.real:
        real(Path(values.real).expanduser(), model, counts)


def simulated(model: fitting.SmoothModel, number: int, seed: int, counts: bool) -> None:
    """Fits simulated images and compares with their truth."""
    images = simulation.simulate_split(
        "common_test", seed=seed, split="validation", num_images=number
    )
    fit = fitted(images.pixels / images.scale[:, None, None], images.scale, model, counts)
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
    pulls(model, images, fit)


def pulls(
    model: fitting.SmoothModel, images: simulation.SimulatedImages, fit: fitting.LensFit
) -> None:
    """Whether the uncertainties are right, on images without substructure."""
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
    """What the simulation has for a parameter of the fit."""
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
    """Reduced chi-square of the true main lens without its substructure, as the simulator draws it."""
    preset = simulation.preset("common_test")
    render = jax.jit(lambda scene: simulation.expected_counts(scene, preset))
    found = []
    for row, pixels in enumerate(images.pixels):
        scene = jax.tree.map(lambda leaf, row=row: leaf[row], images.scenes)
        scene.masses[:] = 0
        source = np.asarray(render(scene), np.float64) - preset.instrument.sky
        image = pixels / np.float64(images.scale[row])
        variance = fit.background_variance[row] + fit.gain[row] * source / images.scale[row]
        basis = np.stack([source, np.ones_like(source)]).reshape(2, -1) / np.sqrt(variance).ravel()
        target = (image / np.sqrt(variance)).ravel()
        left = target - basis.T @ np.linalg.lstsq(basis.T, target, rcond=None)[0]
        found.append((left**2).sum() / (left.size - len(model.names)))
    return np.array(found)


def real(folder: Path, model: fitting.SmoothModel, counts: bool) -> None:
    """Fits real images; those without substructure must leave white noise."""
    files = [file for name in CLASSES for file in sorted((folder / name).glob("*.npy"))]
    if not files:
        raise UserError(f"{folder} has no .npy files in no/, sphere/ or vort/; name another --real")
    images = np.stack([np.load(file, allow_pickle=False).squeeze() for file in files])
    recovered = [recover_counts(image) for image in images]
    scale = np.array([np.nan if found is None else found[1] for found in recovered])
    fit = fitted(images, scale, model, counts)
    power = np.stack([ring_power(residual) for residual in fit.residual[..., 0]])
    log.info(
        "%d real images: reduced chi-square, converged, theta_E and its deviation,", len(files)
    )
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


def fitted(
    images: np.ndarray, scale: np.ndarray, model: fitting.SmoothModel, counts: bool
) -> fitting.LensFit:
    """The fits, with a bar to show how far they are."""
    noise = None
    if counts:
        noise = fitting.photon_noise(scale.astype(np.float32))
    with progress_bar(len(images), "fit") as bar:
        return fitting.fit_in_batches(
            images[..., None].astype(np.float32), model, noise=noise, report=bar.update
        )


def run() -> int:
    """Runs the command and gives its exit code."""
    return runner.run(main, __doc__, name="fit_quality")


if __name__ == "__main__":
    sys.exit(run())
