"""Computes the smallest possible error of the axion mass of Model I: the Cramer-Rao bound."""

import dataclasses
import functools
import sys
import types
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lensjax import simulation
from lensjax.cli import runner
from lensjax.cli.flags import integer, parse_flags, random_seed, usage
from lensjax.data.images import CLASSES
from lensjax.physics.substructure import AxionVortexPrior
from lensjax.runtime.progress import log
from lensjax.simulation import ExposureNoise, Scene

PRESET = "model_1"  # the other presets with axions have no noise

FLAGS = {
    "images": integer("Number of vortices; 120 if not given.", 120, 10),
    "seed": random_seed("of the scenes"),
}
USAGE = usage(
    "Computes the smallest possible error of the axion mass of Model I: the Cramer-Rao bound.",
    ["python tools/studies/axion_bound.py"],
    FLAGS,
    "No unbiased estimate of log10 of the mass has a smaller standard deviation. The direction of the "
    "vortex, the position and brightness of the source and the sky are unknown; everything else is known. "
    "The bound is local: if it is not small compared with the prior, which is 2 dex wide, it only shows "
    "that the image contains little information. Prints percentiles of the bound by decile of the mass.",
)


def main(arguments: Sequence[str]) -> None:
    """Prints the table."""
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    number = len(CLASSES) * values.images
    scenes = simulation.draw_scenes(PRESET, seed=values.seed, split="test", num_images=number)
    vortices = jax.tree.map(lambda leaf: leaf[CLASSES.index("vort") :: len(CLASSES)], scenes)
    found = bounds(np.asarray(information(vortices)))
    mass = np.log10(vortices.axion_mass)
    log.info("| log10 mass | bound: median | 10 % | 90 % |\n|---|---|---|---|")
    for rows in np.array_split(np.argsort(mass), 10):
        cells = (f"{value:.3f}" for value in np.percentile(found[rows], [50, 10, 90]))
        log.info("| %.2f to %.2f | %s |", mass[rows].min(), mass[rows].max(), " | ".join(cells))


def expected_image(scene: Scene, parameters: jax.Array) -> jax.Array:
    """Expected counts of a vortex `[height, width]`, given the parameters of `true_parameters`."""
    preset = simulation.preset(PRESET)
    prior = preset.substructure.vortex
    assert isinstance(prior, AxionVortexPrior)
    log10_mass, angle, source_x, source_y, amplitude, sky = parameters
    along = prior.length * 10 ** (-22 - log10_mass) * jnp.linspace(-0.5, 0.5, prior.number)
    masses = jnp.stack([scene.masses[:, 0], along * jnp.cos(angle), along * jnp.sin(angle)], axis=1)
    changed = dataclasses.replace(scene, masses=masses, source_x=source_x, source_y=source_y)
    return scene.exposure * (amplitude * simulation.expected_counts(changed, preset) + sky)


def true_parameters(scene: Scene) -> jax.Array:
    """Log10 of the axion mass, direction of the vortex, source position, relative brightness and sky."""
    x, y = scene.masses[-1, 1:] - scene.masses[0, 1:]
    angle = jnp.arctan2(y, x)
    return jnp.stack([jnp.log10(scene.axion_mass), angle, scene.source_x, scene.source_y, 1.0, 0.0])


def noise_variance(scene: Scene, expected: jax.Array) -> jax.Array:
    """Variance of the counts of Model I `[height, width]`, given the expected counts."""
    noise = simulation.preset(PRESET).noise
    assert isinstance(noise, ExposureNoise)
    # Counts are drawn with a rate that already has photon noise.
    return 2 * jnp.maximum(expected, 0) + (scene.exposure * noise.background_rms) ** 2


@jax.jit
def information(scenes: Scene) -> jax.Array:
    """Fisher information `[n, 6, 6]` of the parameters, for noise of known variance."""

    def of_scene(scene: Scene) -> jax.Array:
        parameters = true_parameters(scene)
        variance = noise_variance(scene, expected_image(scene, parameters))
        jacobian = jax.jacfwd(functools.partial(expected_image, scene))(parameters)
        return jnp.einsum("hwi,hwj->ij", jacobian / variance[..., None], jacobian)

    return jax.lax.map(of_scene, scenes)


def bounds(information: np.ndarray) -> np.ndarray:
    """Smallest standard deviation of the first parameter; the others are unknown."""
    scale = np.sqrt(np.diagonal(information, axis1=1, axis2=2).astype(np.float64))
    correlation = information / scale[:, :, None] / scale[:, None, :]  # well-conditioned
    return np.sqrt(np.linalg.inv(correlation)[:, 0, 0]) / scale[:, 0]


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="axion_bound"))
