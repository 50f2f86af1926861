"""Times the solver of the lens fit against optimistix's Levenberg-Marquardt on the same problems."""

import functools
import importlib
import os
import sys
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lensjax import fitting, simulation
from lensjax.cli import runner
from lensjax.cli.flags import Flag, integer, parse_flags, real, usage
from lensjax.errors import UserError
from lensjax.fitting.solve import NormalEquations, minimize, normal_equations
from lensjax.runtime.progress import log

MODEL = fitting.COMMON_TEST
RESOLUTION = fitting.Resolution.native(MODEL, (150, 150))


FLAGS = {
    "images": integer("Number of common_test images without substructure; 8 if not given.", 8, 1),
    "away": real(
        "Distance of the starting point from the optimum in each parameter, standard deviations; 10 if not "
        "given.",
        10.0,
        0.0,
    ),
    "rounds": integer("Number of repetitions; the shortest time is reported. 3 if not given.", 3, 1),
    "path": Flag("FOLDER", "Folder with optimistix, if it is not installed."),
}
USAGE = usage(
    "Times the solver of the lens fit against optimistix's Levenberg-Marquardt on the same problems.",
    ["python tools/benchmarks/solvers.py"],
    FLAGS,
    "Both solvers use lensjax.fitting's renderer at the resolution of the image, with the same weights, in "
    "one compiled batch. optimistix runs once with the amplitude and the sky as parameters and once with "
    "both eliminated, with a forward-mode Jacobian and tolerances of 1e-4.",
)


def main(arguments: Sequence[str]) -> None:
    """Runs the comparison.

    Raises:
      UserError: if a flag is invalid, or optimistix is not installed.
    """
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    if values.path:
        sys.path.append(values.path)
    try:
        optimistix = importlib.import_module("optimistix")
    except ImportError as error:
        raise UserError(f"{error}; install optimistix with pip, or give its folder with --path") from error
    log.info("%s, %d cores", jax.devices()[0].device_kind, os.cpu_count() or 1)
    images, weights, best, start = problems(values.images, values.away)
    solvers: dict[str, Callable[..., Any]] = {
        "lensjax": solve_with_lensjax,
        "optimistix, amplitude and sky eliminated": functools.partial(
            solve_with_optimistix, optimistix, eliminated=True
        ),
        "optimistix, all parameters": functools.partial(solve_with_optimistix, optimistix, eliminated=False),
    }
    times: dict[str, float] = {}
    for name, solve in solvers.items():
        times[name], found, steps = time_solver(
            jax.jit(jax.vmap(solve)), (images, weights, start), values.rounds
        )
        difference = np.abs((found[:, : best[0].shape[1]] - best[0]) / best[1]).max()
        log.info(
            "  %-42s %8.1f ms of CPU time per image, %5.1f x%s, error %.3f sigma",
            *(name, times[name], times[name] / times["lensjax"]),
            *("" if np.isnan(steps) else f", {steps:.1f} steps", difference),
        )


def problems(number: int, away: float) -> tuple[Array, Array, tuple[np.ndarray, np.ndarray], Array]:
    """Images, weights of their pixels, optimum with its standard deviations, and starting points."""
    simulated = simulation.simulate_split("common_test", seed=0, split="test", num_images=3 * number)
    rows = np.flatnonzero(simulated.labels == 0)
    images = (simulated.pixels / simulated.scale[:, None, None])[rows].astype(np.float32)
    noise = fitting.photon_noise(simulated.scale[rows])
    fit = fitting.fit_in_batches(images[..., None], noise=noise)
    names = MODEL.nonlinear
    best = np.stack([fit.parameters[name] for name in names], axis=1)
    deviation = np.asarray(fit.standard_errors)[:, : len(names)]
    signs = np.random.default_rng(0).choice([-1, 1], best.shape)
    start = (best + away * signs * deviation).astype(np.float32)
    flux = fit.model_image[..., 0] - fit.parameters["sky"][:, None, None]
    weights = 1 / (fit.background_variance[:, None, None] + fit.gain[:, None, None] * flux)
    return jnp.asarray(images), jnp.asarray(weights), (best, deviation), jnp.asarray(start)


def solve_with_lensjax(image: Array, weight: Array, start: Array) -> tuple[Array, Array]:
    """Optimum found by lensjax; its number of steps is reported as NaN."""

    def evaluate(free: Array) -> NormalEquations:
        columns, jacobian = fitting.render_with_jacobian(MODEL, RESOLUTION, free)
        return normal_equations(MODEL, free, columns, jacobian, image, weight)

    found = minimize(MODEL, evaluate, start, max_evaluations=20, tolerance=1e-3, damping=1e-5)
    return found[0], jnp.full((), jnp.nan)


def solve_with_optimistix(
    optimistix: Any, image: Array, weight: Array, start: Array, *, eliminated: bool
) -> tuple[Array, Array]:
    """Optimum found by optimistix, and the number of steps."""

    def residual(free: Array, _: None) -> Array:
        columns = fitting.render(MODEL, RESOLUTION, free[: len(MODEL.nonlinear)])
        linear = fitting.solve_linear(columns, image, weight) if eliminated else free[-2:]
        return ((image - fitting.total_light(columns, linear) - linear[-1]) * jnp.sqrt(weight)).ravel()

    if not eliminated:
        linear = fitting.solve_linear(fitting.render(MODEL, RESOLUTION, start), image, weight)
        start = jnp.concatenate([start, linear])
    solver = optimistix.LevenbergMarquardt(rtol=1e-4, atol=1e-4)
    solution = optimistix.least_squares(
        residual, solver, start, options={"jac": "fwd"}, max_steps=50, throw=False
    )
    return solution.value, solution.stats["num_steps"]


def time_solver(
    solve: Callable[..., Any], given: tuple[Array, ...], rounds: int
) -> tuple[float, np.ndarray, float]:
    """Shortest CPU time per image, milliseconds, the optima, and the mean number of steps."""
    found, steps = jax.block_until_ready(solve(*given))
    times = []
    for _ in range(rounds):
        started = time.process_time()
        jax.block_until_ready(solve(*given))
        times.append(time.process_time() - started)
    return 1e3 * min(times) / len(given[0]), np.asarray(found), float(jnp.mean(steps))


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="benchmark_solvers"))
