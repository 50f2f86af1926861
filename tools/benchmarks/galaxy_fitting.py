"""Times the fit of a lens galaxy and its source against optimizers that use lenstronomy's images."""

import contextlib
import importlib
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lensjax import modeling
from lensjax.cli import runner
from lensjax.cli.flags import integer, parse_flags, usage
from lensjax.errors import UserError
from lensjax.modeling.frame import Data, Frame
from lensjax.modeling.variable_projection import Settings, fit_model
from lensjax.runtime.progress import log

FLAGS = {
    "lenses": integer("Number of simulated lenses; 3 if not given.", 3, 1),
    "particles": integer(
        "Particles of lenstronomy's particle swarm; 0 for no swarm. 20 if not given.", 20, 0
    ),
    "iterations": integer("Iterations of the swarm; 50 if not given.", 50, 1),
    "simplex": integer("Iterations of lenstronomy's simplex; 0 for none. 1,000 if not given.", 1000, 0),
}
USAGE = usage(
    "Times the fit of a lens galaxy and its source against optimizers that use lenstronomy's images.",
    ["OMP_NUM_THREADS=1 python tools/benchmarks/galaxy_fitting.py"],
    FLAGS,
    "The lens is an isothermal ellipsoid with shear; both galaxies have a Sersic profile. Amplitudes and the "
    "sky are linear. All fits start 5 % from the true parameters. SciPy's least squares uses lenstronomy's "
    "residuals; swarm and simplex are lenstronomy's own.",
)
SIDE, SCALE, PSF_SIDE = 120, 0.05, 15  # pixels, arcsec per pixel
GROUPS = ("mass.0.", "mass.1.", "lens_light.0.", "source.0.")
PROFILES = ("SIE", "SHEAR", "SERSIC_ELLIPSE", "SERSIC_ELLIPSE")
MODEL = modeling.LensModel(
    mass=(modeling.SIE(), modeling.Shear()),
    lens_light=(modeling.Sersic(),),
    source=(modeling.Sersic(),),
    sky=0,
)
SETTINGS = Settings(steps=100)


class Lens(NamedTuple):
    """A simulated observation.

    Attributes:
      image, noise: pixels [rows, columns].
      psf: point-spread function [odd, odd].
      truth, start: parameters in the order of `MODEL.fitted`.
    """

    image: np.ndarray
    noise: np.ndarray
    psf: np.ndarray
    truth: np.ndarray
    start: np.ndarray


class Outcome(NamedTuple):
    """CPU time of a fit in seconds, chi-square per pixel, and Einstein radius in arcsec."""

    seconds: float
    chi_square: float
    theta_E: float


def main(arguments: Sequence[str]) -> None:
    """Runs the comparison."""
    values = parse_flags(FLAGS, arguments)
    try:
        lenstronomy = importlib.import_module("lenstronomy")
    except ImportError as error:
        raise UserError("this benchmark needs lenstronomy; run `pip install lenstronomy`") from error
    device, version = jax.devices()[0].device_kind, lenstronomy.__version__
    log.info("%s, %d cores, lenstronomy %s, %d px", device, os.cpu_count() or 1, version, SIDE)
    peers: dict[str, Callable[[Lens], Outcome]] = {"least squares": least_squares}
    if values["simplex"]:
        steps = [["SIMPLEX", {"n_iterations": values["simplex"]}]]
        peers["simplex"] = lambda lens: sequence(lens, steps)
    if values["particles"]:
        swarm = {"n_particles": values["particles"], "n_iterations": values["iterations"], "sigma_scale": 1.0}
        peers["swarm"] = lambda lens: sequence(lens, [["PSO", swarm]])
    lenses = [simulate(seed) for seed in range(values["lenses"])]
    log.info("  lensjax, first call with compilation: %.1f s", lensjax_fit(lenses[0]).seconds)
    own = [lensjax_fit(lens) for lens in lenses]
    report("lensjax", own, lenses)
    for name, peer in peers.items():
        found = [peer(lens) for lens in lenses]
        report(f"lenstronomy, {name}", found, lenses)
        ratios = [each.seconds / ours.seconds for each, ours in zip(found, own, strict=True)]
        log.info("    CPU time relative to lensjax: %.0f (median)", np.median(ratios))


def report(name: str, outcomes: Sequence[Outcome], lenses: Sequence[Lens]) -> None:
    """Logs the medians."""
    error = [abs(each.theta_E / lens.truth[0] - 1) for each, lens in zip(outcomes, lenses, strict=True)]
    log.info(
        "  %-28s %7.2f s of CPU time, chi-square per pixel %.3f, error of theta_E %.2f %%",
        *(name, np.median([each.seconds for each in outcomes])),
        *(np.median([each.chi_square for each in outcomes]), 100 * np.median(error)),
    )


def simulate(seed: int) -> Lens:
    """Simulates a lens with lenstronomy.

    The brightest pixel of the galaxy has 100 times its noise; that of the arcs has 10 times the noise of the
    sky.
    """
    rng = np.random.default_rng(seed)
    e1, e2, gamma1, gamma2, x, y = rng.normal(0, (0.1, 0.1, 0.03, 0.03, 0.02, 0.02))
    truth = {
        **{"mass.0.theta_E": rng.uniform(1.0, 1.5), "mass.0.e1": e1, "mass.0.e2": e2},
        **{"mass.0.center_x": x, "mass.0.center_y": y, "mass.1.gamma1": gamma1, "mass.1.gamma2": gamma2},
        **{"lens_light.0.center_x": x, "lens_light.0.center_y": y, "lens_light.0.e1": e1},
        **{"lens_light.0.e2": e2, "lens_light.0.R_sersic": rng.uniform(0.7, 1.2)},
        **{"lens_light.0.n_sersic": rng.uniform(3, 4), "source.0.center_x": x + rng.normal(0, 0.15)},
        **{"source.0.center_y": y + rng.normal(0, 0.15), "source.0.e1": rng.normal(0, 0.1)},
        **{
            "source.0.e2": rng.normal(0, 0.1),
            "source.0.R_sersic": rng.uniform(0.1, 0.2),
            "source.0.n_sersic": 1.0,
        },
    }
    free = np.array([truth[name] for name in MODEL.fitted])
    psf = modeling.gaussian_psf(0.1, SCALE)
    psf = np.pad(psf, (PSF_SIDE - len(psf)) // 2) if len(psf) < PSF_SIDE else psf
    blank = Lens(np.zeros((SIDE, SIDE)), np.ones((SIDE, SIDE)), psf, free, free)
    renderer = image_model(blank)
    parts = []
    for light, source in ((1.0, 0.0), (0.0, 1.0)):
        arguments = keywords(free)
        arguments["kwargs_lens_light"][0]["amp"], arguments["kwargs_source"][0]["amp"] = light, source
        parts.append(renderer.image(**arguments))
    light, arcs = parts
    image = light / light.max() * 10_000 + arcs / arcs.max() * 100
    noise = np.sqrt(100 + image)
    observed = image + noise * rng.normal(size=image.shape)
    return Lens(observed, noise, psf, free, free * (1 + 0.05 * rng.choice([-1, 1], len(free))))


def lensjax_fit(lens: Lens) -> Outcome:
    """Fits with lensjax."""
    started = time.process_time()
    frame = Frame(SIDE, SIDE, SCALE, 0.0, 0.0, len(lens.psf))
    data = Data(*(np.asarray(each, np.float32) for each in (lens.image, 1 / lens.noise, lens.psf)))
    fit = fit_model(MODEL, frame, data, lens.start, SETTINGS)
    assert fit is not None
    seconds = time.process_time() - started
    # All fits are assessed with lenstronomy's image, which has no light from outside of the frame.
    image, *_ = image_model(lens).image_linear_solve(**keywords(fit.free))
    return Outcome(seconds, _chi_square(lens, image), fit.free[0])


def keywords(free: np.ndarray) -> dict[str, list[dict[str, float]]]:
    """The parameters as lenstronomy's arguments, with the sky as a further light of the lens."""
    profiles: list[dict[str, float]] = []
    for group in GROUPS:
        named = zip(MODEL.fitted, free, strict=True)
        profiles.append({name.removeprefix(group): each for name, each in named if name.startswith(group)})
    mass, shear, light, source = profiles
    return {
        "kwargs_lens": [mass, {**shear, "ra_0": 0.0, "dec_0": 0.0}],
        "kwargs_source": [{**source, "amp": 1.0}],
        "kwargs_lens_light": [{**light, "amp": 1.0}, {"amp": 0.0}],
    }


def image_model(lens: Lens) -> Any:
    """Image by lenstronomy with linear amplitudes."""
    mass, shear, light, source = PROFILES
    return _module("ImSim.image_linear_solve").ImageLinearFit(
        _module("Data.imaging_data").ImageData(**data_keywords(lens)),
        _module("Data.psf").PSF(psf_type="PIXEL", kernel_point_source=lens.psf),
        lens_model_class=_module("LensModel.lens_model").LensModel([mass, shear]),
        source_model_class=_module("LightModel.light_model").LightModel([source]),
        lens_light_model_class=_module("LightModel.light_model").LightModel([light, "UNIFORM"]),
        kwargs_numerics={"supersampling_factor": 1},
    )


def data_keywords(lens: Lens) -> dict[str, Any]:
    """The pixels as lenstronomy's arguments."""
    grid = _module("Util.simulation_util").data_configure_simple(SIDE, SCALE, 1.0, 1.0)
    return {**grid, "image_data": lens.image, "noise_map": lens.noise}


def least_squares(lens: Lens) -> Outcome:
    """Fits with SciPy's least squares and lenstronomy's residuals, with the amplitudes eliminated."""
    started = time.process_time()
    renderer = image_model(lens)

    def residual(free: np.ndarray) -> np.ndarray:
        image, *_ = renderer.image_linear_solve(**keywords(free))
        return ((lens.image - image) / lens.noise).ravel()

    result = importlib.import_module("scipy.optimize").least_squares(
        residual, lens.start, x_scale="jac", bounds=MODEL.bounds
    )
    return Outcome(time.process_time() - started, 2 * result.cost / lens.image.size, result.x[0])


def sequence(lens: Lens, steps: list[list[Any]]) -> Outcome:
    """Fits with lenstronomy's own sequence of optimizers."""
    started = time.process_time()
    mass, shear, light, source = PROFILES
    sections = {"lens_model": "kwargs_lens", "source_model": "kwargs_source"}
    sections["lens_light_model"] = "kwargs_lens_light"
    low, high = (keywords(bound) for bound in MODEL.bounds)
    start = keywords(lens.start)
    parameters = {}
    for section, name in sections.items():
        fixed: list[dict[str, float]] = [{} for _ in start[name]]
        if section == "lens_model":
            fixed[1] = {"ra_0": 0.0, "dec_0": 0.0}
        spread = [{key: max(0.05 * abs(each), 0.005) for key, each in part.items()} for part in start[name]]
        parameters[section] = [start[name], spread, fixed, low[name], high[name]]
    fitting = _module("Workflow.fitting_sequence").FittingSequence(
        {
            "multi_band_list": [
                [
                    data_keywords(lens),
                    {"psf_type": "PIXEL", "kernel_point_source": lens.psf},
                    {"supersampling_factor": 1},
                ]
            ],
            "multi_band_type": "multi-linear",
        },
        {
            "lens_model_list": [mass, shear],
            "source_light_model_list": [source],
            "lens_light_model_list": [light, "UNIFORM"],
        },
        {},
        {},
        parameters,
        verbose=False,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        fitting.fit_sequence(steps)
    found = fitting.best_fit()
    arguments = {name: found[name] for name in sections.values()}
    image, *_ = image_model(lens).image_linear_solve(**arguments)
    seconds = time.process_time() - started
    return Outcome(seconds, _chi_square(lens, image), found["kwargs_lens"][0]["theta_E"])


def _chi_square(lens: Lens, image: np.ndarray) -> float:
    """Chi-square per pixel."""
    return float((((lens.image - image) / lens.noise) ** 2).mean())


def _module(name: str) -> Any:
    return importlib.import_module(f"lenstronomy.{name}")


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="benchmark_galaxy_fitting"))
