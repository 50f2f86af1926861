"""How noisy each pixel is: a variance that grows linearly with the source's flux.

  variance = background + gain * flux,

with the flux of the source alone, in the image's unit. For photon counts divided by N the gain is 1 / N,
whatever was subtracted from the counts; only the background needs to be found. Where not even N is known,
both are read off the image: the point-spread function leaves hardly any light at the highest spatial
frequencies, so what is there is noise.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

_FLOOR = 1e-10  # of the squared contrast of the image: the least variance there is
_ROUNDS = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Noise:
    """What is known of the noise of each image.

    Attributes:
      gain: variance for each unit of the source's flux, in the image's unit; NaN where it is to be found.
      background_variance: variance where there is no source, in the image's unit squared; NaN where it is
        to be found.
      counted: whether image / gain is photon counts less some whole number, such as the smallest count of
        an image that was scaled from 0 to 1. The background's variance follows from the sky then.
    """

    gain: Float[Array, "*batch"]
    background_variance: Float[Array, "*batch"]
    counted: Bool[Array, "*batch"]


def photon_noise(scale: Float[ArrayLike, "*batch"]) -> Noise:
    """Noise of images that are photon counts, less a whole number, divided by `scale`.

    Args:
      scale: counts for a value of 1 in the image; 1 for images in counts, NaN where it is not known.
    """
    scale = jnp.asarray(scale)
    return Noise(1 / scale, jnp.full_like(scale, jnp.nan), jnp.isfinite(scale))


def unknown_noise(shape: tuple[int, ...], dtype: jnp.dtype) -> Noise:
    """Photon noise of unknown gain, on any background: all is read off the image."""
    unknown = jnp.full(shape, jnp.nan, dtype)
    return Noise(unknown, unknown, jnp.zeros(shape, bool))


def variance(
    flux: Float[Array, "*grid"], gain: Float[Array, ""], background: Float[Array, ""]
) -> Float[Array, "*grid"]:
    """Variance of each pixel, for the flux of the source in it."""
    return background + gain * jnp.maximum(flux, 0)


def from_high_frequencies(
    image: Float[Array, "rows columns"],
    flux: Float[Array, "rows columns"],
    valid: Float[Array, "rows columns"],
    gain: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Gain and background from the highest spatial frequencies of an image, or of its residual.

    Args:
      image: the image, of contrast about 1.
      flux: flux of the source in each pixel, or the brightness above the sky.
      valid: 1 for pixels that count, 0 for others.
      gain: variance for each unit of flux; NaN where it is to be found too.

    Returns:
      Gain and background.
    """
    rough = _second_difference(_second_difference(image, 0), 1) / 6
    square = rough**2
    counts = valid[1:-1, 1:-1]
    for axis in (0, 1):
        for step in (-1, 1):
            counts = counts * jnp.roll(valid, step, axis)[1:-1, 1:-1]
    return _regression(square, jnp.maximum(flux[1:-1, 1:-1], 0), counts, gain)


def background_from_residual(
    residual: Float[Array, "rows columns"],
    flux: Float[Array, "rows columns"],
    valid: Float[Array, "rows columns"],
    gain: Float[Array, ""],
    background: Float[Array, ""],
) -> Float[Array, ""]:
    """The background's variance, from the pixels with less source than sky.

    Args:
      residual: image less model.
      flux: flux of the source in each pixel.
      valid: 1 for pixels that count, 0 for others.
      gain: variance for each unit of flux.
      background: a first guess of what is sought.
    """
    guess = background
    for _ in range(_ROUNDS):
        spread = variance(flux, gain, background)
        # Cut at four standard deviations, and near the guess: another lens's light is no noise.
        dark = valid * (gain * flux < background) * (residual**2 < 16 * spread)
        weight = dark / spread**2
        total = weight.sum()
        found = (weight * (residual**2 - gain * flux)).sum() / jnp.where(total > 0, total, 1)
        near = jnp.clip(found, guess / 1.3, 1.3 * guess)
        background = jnp.where(total > 0, near, background)
    return background


def refined(
    known: Noise,
    residual: Float[Array, "rows columns"],
    flux: Float[Array, "rows columns"],
    sky: Float[Array, ""],
    valid: Float[Array, "rows columns"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Gain and background from what a fit leaves over, where they are not known.

    Args:
      known: what is known of this image's noise.
      residual: image less model.
      flux: flux of the source in each pixel.
      sky: the model's sky.
      valid: 1 for pixels that count, 0 for others.
    """
    gain, background = from_high_frequencies(residual, flux, valid, known.gain)
    background = background_from_residual(residual, flux, valid, gain, background)
    # The sky in counts, and the whole number that was subtracted: what the variance has more than the sky.
    counts = sky / gain
    missing = jnp.round(background / gain**2 - counts)
    counted = jnp.maximum(counts + missing, 0.1) * gain**2
    background = jnp.where(known.counted, counted, background)
    given = known.background_variance
    return gain, jnp.where(jnp.isnan(given), background, given)


def _second_difference(image: Array, axis: int) -> Array:
    before, middle, after = (
        jax.lax.slice_in_dim(image, start, image.shape[axis] - 2 + start, axis=axis)
        for start in range(3)
    )
    return before - 2 * middle + after


def _regression(
    square: Array, flux: Array, valid: Array, gain: Array
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Straight line of the squares over the flux, weighted with the line's own inverse square."""
    number = jnp.maximum(valid.sum(), 1)
    background = jnp.maximum((valid * square).sum() / number, _FLOOR)
    slope = jnp.where(jnp.isnan(gain), 0, gain)
    for _ in range(_ROUNDS):
        weight = valid / (background + slope * flux) ** 2
        weight = weight / jnp.maximum(weight.sum(), 1e-30)
        mean_flux, mean_square = (weight * flux).sum(), (weight * square).sum()
        spread = (weight * (flux - mean_flux) ** 2).sum()
        found = (weight * (flux - mean_flux) * square).sum() / jnp.maximum(spread, 1e-30)
        slope = jnp.where(jnp.isnan(gain), jnp.maximum(found, 0), gain)
        background = jnp.maximum(mean_square - slope * mean_flux, _FLOOR)
    return slope, background
