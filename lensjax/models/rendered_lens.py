"""Residuals of images after a rendered smooth lens, for models that predict the lens's parameters."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lensjax.fitting.level import Level
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.noise import from_high_frequencies, variance
from lensjax.fitting.render import brightness, brightness_and_slopes
from lensjax.fitting.solve import Normal, best_linear, bounds, minimise, normal_equations

_GAIN_OF_LAST_STEP = 0.3  # in chi-square


def constrain(
    model: SmoothModel, raw: Float[Array, "batch nonlinear"]
) -> Float[Array, "batch nonlinear"]:
    """Maps unbounded numbers to parameters within their bounds; 0 maps to the center of the fit's starts.

    Args:
      model: the lens model.
      raw: unbounded output of a network, in the order of `model.nonlinear`.
    """
    low, high = bounds(model, raw.dtype)
    center = jnp.asarray([getattr(model, name).value for name in model.nonlinear], raw.dtype)
    fraction = (center - low) / (high - low)
    offset = jnp.log(fraction) - jnp.log1p(-fraction)
    return low[None] + (high - low)[None] * jax.nn.sigmoid(raw + offset[None])


def standardized_residuals(
    model: SmoothModel,
    images: Float[Array, "batch height width 1"],
    free: Float[Array, "batch nonlinear"],
) -> Float[Array, "batch height width 1"]:
    """Image minus lens, in standard deviations of the noise; differentiable in `images` and `free`.

    The lens has the best amplitude and sky. The noise is estimated from the highest spatial frequencies of
    the residual, and is constant in the derivative.

    Args:
      model: the lens model.
      images: images in any unit.
      free: parameters of each image's lens, in the order of `model.nonlinear`.
    """
    return jax.vmap(functools.partial(_residual, model))(images[..., 0], free)[..., None]


def refine(
    model: SmoothModel,
    images: Float[Array, "batch height width 1"],
    free: Float[Array, "batch nonlinear"],
    steps: int,
) -> Float[Array, "batch nonlinear"]:
    """Refines parameters by Gauss-Newton steps towards the minimum of chi-square; gradients are stopped.

    Args:
      model: the lens model.
      images: images in any unit.
      free: initial parameters of each image's lens, in the order of `model.nonlinear`.
      steps: maximum number of steps.
    """
    if steps == 0:
        return free
    images, free = jax.lax.stop_gradient((images, free))
    return jax.vmap(functools.partial(_refine, model, steps))(images[..., 0], free)


def _residual(model: SmoothModel, image: Array, free: Array) -> Array:
    source = brightness(model, _level(model, image), free)
    weight = _weight(image, source)
    amp, sky = best_linear(source, image, weight)
    return (image - amp * source - sky) * jnp.sqrt(weight)


def _refine(model: SmoothModel, steps: int, image: Array, start: Array) -> Array:
    level = _level(model, image)
    weight = _weight(image, brightness(model, level, start))

    def evaluate(free: Array) -> Normal:
        source, slopes = brightness_and_slopes(model, level, free)
        return normal_equations(model, free, source, slopes, image, weight)

    low, high = bounds(model, start.dtype)
    found = minimise(
        model,
        evaluate,
        jnp.clip(start, low, high),
        most_steps=steps,
        tolerance=_GAIN_OF_LAST_STEP,
        damping=1e-3,
    )
    return found[0]


def _level(model: SmoothModel, image: Array) -> Level:
    return Level((image.shape[0], image.shape[1]), 1, model.subpixels)


def _weight(image: Array, source: Array) -> Array:
    """Inverse variance of each pixel, with the photon noise of the lens at its best amplitude."""
    image, source = jax.lax.stop_gradient((image, source))
    everywhere = jnp.ones_like(image)
    amp, sky = best_linear(source, image, everywhere)
    flux = amp * source
    unknown = jnp.full((), jnp.nan, image.dtype)
    gain, background = from_high_frequencies(image - flux - sky, flux, everywhere, unknown)
    return 1 / variance(flux, gain, background)
