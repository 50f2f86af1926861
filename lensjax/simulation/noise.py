"""Camera noise: draws recorded images from expected counts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lensjax.simulation.photons import LARGEST, poisson
from lensjax.simulation.settings import ExposureNoise, GaussianNoise, PhotonNoise

Noise = PhotonNoise | ExposureNoise | GaussianNoise | None


def add_noise(
    key: Key[Array, ""], expected: Float[Array, "*shape"], exposure: Float[Array, ""], noise: Noise
) -> Float[Array, "*shape"]:
    """Draws a recorded image from the expected counts.

    Args:
      key: random key for the noise.
      expected: expected counts; counts per second for `ExposureNoise` and for noise-free presets.
      exposure: exposure time, seconds; used only by `ExposureNoise`.
      noise: noise model; None for no noise.

    Returns:
      The recorded image, with the dtype of `expected`: whole counts for `PhotonNoise` and
      `ExposureNoise`, any real numbers for `GaussianNoise`; `expected` itself without noise. Whole counts are
      NaN where their rate is NaN or above `photons.LARGEST`, and for `PhotonNoise` also where it is negative.
    """
    expected = jnp.asarray(expected, jnp.result_type(expected, 1.0))
    if noise is None:
        return expected
    if isinstance(noise, PhotonNoise):
        return jnp.where(expected >= 0, _counts(key, expected), jnp.nan)
    normal_key, count_key = jax.random.split(key)
    normal = jax.random.normal(normal_key, expected.shape, expected.dtype)
    # The sum of two independent Gaussian variables is Gaussian, with the sum of their variances.
    if isinstance(noise, GaussianNoise):
        return expected + normal * jnp.sqrt(jnp.maximum(expected, 0) + noise.background_rms**2)
    counts = exposure * expected
    sigma = jnp.sqrt(jnp.maximum(counts, 0) + (exposure * noise.background_rms) ** 2)
    return _counts(count_key, jnp.maximum(counts + normal * sigma, 0))


def _counts(key: Key[Array, ""], rate: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Poisson counts; NaN for rates that the sampler would clip."""
    return jnp.where(rate <= LARGEST, poisson(key, rate).astype(rate.dtype), jnp.nan)
