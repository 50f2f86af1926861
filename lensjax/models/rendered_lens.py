"""Residuals of images after a rendered smooth lens, for models that predict the lens's parameters."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lensjax import fitting
from lensjax.fitting import SmoothModel


def constrain(model: SmoothModel, raw: Float[Array, "batch nonlinear"]) -> Float[Array, "batch nonlinear"]:
    """Maps unbounded numbers to parameters within their bounds; 0 maps to the center of the fit's starts.

    Args:
      model: the lens model.
      raw: unbounded output of a network, in the order of `model.nonlinear`.
    """
    low, high = fitting.parameter_bounds(model, raw.dtype)
    center = jnp.asarray([getattr(model, name).value for name in model.nonlinear], raw.dtype)
    fraction = (center - low) / (high - low)
    offset = jnp.log(fraction) - jnp.log1p(-fraction)
    return low[None] + (high - low)[None] * jax.nn.sigmoid(raw + offset[None])


def standardized_residuals(
    model: SmoothModel, images: Float[Array, "batch height width 1"], free: Float[Array, "batch nonlinear"]
) -> Float[Array, "batch height width 1"]:
    """Image minus lens, in standard deviations of the noise; differentiable in `images` and `free`.

    The lens has the best amplitude and sky. The noise is estimated from the highest spatial frequencies of
    the residual, and is constant in the derivative.

    Args:
      model: the lens model.
      images: images in any unit.
      free: parameters of each image's lens, in the order of `model.nonlinear`.
    """
    residual = functools.partial(fitting.standardized_residual, model)
    return jax.vmap(residual)(images[..., 0], free)[..., None]


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
    refine_one = functools.partial(fitting.refine_parameters, model, max_steps=steps)
    return jax.vmap(refine_one)(images[..., 0], free)
