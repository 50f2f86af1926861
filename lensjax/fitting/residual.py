"""Residual of a given lens, and a few fitting steps starting from it, for one image with unknown noise.

Models that predict the parameters of a lens use these functions; `fit_lens` needs no starting point.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lensjax.fitting.amplitudes import solve_linear, total_light
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.noise import noise_from_high_frequencies, variance
from lensjax.fitting.rendering import render, render_with_jacobian
from lensjax.fitting.resolution import Resolution
from lensjax.fitting.solve import NormalEquations, minimize, normal_equations, parameter_bounds
from lensjax.fitting.types import Free, Image
from lensjax.physics.checks import as_float
from lensjax.physics.precision import full_precision

_TOLERANCE = 0.3  # largest expected decrease in chi-square of the last step


def standardized_residual(model: SmoothModel, image: Image, free: Free) -> Image:
    """Residual of a lens in standard deviations of the noise; differentiable in both arrays.

    The amplitudes and the sky are fitted for the given lens. The noise is estimated from the highest
    spatial frequencies of the residual and is constant under differentiation.

    Args:
      model: smooth model.
      image: image in any unit.
      free: values of the parameters `model.nonlinear`.

    Returns:
      The residual of each pixel.
    """
    image = _scale(image)
    columns = render(model, Resolution.native(model, image.shape), free)
    weight = _inverse_variance(image, columns)
    linear = solve_linear(columns, image, weight)
    return (image - total_light(columns, linear) - linear[-1]) * jnp.sqrt(weight)


@full_precision
def refine_parameters(model: SmoothModel, image: Image, start: Free, *, max_steps: int) -> Free:
    """Takes damped Gauss-Newton steps toward the minimum of chi-square.

    The result is constant under differentiation.

    Args:
      model: smooth model.
      image: image in any unit.
      start: starting values of the parameters `model.nonlinear`; clipped to their bounds.
      max_steps: maximum number of steps; the model is evaluated at the start and after each step. A step that
        does not decrease chi-square is not taken, but counts.

    Returns:
      The refined parameters.
    """
    image, start = jax.lax.stop_gradient((_scale(image), start))
    resolution = Resolution.native(model, image.shape)
    weight = _inverse_variance(image, render(model, resolution, start))

    def evaluate(free: Array) -> NormalEquations:
        columns, jacobian = render_with_jacobian(model, resolution, free)
        return normal_equations(model, free, columns, jacobian, image, weight)

    low, high = parameter_bounds(model, start.dtype)
    start = jnp.clip(start, low, high)
    free, _, _ = minimize(
        model, evaluate, start, max_evaluations=max_steps + 1, tolerance=_TOLERANCE, damping=1e-3
    )
    return free


def _scale(image: Array) -> Array:
    """The image in units of its contrast, for which no square is out of float32's range."""
    image = as_float(image)
    contrast = jax.lax.stop_gradient(image.max() - image.min())
    return image / jnp.where(contrast > 0, contrast, 1)


def _inverse_variance(image: Array, columns: Array) -> Array:
    """Inverse variance of each pixel, given the light at the best amplitudes."""
    image, columns = jax.lax.stop_gradient((image, columns))
    ones = jnp.ones_like(image)
    linear = solve_linear(columns, image, ones)
    flux = total_light(columns, linear)
    unknown = jnp.full((), jnp.nan, image.dtype)
    gain, background = noise_from_high_frequencies(image - flux - linear[-1], flux, ones, unknown)
    return 1 / variance(flux, gain, background)
