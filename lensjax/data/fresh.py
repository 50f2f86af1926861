"""Simulated images that are made when a training step needs them, and never again."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from lensjax import fitting, simulation


@dataclasses.dataclass(frozen=True)
class FreshImages:
    """Images to train on that are simulated when they are needed, and never again.

    Attributes:
      preset: the kind of scene.
      seed: of the scenes.
      num_images: how many make an epoch.
      fit: name of the smooth lens that is fitted to each image, see `fitting.smooth_model`; "none" for no
        fits.
    """

    preset: simulation.Preset
    seed: int
    num_images: int
    fit: str = "none"

    def __len__(self) -> int:
        return self.num_images

    def batch(self, step: int, number: int, first: int = 0) -> dict[str, Array]:
        """The batch of a step of training, or a share of it, made while the step before it runs.

        Args:
          step: number of the step since the start of training; the batch follows from it and the seed.
          number: images.
          first: place of the first of them in the batch, where processes share it.

        Returns:
          What `lensjax.data.batches.Batch` has, as arrays of JAX.
        """
        return _fresh_batch(
            _fresh_key(self.seed),
            jnp.asarray(step),
            jnp.asarray(first),
            self.preset,
            number,
            None if self.fit == "none" else fitting.smooth_model(self.fit),
        )


def _fresh_key(seed: int) -> Key[Array, ""]:
    # Splits fold in their numbers, all of them small.
    return jax.random.fold_in(jax.random.key(seed), 0xF8E54)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _fresh_batch(
    key: Key[Array, ""],
    step: Int[Array, ""],
    first: Int[Array, ""],
    preset: simulation.Preset,
    number: int,
    model: fitting.SmoothModel | None,
) -> dict[str, Array]:
    batch = simulation.fresh_batch(jax.random.fold_in(key, step), preset, number, first=first)
    if model is None:
        return batch
    images = batch["pixels"].astype(batch["scale"].dtype) / batch["scale"][:, None, None]
    counted = jnp.issubdtype(batch["pixels"].dtype, jnp.integer)
    noise = fitting.photon_noise(batch["scale"]) if counted else None
    fit = fitting.fit_lens(images[..., None], model, noise=noise)
    residuals = jnp.where(fit.converged[:, None, None], fit.residual[..., 0], 0)
    return batch | {"residuals": residuals.astype(jnp.float16)}
