"""Times the lens fit against SciPy's least squares with lenstronomy's rendering of the same model."""

import importlib
import os
import sys
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lensjax import fitting, simulation
from lensjax.cli import runner
from lensjax.cli.flags import choice, integer, parse_flags, usage
from lensjax.runtime.progress import log

MODELS = ("common_test", "general", "varied")
FLAGS = {
    "images": integer("Number of simulated images to fit; 240 if not given.", 240, 1),
    "model": choice(
        "NAME",
        "Lens model: common_test (default), general, or varied, which fits images of the preset varied.",
        MODELS,
        "common_test",
    ),
    "peer": integer("Number of images that SciPy fits with common_test; 0 for none. 4 if not given.", 4, 0),
    "batch": integer("Images per batch; depends on the device if not given.", None, 1),
    "rounds": integer("Number of repetitions; the shortest time is reported. 3 if not given.", 3, 1),
}
USAGE = usage(
    "Times the lens fit against SciPy's least squares with lenstronomy's rendering of the same model.",
    ["python tools/benchmarks/fitting.py"],
    FLAGS,
    "SciPy is given what the lens fit must find itself: the noise of each pixel, and a start within 5 % of "
    "the true lens. It uses its default stopping criteria.",
)
PRESET = simulation.preset("common_test")
NAMES = ("theta_E", "gamma1", "gamma2", "source_x", "source_y", "source_e1", "source_e2")


def main(arguments: Sequence[str]) -> None:
    """Runs the comparison."""
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    device = jax.devices()[0]
    preset = "varied" if values.model == "varied" else "common_test"
    log.info("%s, %d cores, %s images of 150 px", device.device_kind, os.cpu_count() or 1, preset)
    number = max(values.images, values.peer)
    images = simulation.simulate_split(preset, seed=0, split="test", num_images=number)
    scaled = (images.pixels / images.scale[:, None, None])[..., None].astype(np.float32)
    noise, model = fitting.photon_noise(images.scale), fitting.smooth_model(values.model)

    def fit_all() -> fitting.LensFit:
        return fitting.fit_in_batches(scaled, model, noise=noise, batch_size=values.batch)

    started = time.perf_counter()
    fit_all()
    first = time.perf_counter() - started
    seconds, processor, fit = best_time(fit_all, values.rounds)
    log.info("  first call, including compilation: %.1f s", first)
    report("lensjax", number, seconds, processor)
    if not values.peer or values.model != "common_test":
        return
    try:
        fit_one = lenstronomy_fit(images)
    except ImportError as error:
        log.info("  SciPy and lenstronomy: not installed (%s)", error)
        return
    peer_seconds, peer_processor, found = best_time(lambda: [fit_one(i) for i in range(values.peer)], 1)
    report("SciPy and lenstronomy", values.peer, peer_seconds, peer_processor)
    log.info("  ratio of the rates: %.0f", (peer_seconds / values.peer) / (seconds / number))
    log.info("  differences from SciPy: reduced chi-square, and theta_E in standard deviations")
    for row, (chi_square, theta_E) in enumerate(found):
        deviation = (fit.parameters["mass.0.theta_E"][row] - theta_E) / fit.standard_errors[row, 0]
        excess = fit.reduced_chi_square[row] - chi_square
        log.info("    image %d: %+.5f %+.3f", row, excess, deviation)


def best_time(function: Callable[[], Any], rounds: int) -> tuple[float, float, Any]:
    """Shortest wall and CPU time over several rounds, seconds, and the last result."""
    times = []
    for _ in range(rounds):
        wall, processor = time.perf_counter(), time.process_time()
        result = function()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return min(wall for wall, _ in times), min(processor for _, processor in times), result


def report(name: str, number: int, seconds: float, processor: float) -> None:
    """Logs a rate."""
    log.info(
        "  %-24s %8.1f images/s, %8.1f ms of CPU time per image",
        *(name, number / seconds, 1e3 * processor / number),
    )


def lenstronomy_fit(images: simulation.SimulatedImages) -> Callable[[int], tuple[float, float]]:
    """Function that fits one image with SciPy and lenstronomy and returns reduced chi-square and theta_E."""

    def module(name: str) -> Any:
        return importlib.import_module(name)

    instrument, source = PRESET.instrument, PRESET.source
    margin = instrument.psf_size // 2
    size, scale = instrument.image_size + 2 * margin, instrument.pixel_scale
    grid = module("lenstronomy.Util.simulation_util").data_configure_simple(size, scale, 1.0, 1.0)
    offset = np.arange(-margin, margin + 1)
    axis = np.exp(-0.5 * (offset * scale / instrument.psf_sigma) ** 2)
    kernel = np.outer(axis, axis) / axis.sum() ** 2
    renderer = module("lenstronomy.ImSim.image_model").ImageModel(
        module("lenstronomy.Data.imaging_data").ImageData(**grid),
        module("lenstronomy.Data.psf").PSF(psf_type="PIXEL", kernel_point_source=kernel),
        lens_model_class=module("lenstronomy.LensModel.lens_model").LensModel(["SIS", "SHEAR"]),
        source_model_class=module("lenstronomy.LightModel.light_model").LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": instrument.subpixels},
    )

    def model(values: np.ndarray) -> np.ndarray:
        theta_E, gamma1, gamma2, x, y, e1, e2, amp, sky = values
        lens = [{"theta_E": theta_E, "center_x": 0.0, "center_y": 0.0}, {"gamma1": gamma1, "gamma2": gamma2}]
        shape = {"amp": amp / scale**2, "R_sersic": source.R_sersic, "n_sersic": source.n_sersic}
        light = [{**shape, "e1": e1, "e2": e2, "center_x": x, "center_y": y}]
        return renderer.image(lens, light)[margin:-margin, margin:-margin] + sky

    def fit(row: int) -> tuple[float, float]:
        rng = np.random.default_rng(row)
        true = np.array([getattr(images.scenes, name)[row] for name in NAMES], np.float64)
        first = true + 0.05 * np.abs(true) * rng.uniform(-1, 1, len(true))
        counts = images.pixels[row].astype(np.float64)
        # The noise of the true model. The minimum was subtracted from the counts, and thus from the sky.
        smooth = model(np.array([*true, source.amp, instrument.sky]))
        deviation = np.sqrt(smooth)

        def residual(values: np.ndarray) -> np.ndarray:
            return ((counts - model(values)) / deviation).ravel()

        result = module("scipy.optimize").least_squares(
            residual, [*first, source.amp, instrument.sky], x_scale="jac"
        )
        return 2 * result.cost / (counts.size - len(result.x)), result.x[0]

    return fit


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="benchmark_fitting"))
