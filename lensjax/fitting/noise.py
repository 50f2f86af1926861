"""Noise model in which the variance of a pixel grows linearly with its flux.

  variance = background + gain * flux,

where the flux is that of source and lens light without the sky, in the unit of the image. For photon counts
divided by N, the gain is 1 / N, whatever was subtracted from the counts, and only the background must be
estimated. If N is unknown, both are estimated from the image: the point-spread function suppresses the
highest spatial frequencies of the light, so the power at these frequencies is noise.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from lensjax.fitting.types import Image, Number
from lensjax.physics.checks import as_float

_MIN_VARIANCE = 1e-10  # in units of the squared contrast of the image
_ROUNDS = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """Known properties of the noise of each image.

    All values are in the unit of the image, not in its square, because float32 cannot represent the squares
    of values such as 1e-25.

    Attributes:
      gain: variance per unit of the flux of source and lens light, in the unit of the image; NaN if unknown.
      background_rms: standard deviation without this flux, in the unit of the image; NaN if unknown.
      from_counts: True if image / gain is photon counts minus an integer, such as the minimum of an
        image that was scaled to [0, 1]. The background variance then follows from the sky.
    """

    gain: Float[Array, "*batch"]
    background_rms: Float[Array, "*batch"]
    from_counts: Bool[Array, "*batch"]


def photon_noise(scale: Float[ArrayLike, "*batch"]) -> Noise:
    """Noise of images that are photon counts minus an integer, divided by `scale`.

    Args:
      scale: counts per unit of the image; 1 for images in counts, NaN if unknown.

    Returns:
      The noise, with gain `1 / scale` and unknown background.
    """
    scale = as_float(scale)
    unknown = jnp.full_like(scale, jnp.nan)
    return Noise(gain=1 / scale, background_rms=unknown, from_counts=jnp.isfinite(scale))


def unknown_noise(shape: tuple[int, ...], dtype: jnp.dtype) -> Noise:
    """Noise of unknown gain and background, which are then estimated from each image.

    Args:
      shape: batch shape.
      dtype: dtype of the images.

    Returns:
      The noise, with gain and background NaN.
    """
    unknown = jnp.full(shape, jnp.nan, dtype)
    return Noise(gain=unknown, background_rms=unknown, from_counts=jnp.zeros(shape, bool))


def variance(flux: Float[Array, "*grid"], gain: Number, background: Number) -> Float[Array, "*grid"]:
    """Variance of each pixel, given its flux without the sky."""
    return background + gain * jnp.maximum(flux, 0)


def noise_from_high_frequencies(
    image: Image, flux: Image, valid: Image, gain: Number
) -> tuple[Number, Number]:
    """Estimates gain and background from the highest spatial frequencies of an image or a residual.

    Args:
      image: image of contrast about 1, or a residual.
      flux: flux of source and lens light in each pixel, or the brightness above the sky.
      valid: 1 for valid pixels, 0 for others.
      gain: variance per unit of flux; NaN to estimate it as well.

    Returns:
      Gain and background variance.
    """
    noise = _second_difference(_second_difference(image, 0), 1) / 6
    square = noise**2
    inner_valid = valid[1:-1, 1:-1]
    for axis in (0, 1):
        for step in (-1, 1):
            inner_valid = inner_valid * jnp.roll(valid, step, axis)[1:-1, 1:-1]
    return _regression(square, jnp.maximum(flux[1:-1, 1:-1], 0), inner_valid, gain)


def background_from_residual(
    residual: Image, flux: Image, valid: Image, gain: Number, background: Number
) -> Number:
    """Estimates the background variance from pixels in which the background dominates.

    Args:
      residual: image minus model.
      flux: flux of source and lens light in each pixel.
      valid: 1 for valid pixels, 0 for others.
      gain: variance per unit of flux.
      background: initial estimate of the background variance.
    """
    initial = background
    for _ in range(_ROUNDS):
        pixel_variance = variance(flux, gain, background)
        # The residual is clipped at four standard deviations, and the estimate near its initial value, so
        # that the light of another lens is not mistaken for noise.
        dark = valid * (gain * flux < background) * (residual**2 < 16 * pixel_variance)
        weight = dark / pixel_variance**2
        total = weight.sum()
        estimate = (weight * (residual**2 - gain * flux)).sum() / jnp.where(total > 0, total, 1)
        clipped = jnp.clip(estimate, initial / 1.3, 1.3 * initial)
        background = jnp.where(total > 0, clipped, background)
    return background


def estimate_noise(
    known: Noise, residual: Image, flux: Image, sky: Number, valid: Image
) -> tuple[Number, Number]:
    """Estimates the gain and the background variance, if unknown, from the residual of a fit.

    Args:
      known: known properties of the noise of this image.
      residual: image minus model.
      flux: flux of source and lens light in each pixel.
      sky: sky of the model.
      valid: 1 for valid pixels, 0 for others.

    Returns:
      Gain and background variance.
    """
    gain, background = noise_from_high_frequencies(residual, flux, valid, known.gain)
    background = background_from_residual(residual, flux, valid, gain, background)
    # The background variance in counts exceeds the sky by the integer that was subtracted.
    counts = sky / gain
    subtracted = jnp.round(background / gain**2 - counts)
    from_sky = jnp.maximum(counts + subtracted, 0.1) * gain**2
    background = jnp.where(known.from_counts, from_sky, background)
    given = known.background_rms
    return gain, jnp.where(jnp.isnan(given), background, given**2)


def _second_difference(image: Array, axis: int) -> Array:
    before, middle, after = (
        jax.lax.slice_in_dim(image, start, image.shape[axis] - 2 + start, axis=axis) for start in range(3)
    )
    return before - 2 * middle + after


def _regression(square: Array, flux: Array, valid: Array, gain: Array) -> tuple[Number, Number]:
    """Linear regression of squared noise on flux, weighted by the inverse square of the fitted variance."""
    number = jnp.maximum(valid.sum(), 1)
    background = jnp.maximum((valid * square).sum() / number, _MIN_VARIANCE)
    slope = jnp.where(jnp.isnan(gain), 0, gain)
    for _ in range(_ROUNDS):
        weight = valid / (background + slope * flux) ** 2
        weight = weight / jnp.maximum(weight.sum(), 1e-30)
        mean_flux, mean_square = (weight * flux).sum(), (weight * square).sum()
        flux_variance = (weight * (flux - mean_flux) ** 2).sum()
        estimate = (weight * (flux - mean_flux) * square).sum() / jnp.maximum(flux_variance, 1e-30)
        slope = jnp.where(jnp.isnan(gain), jnp.maximum(estimate, 0), gain)
        background = jnp.maximum(mean_square - slope * mean_flux, _MIN_VARIANCE)
    return slope, background
