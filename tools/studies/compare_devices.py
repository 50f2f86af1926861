"""Compares the results of an accelerator with those of the CPU of the same machine."""

import dataclasses
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from lensjax import fitting, models, simulation
from lensjax.cli import runner
from lensjax.cli.configs import load_config
from lensjax.cli.flags import comma_list, integer, parse_flags, usage
from lensjax.data.images import ImageSet
from lensjax.data.residuals import counts_per_unit
from lensjax.errors import UserError
from lensjax.prediction.trained_model import SHIPPED, load_trained_model
from lensjax.runtime.progress import log
from lensjax.training.start import build_step, initialize_run

ROOT = Path(__file__).parent.parent.parent
MODELS = ("baseline", "pinn", "lens_fit")
STEPS = 3  # training steps


def main(arguments: Sequence[str]) -> None:
    """Prints a table of differences.

    Raises:
      UserError: if a flag is invalid, or the machine has no accelerator.
    """
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    for name in values.parts:
        if name not in PARTS:
            raise UserError(f"--parts {name}: not one of {', '.join(PARTS)}")
    accelerator, processor = jax.local_devices()[0], jax.local_devices(backend="cpu")[0]
    if accelerator.platform == "cpu":
        raise UserError("JAX finds no accelerator on this machine")
    log.info(
        "%s compared with the CPU, jax %s, %d images", accelerator.device_kind, jax.__version__, values.images
    )
    for name in values.parts:
        results, seconds = [], []
        for device in (processor, accelerator):
            started = time.perf_counter()
            with jax.default_device(device):
                results.append(jax.tree.map(np.asarray, PARTS[name](values.images, device)))
            seconds.append(time.perf_counter() - started)
        log.info("%s (%.1f s on the CPU, %.1f s on the accelerator)", name, *seconds)
        for label, difference in compare(*results):
            log.info("  %-50s %.2g", label, difference)


def compare(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the label of each result, and its largest difference or the relative norm of the difference.

    Args:
      expected, found: results by label. A pair (values, scale) is compared in units of the scale; for others,
        the norm of the difference is divided by the norm.
    """
    for label, values in expected.items():
        if isinstance(values, tuple):
            yield label, float(np.max(np.abs(found[label][0] - values[0]) / values[1]))
        else:
            one, other = (flatten(each) for each in (values, found[label]))
            yield label, float(np.linalg.norm(other - one) / np.linalg.norm(one))


def flatten(tree: PyTree) -> np.ndarray:
    """All arrays of a tree in one float64 vector."""
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def test_images(number: int) -> ImageSet:
    """Test images that were simulated on the CPU, so that both devices get the same ones."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        images = simulation.simulate_split("common_test", seed=0, split="test", num_images=number)
    names = tuple(map(str, range(number)))
    return ImageSet(images.pixels, images.scale, images.labels, names)


def fitted_on_processor(number: int) -> tuple[ImageSet, fitting.LensFit]:
    """Test images and their fits, both computed on the CPU."""
    images, processor = test_images(number), jax.local_devices(backend="cpu")[:1]
    with jax.default_device(processor[0]):
        noise = fitting.photon_noise(counts_per_unit(images))
        return images, fitting.fit_in_batches(images.images(), noise=noise, devices=processor)


def simulate(number: int, device: jax.Device) -> dict[str, Any]:
    """Expected counts of scenes drawn on the CPU, relative to the brightest pixel."""
    preset = simulation.preset("common_test")
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        scenes = simulation.draw_scenes(preset, seed=0, split="test", num_images=number)
    render = jax.jit(jax.vmap(lambda scene: simulation.expected_counts(scene, preset)))
    counts = np.asarray(render(jax.device_put(scenes, device)))
    return {"expected counts, of the peak": (counts, counts.max((1, 2), keepdims=True))}


def fit_with(name: str) -> Callable[[int, jax.Device], dict[str, Any]]:
    """Lens fits with a model, in units of their standard errors and of the noise."""

    def fit(number: int, device: jax.Device) -> dict[str, Any]:
        images, model = test_images(number), fitting.smooth_model(name)
        noise = fitting.photon_noise(counts_per_unit(images))
        found = fitting.fit_in_batches(
            images.images(), model, noise=noise, devices=[device], batch_size=min(number, 64)
        )
        result: dict[str, Any] = {f"{name}: converged": found.converged}
        for index, parameter in enumerate(model.nonlinear):
            scale = np.maximum(found.standard_errors[:, index], 1e-30)
            result[f"{name}: {parameter}, standard errors"] = (found.parameters[parameter], scale)
        result[f"{name}: residual, noise"] = (found.residual, 1.0)
        return result

    return fit


def evidence(number: int, device: jax.Device) -> dict[str, Any]:
    """Log evidence of the classes, from the same fits."""
    del device  # the default device
    images, fit = fitted_on_processor(number)
    prior = simulation.preset("common_test").substructure
    found = fitting.class_evidence(images.images().astype(np.float32), fit, prior)
    return {"log evidence relative to 'no'": (np.asarray(found.log_ratios), 1.0)}


def classify(number: int, device: jax.Device) -> dict[str, Any]:
    """Probabilities of the classifier that is part of the package, from the same fits."""
    images, fit = fitted_on_processor(number)
    images = dataclasses.replace(images, residuals=np.asarray(fit.residual[..., 0]))
    trained = load_trained_model(SHIPPED / "common_test.safetensors", devices=[device])
    return {"probabilities": (trained.predict(images).probabilities, 1.0)}


def train(number: int, device: jax.Device) -> dict[str, Any]:
    """Training steps of the three models from the same initial state, without augmentation."""
    result: dict[str, Any] = {}
    for name in MODELS:
        config = load_config(str(ROOT / "configs" / f"{name}.py")).copy_and_resolve_references()
        config.augmentation.max_rotation, config.augmentation.dihedral = 0.0, False
        config.batch_size = 8
        images = test_images(8)
        batch = {
            "pixels": images.pixels,
            "scale": images.scale,
            "labels": images.labels.astype(np.int32),
            "weights": np.ones(8, np.float32),
        }
        if config.data.fit != "none":
            batch["residuals"] = np.random.default_rng(1).normal(size=images.pixels.shape).astype(np.float16)
        model = models.build(config)
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            state, key = jax.tree.map(np.asarray, initialize_run(config, model, 100)[0]), jax.random.key(0)
        start, state = state.params, jax.device_put(state, device)
        step = jax.jit(build_step(config, model, 100))
        losses = []
        for _ in range(STEPS):
            state, metrics = step(state, jax.device_put(batch, device), jax.device_put(key, device))
            losses.append(metrics["loss"])
        result[f"{name}: losses of {STEPS} steps"] = losses
        result[f"{name}: change of the parameters"] = jax.tree.map(
            lambda new, old: np.asarray(new) - np.asarray(old), state.params, start
        )
    return result


PARTS: dict[str, Callable[[int, jax.Device], dict[str, Any]]] = {
    "simulation": simulate,
    "fit": fit_with("common_test"),
    "general": fit_with("general"),
    "varied": fit_with("varied"),
    "evidence": evidence,
    "classifier": classify,
    "training": train,
}
FLAGS = {
    "images": integer("Number of images; 24 if not given.", 24, 8),
    "parts": comma_list("Parts to compare, see below; all if not given.", list(PARTS)),
}
USAGE = usage(
    "Compares the results of an accelerator with those of the CPU of the same machine.",
    ["python tools/studies/compare_devices.py"],
    FLAGS,
    f"Parts: {', '.join(PARTS)}.",
    "Differences are the largest of all images, in the given unit, or relative to the norm if none is given.",
)


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="compare_devices"))
