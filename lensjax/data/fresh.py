"""Training images that are simulated for each step and never repeated."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from lensjax import fitting, simulation
from lensjax.seeds import check_seed


@dataclasses.dataclass(frozen=True)
class FreshImages:
    """Training images that are simulated for each step and never repeated.

    Attributes:
      preset: the simulation preset.
      seed: seed of the scenes, 0 to 2^32 - 1.
      num_images: images per epoch.
      fit: name of the smooth lens model to fit to each image, see `fitting.smooth_model`; "none" for no
        fits.
    """

    preset: simulation.Preset
    seed: int
    num_images: int
    fit: str = "none"

    def __len__(self) -> int:
        return self.num_images

    def batch(self, step: int, batch_size: int, first: int = 0) -> dict[str, Array]:
        """Simulates the batch of a training step, or this process's share of it.

        Args:
          step: number of the step since the start of training. The batch depends only on step and seed.
          batch_size: number of images to simulate.
          first: index of the first simulated image in the whole batch, if processes share the batch.

        Returns:
          JAX arrays with the keys of `lensjax.data.batches.Batch`.
        """
        return _fresh_batch(
            _fresh_key(self.seed),
            jnp.asarray(step),
            jnp.asarray(first),
            self.preset,
            batch_size,
            None if self.fit == "none" else fitting.smooth_model(self.fit),
        )


def _fresh_key(seed: int) -> Key[Array, ""]:
    # The keys of the splits fold in small numbers, so this key is independent of them.
    return jax.random.fold_in(jax.random.key(check_seed(seed)), 0xF8E54)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _fresh_batch(
    key: Key[Array, ""],
    step: Int[Array, ""],
    first: Int[Array, ""],
    preset: simulation.Preset,
    batch_size: int,
    model: fitting.SmoothModel | None,
) -> dict[str, Array]:
    batch = simulation.fresh_batch(jax.random.fold_in(key, step), preset, batch_size, first=first)
    if model is None:
        return batch
    images = batch["pixels"].astype(batch["scale"].dtype) / batch["scale"][:, None, None]
    counted = jnp.issubdtype(batch["pixels"].dtype, jnp.integer)
    noise = fitting.photon_noise(batch["scale"]) if counted else None
    fit = fitting.fit_lens(images[..., None], model, noise=noise)
    residuals = jnp.where(fit.converged[:, None, None], fit.residual[..., 0], 0)
    return batch | {"residuals": residuals.astype(jnp.float16)}
