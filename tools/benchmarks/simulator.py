"""Times the simulator and other codes in alternating rounds, and prints the ratios."""

import concurrent.futures
import dataclasses
import functools
import importlib
import multiprocessing
import os
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lensjax import physics, simulation
from lensjax.cli import runner
from lensjax.cli.flags import Flag, integer, parse_flags, switch, usage
from lensjax.runtime.progress import log

FLAGS = {
    "batch": integer("Scenes per batch; 32 if not given.", 32, 2),
    "rounds": integer("Number of rounds; the shortest time of each code is reported. 5 if not given.", 5, 1),
    "path": Flag("FOLDER", "Folder with codes that are not installed."),
    "nopeers": switch("Time only lensjax."),
}
USAGE = usage(
    "Times the simulator and other codes in alternating rounds, and prints the ratios.",
    ["python tools/benchmarks/simulator.py"],
    FLAGS,
    "Noise-free model_1 scenes with 0, 25 and 100 point masses, compared with lenstronomy on as many "
    "processes as there are cores (at most two), JAXtronomy and caustics, if installed; the gradient with "
    "respect to every scene parameter; noisy common_test images; photon counts, compared with "
    "jax.random.poisson and NumPy.",
)
MODEL = simulation.preset("model_1")
COMMON = simulation.preset("common_test")
Codes = dict[str, Callable[[], Any]]


def main(arguments: Sequence[str]) -> None:
    """Runs all comparisons."""
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    if values.path:
        sys.path.append(values.path)
    device = jax.devices()[0]
    log.info("%s, %d cores, batch %d", device.device_kind, os.cpu_count() or 1, values.batch)
    for number in (0, 25, 100):
        log.info("\nmodel_1 without noise, %d point masses", number)
        time_rendering(values.batch, values.rounds, number, with_peers=not values.nopeers)
    log.info("\ncommon_test")
    time_noisy_images(values.batch, values.rounds)


def time_rendering(batch: int, rounds: int, number: int, *, with_peers: bool) -> None:
    """Times noise-free scenes and their gradient with lensjax, and with other codes if requested."""
    scenes = scenes_with(number, batch)
    ours = jax.jit(jax.vmap(lambda scene: simulation.expected_counts(scene, MODEL)))
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(150, 150)), jnp.float32)

    def weighted(scene: simulation.Scene) -> jax.Array:
        return jnp.sum(weights * simulation.expected_counts(scene, MODEL))

    gradient = jax.jit(jax.vmap(jax.grad(weighted, allow_int=True)))
    rows = jax.tree.map(np.asarray, scenes)
    codes: Codes = {
        "lensjax": lambda: jax.block_until_ready(ours(scenes)),
        "lensjax, gradient": lambda: jax.block_until_ready(gradient(scenes)),
    }
    if not with_peers:
        log_table(best_times(codes, rounds), batch, "lensjax")
        return
    processes = min(2, os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        jobs = [
            jax.tree.map(lambda leaf, part=part: leaf[part::processes], rows) for part in range(processes)
        ]
        peers: dict[str, Callable[..., Any]] = {
            f"lenstronomy, {processes} processes": lambda: list(pool.map(lenstronomy, jobs)),
            "JAXtronomy": functools.partial(jaxtronomy, number),
            "caustics": functools.partial(caustics, number),
        }
        for name, peer in peers.items():
            try:
                function = peer if name.startswith("lenstronomy") else peer(scenes)
                image = np.concatenate(function()) if function is peer else np.asarray(function())
            except ImportError as error:
                log.info("  %-30s not installed (%s)", name, error)
                continue
            except Exception as error:  # continue with the other codes
                log.info("  %-30s failed: %s", name, str(error).splitlines()[0][:80])
                continue
            order = [i for part in range(processes) for i in range(part, batch, processes)]
            expected = np.asarray(ours(scenes))[order if function is peer else slice(None)]
            worst = np.abs(image[:, 8:-8, 8:-8] - expected[:, 8:-8, 8:-8]).max() / expected.max()
            log.info("  %-30s differs by %.1e of the peak", name, worst)
            codes[name] = function
        log_table(best_times(codes, rounds), batch, "lensjax")


def time_noisy_images(batch: int, rounds: int) -> None:
    """Times images with and without photon noise, and the noise alone."""
    labels = jnp.arange(batch) % 3
    keys = jax.random.split(jax.random.key(0), batch)
    simulate = jax.jit(jax.vmap(lambda key, label: simulation.simulate(key, COMMON, label)))
    scenes = simulate(keys, labels)[1]
    render = jax.jit(jax.vmap(lambda scene: simulation.expected_counts(scene, COMMON)))
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(150, 150)), jnp.float32)

    def weighted(scene: simulation.Scene) -> jax.Array:
        return jnp.sum(weights * simulation.expected_counts(scene, COMMON))

    gradient = jax.jit(jax.vmap(jax.grad(weighted, allow_int=True)))
    expected = render(scenes)
    host = np.asarray(expected)
    generator = np.random.default_rng(0)
    ours = jax.jit(jax.vmap(simulation.poisson))
    theirs = jax.jit(jax.vmap(jax.random.poisson))
    log_table(
        best_times(
            {
                "images with noise": lambda: jax.block_until_ready(simulate(keys, labels)),
                "images without noise": lambda: jax.block_until_ready(render(scenes)),
                "gradient without noise": lambda: jax.block_until_ready(gradient(scenes)),
                "photon counts": lambda: jax.block_until_ready(ours(keys, expected)),
                "jax.random.poisson": lambda: jax.block_until_ready(theirs(keys, expected)),
                "NumPy, one core": lambda: generator.poisson(host),
            },
            rounds,
        ),
        batch,
        "images with noise",
    )


def scenes_with(number: int, batch: int) -> simulation.Scene:
    """Scenes of model_1 with a given number of point masses."""
    prior = MODEL.substructure
    substructure = physics.SubstructurePrior(
        dataclasses.replace(prior.subhalos, number=max(number, 1)),
        dataclasses.replace(prior.vortex, number=1),
    )
    preset = dataclasses.replace(MODEL, substructure=substructure)
    keys = jax.random.split(jax.random.key(number), batch)
    scenes = jax.vmap(lambda key: simulation.draw_scene(key, preset, "sphere"))(keys)
    return dataclasses.replace(scenes, masses=scenes.masses[:, :number])


def best_times(codes: Codes, rounds: int) -> dict[str, float]:
    """Shortest time of each code, seconds, over alternating rounds after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in codes}
    for turn in range(rounds + 1):
        for name, run_it in codes.items():
            started = time.perf_counter()
            run_it()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: min(taken) for name, taken in times.items()}


def log_table(times: dict[str, float], batch: int, base: str) -> None:
    """Logs the time and rate of each code, and its time relative to the base."""
    for name, seconds in times.items():
        rate, ratio = batch / seconds, seconds / times[base]
        log.info("  %-30s %8.3f ms per image %9.0f images/s %7.2f x", name, 1e3 / rate, rate, ratio)


def lenstronomy(scenes: simulation.Scene) -> np.ndarray:
    """Renders scenes one after another with lenstronomy, in this process."""
    model, parameters, source = _lenstronomy_parts("lenstronomy", len(scenes.masses[0]))
    return np.array(
        [
            model.image(parameters(scenes, row), source(scenes, row), unconvolved=False)
            for row in range(len(scenes.theta_E))
        ]
    )


def jaxtronomy(number: int, scenes: simulation.Scene) -> Callable[[], Any]:
    """Function that renders the scenes in one compiled batch with JAXtronomy."""
    model, parameters, source = _lenstronomy_parts("jaxtronomy", number)

    def render(scene: simulation.Scene) -> jax.Array:
        one = jax.tree.map(lambda leaf: leaf[None], scene)
        return model.image(parameters(one, 0), source(one, 0))

    compiled = jax.jit(jax.vmap(render))
    return lambda: jax.block_until_ready(compiled(scenes))


@functools.cache
def _lenstronomy_parts(library: str, number: int) -> Any:
    """Image model of lenstronomy or JAXtronomy, and functions that return its parameters for a scene."""

    def module(name: str) -> Any:
        return importlib.import_module(f"{library}.{name}")

    instrument, prior = MODEL.instrument, MODEL.source
    size, scale = instrument.image_size, instrument.pixel_scale
    # JAXtronomy uses lenstronomy's pixel grid and point-spread function.
    simulation_util = importlib.import_module("lenstronomy.Util.simulation_util")
    grid = simulation_util.data_configure_simple(size, scale, exposure_time=1.0, background_rms=1.0)
    fwhm = instrument.psf_sigma * 2 * np.sqrt(2 * np.log(2))
    psf = importlib.import_module("lenstronomy.Data.psf").PSF(
        psf_type="GAUSSIAN", fwhm=fwhm, pixel_size=scale, truncation=3
    )
    names = ["SIE", "SHEAR"] + ["POINT_MASS"] * number
    image_model = module("ImSim.image_model").ImageModel(
        module("Data.imaging_data").ImageData(**grid),
        psf,
        lens_model_class=module("LensModel.lens_model").LensModel(names),
        source_model_class=module("LightModel.light_model").LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": 1, "supersampling_convolution": False},
    )

    def lens(scenes: Any, row: int) -> list[dict[str, Any]]:
        center = {"center_x": 0.0, "center_y": 0.0}
        ellipse = {"e1": scenes.lens_e1[row], "e2": scenes.lens_e2[row]}
        return [
            {"theta_E": scenes.theta_E[row], **ellipse, **center},
            {"gamma1": scenes.gamma1[row], "gamma2": scenes.gamma2[row]},
            *({"theta_E": mass[0], "center_x": mass[1], "center_y": mass[2]} for mass in scenes.masses[row]),
        ]

    def source(scenes: Any, row: int) -> list[dict[str, Any]]:
        shape = {"amp": prior.amp / scale**2, "R_sersic": prior.R_sersic}
        ellipse = {"e1": scenes.source_e1[row], "e2": scenes.source_e2[row]}
        center = {"center_x": scenes.source_x[row], "center_y": scenes.source_y[row]}
        return [{**shape, "n_sersic": prior.n_sersic, **ellipse, **center}]

    return image_model, lens, source


def caustics(number: int, scenes: simulation.Scene) -> Callable[[], Any]:
    """Function that renders the scenes in one batch with caustics, on PyTorch."""
    warnings.filterwarnings("ignore", module="caustics")
    library = importlib.import_module("caustics")
    torch = importlib.import_module("torch")
    instrument, prior = MODEL.instrument, MODEL.source
    cosmology = library.FlatLambdaCDM(name="cosmology")
    parts = [
        library.SIE(cosmology=cosmology, name="sie", z_l=0.5, z_s=1.0, x0=0.0, y0=0.0),
        library.ExternalShear(cosmology=cosmology, name="shear", z_l=0.5, z_s=1.0, x0=0.0, y0=0.0, s=0.0),
    ]
    parts += [
        library.Point(cosmology=cosmology, name=f"point{i}", z_l=0.5, z_s=1.0, s=0.0) for i in range(number)
    ]
    lens = library.SinglePlane(cosmology=cosmology, name="lens", lenses=parts, z_l=0.5, z_s=1.0)
    light = library.Sersic(name="source", n=prior.n_sersic, Ie=prior.amp, use_lenstronomy_k=True)
    offset = (np.arange(instrument.psf_size) - instrument.psf_size // 2) * instrument.pixel_scale
    axis = np.exp(-0.5 * (offset / instrument.psf_sigma) ** 2)
    kernel = torch.tensor(np.outer(axis, axis) / axis.sum() ** 2, dtype=torch.float32)
    simulator = library.LensSource(
        lens,
        light,
        psf=kernel,
        pixelscale=instrument.pixel_scale,
        pixels_x=instrument.image_size,
        upsample_factor=1,
    )
    rows = _caustics_parameters(simulator, scenes, number)
    values = torch.tensor(rows, dtype=torch.float32)
    batched = torch.vmap(simulator)

    def render() -> Any:
        with torch.no_grad():
            return batched(values)

    return render


def _caustics_parameters(simulator: Any, scenes: Any, number: int) -> np.ndarray:
    """Free parameters of each scene, in the order of caustics."""
    lens_size = np.hypot(scenes.lens_e1, scenes.lens_e2)
    source_size = np.hypot(scenes.source_e1, scenes.source_e2)
    source_q = (1 - source_size) / (1 + source_size)
    known = {
        ("sie", "q"): (1 - lens_size) / (1 + lens_size),
        ("sie", "phi"): 0.5 * np.arctan2(scenes.lens_e2, scenes.lens_e1),
        ("sie", "Rein"): scenes.theta_E,
        ("shear", "gamma_1"): scenes.gamma1,
        ("shear", "gamma_2"): scenes.gamma2,
        ("source", "x0"): scenes.source_x,
        ("source", "y0"): scenes.source_y,
        ("source", "q"): source_q,
        # The major axis in caustics; the geometric mean of both axes in lensjax.
        ("source", "Re"): MODEL.source.R_sersic / np.sqrt(source_q),
        ("source", "phi"): 0.5 * np.arctan2(scenes.source_e2, scenes.source_e1),
    }
    for i in range(number):
        for part, name in enumerate(("Rein", "x0", "y0")):
            known[f"point{i}", name] = scenes.masses[:, i, part]
    asked = [(next(iter(one.parents)).name, one.name) for one in simulator.dynamic_params]
    return np.stack([np.asarray(known[name]) for name in asked], axis=1)


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="benchmark_simulator"))
