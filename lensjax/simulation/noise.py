"""From expected counts to what a camera records."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lensjax.simulation.photons import poisson
from lensjax.simulation.presets import ExposureNoise, GaussianNoise, PhotonNoise

Noise = PhotonNoise | ExposureNoise | GaussianNoise


def with_noise(
    key: Key[Array, ""],
    expected: Float[Array, "*shape"],
    exposure: Float[Array, ""],
    noise: Noise,
) -> Float[Array, "*shape"]:
    """An image as recorded, of the same type.

    Args:
      key: the noise follows from it.
      expected: expected counts, for `ExposureNoise` in a second.
      exposure: of the scene, seconds; only `ExposureNoise` makes use of it.
      noise: its kind.

    Returns:
      Whole counts for `PhotonNoise` and `ExposureNoise`, any numbers for `GaussianNoise`.
    """
    if isinstance(noise, PhotonNoise):
        return poisson(key, expected).astype(expected.dtype)
    normal_key, count_key = jax.random.split(key)
    normal = jax.random.normal(normal_key, expected.shape, expected.dtype)
    # Two Gaussian noises added up are one, with the sum of their variances.
    if isinstance(noise, GaussianNoise):
        return expected + normal * jnp.sqrt(jnp.maximum(expected, 0) + noise.background_rms**2)
    counts = exposure * expected
    spread = jnp.sqrt(jnp.maximum(counts, 0) + (exposure * noise.background_rms) ** 2)
    return poisson(count_key, jnp.maximum(counts + normal * spread, 0)).astype(expected.dtype)
