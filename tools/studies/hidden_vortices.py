"""Computes how significant the vortices of Model I are if the lens and the source are not known."""

import dataclasses
import functools
import sys
import types
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from axion_bound import noise_variance
from regression import line_length

from lensjax import simulation
from lensjax.cli import runner
from lensjax.cli.flags import integer, parse_flags, random_seed, usage
from lensjax.data.images import CLASSES
from lensjax.runtime.progress import log
from lensjax.simulation import Scene

MODEL_1 = simulation.preset("model_1")
# With a variation, the renderer takes the profile of the source, the center and the sky from the scene.
FREE = dataclasses.replace(MODEL_1, variation=simulation.preset("varied").variation)
KNOWN_LENS = ("source_x", "source_y", "source_amp", "sky")
UNKNOWN_LENS = (
    *("theta_E", "lens_e1", "lens_e2", "center_x", "center_y", "gamma1", "gamma2"),
    *("source_e1", "source_e2", "R_sersic", "n_sersic", *KNOWN_LENS),
)
STEPS = 6  # Gauss-Newton steps; the residual has converged after four
SIGNIFICANT = 5.0  # standard deviations

FLAGS = {
    "images": integer("Number of vortices; 300 if not given.", 300, 10),
    "seed": random_seed("of the scenes"),
}
USAGE = usage(
    "Computes how significant the vortices of Model I are if the lens and the source are not known.",
    ["python tools/studies/hidden_vortices.py"],
    FLAGS,
    "Fits a smooth lens to the expected image of each vortex. The significance is the norm of the residual "
    "in standard deviations of the noise: the largest ratio of signal to noise of any test that knows the "
    "length and the direction of the vortex. Known lens: the position and brightness of the source and the "
    "sky are fitted. Unknown lens: the isothermal lens, the shear and the shape of the source, too. "
    "Prints the median and the 10th and 90th percentiles by decile of the length.",
)


def main(arguments: Sequence[str]) -> None:
    """Prints the table."""
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    number = len(CLASSES) * values.images
    scenes = simulation.draw_scenes(MODEL_1, seed=values.seed, split="test", num_images=number)
    vortices = jax.tree.map(lambda leaf: leaf[CLASSES.index("vort") :: len(CLASSES)], scenes)
    length = line_length(vortices)
    known, unknown = (np.asarray(significance(vortices, names)) for names in (KNOWN_LENS, UNKNOWN_LENS))
    log.info("| length, arcsec | known lens | unknown lens: median | 10 % | 90 % |\n|---|---|---|---|---|")
    for rows in np.array_split(np.argsort(length), 10):
        cells = (f"{value:.1f}" for value in np.percentile(unknown[rows], [50, 10, 90]))
        limits = length[rows].min(), length[rows].max()
        log.info("| %.2f to %.2f | %.1f | %s |", *limits, np.median(known[rows]), " | ".join(cells))
    for name, found in (("known", known), ("unknown", unknown)):
        log.info("%s lens: %.0f %% above %.0f", name, 100 * np.mean(found > SIGNIFICANT), SIGNIFICANT)


@functools.partial(jax.jit, static_argnames="names")
def significance(scenes: Scene, names: tuple[str, ...]) -> jax.Array:
    """Norm of the residual of a smooth fit to each expected image, in standard deviations of the noise `[n]`.

    Args:
      scenes: vortices of Model I.
      names: fitted fields of `Scene`.
    """

    def of_scene(scene: Scene) -> jax.Array:
        def image(parameters: jax.Array, masses: jax.Array) -> jax.Array:
            changed = dict(zip(names, parameters, strict=True)) | {"masses": masses}
            return scene.exposure * simulation.expected_counts(dataclasses.replace(scene, **changed), FREE)

        truth = jnp.stack([getattr(scene, name) for name in names])
        expected = image(truth, scene.masses)
        sigma = jnp.sqrt(noise_variance(scene, expected))
        smooth = functools.partial(image, masses=jnp.zeros_like(scene.masses))

        def residual(parameters: jax.Array) -> jax.Array:
            return ((expected - smooth(parameters)) / sigma).ravel()

        def step(parameters: jax.Array, _: None) -> tuple[jax.Array, None]:
            jacobian = jax.jacfwd(residual)(parameters)
            scale = jnp.linalg.norm(jacobian, axis=0, keepdims=True)
            change = jnp.linalg.lstsq(jacobian / scale, residual(parameters))[0] / scale[0]
            return parameters - change, None

        return jnp.linalg.norm(residual(jax.lax.scan(step, truth, None, length=STEPS)[0]))

    return jax.lax.map(of_scene, scenes)


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="hidden_vortices"))
