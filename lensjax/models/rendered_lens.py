"""Residuals of images relative to a rendered smooth lens, for models that predict the lens parameters."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lensjax import fitting
from lensjax.fitting import SmoothModel


def constrain(model: SmoothModel, raw: Float[Array, "batch nonlinear"]) -> Float[Array, "batch nonlinear"]:
    """Maps unbounded numbers to parameters within their bounds.

    The number 0 maps to the center of the starting range of a fit.

    Args:
      model: lens model.
      raw: unbounded output of a network, in the order of `model.nonlinear`.

    Returns:
      The parameters.
    """
    low, high = fitting.parameter_bounds(model, raw.dtype)
    center = jnp.asarray([model.lens.parameters[name].value for name in model.nonlinear], raw.dtype)
    fraction = (center - low) / (high - low)
    offset = jnp.log(fraction) - jnp.log1p(-fraction)
    return low[None] + (high - low)[None] * jax.nn.sigmoid(raw + offset[None])


def standardized_residuals(
    model: SmoothModel, images: Float[Array, "batch height width 1"], free: Float[Array, "batch nonlinear"]
) -> Float[Array, "batch height width 1"]:
    """Image minus lens, in standard deviations of the noise; differentiable in `images` and `free`.

    A batched `fitting.standardized_residual`.

    Args:
      model: lens model.
      images: images in any unit.
      free: parameters of the lens in each image, in the order of `model.nonlinear`.

    Returns:
      The residual of each pixel.
    """
    residual = functools.partial(fitting.standardized_residual, model)
    return jax.vmap(residual)(images[..., 0], free)[..., None]


def refine(
    model: SmoothModel,
    images: Float[Array, "batch height width 1"],
    free: Float[Array, "batch nonlinear"],
    steps: int,
) -> Float[Array, "batch nonlinear"]:
    """Refines parameters by Gauss-Newton steps toward the minimum of chi-square; gradients are stopped.

    A batched `fitting.refine_parameters`.

    Args:
      model: lens model.
      images: images in any unit.
      free: initial parameters of the lens in each image, in the order of `model.nonlinear`.
      steps: maximum number of steps; 0 returns `free` unchanged.

    Returns:
      The refined parameters.
    """
    if steps == 0:
        return free
    refine_one = functools.partial(fitting.refine_parameters, model, max_steps=steps)
    return jax.vmap(refine_one)(images[..., 0], free)
