"""Derivative of the best fit with respect to the image, by the implicit function theorem.

At the optimum, the score F(theta, image) = sum (image - model) / variance * (d model / d theta), minus the
gradient of the priors, is zero. Therefore d theta = -(dF / d theta)^-1 (dF / d image) d image, where
dF / d theta includes the second derivatives of the model and the derivatives of the weights. The result does
not depend on how the optimum was found.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lensjax.fitting.amplitudes import total_light
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.noise import variance
from lensjax.fitting.rendering import render_with_jacobian
from lensjax.fitting.resolution import Resolution
from lensjax.fitting.solve import image_derivatives, normal_priors, parameter_bounds
from lensjax.fitting.types import Image, Number, Theta


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def attach_image_derivative(
    model: SmoothModel,
    resolution: Resolution,
    theta: Theta,
    image: Image,
    valid: Image,
    gain: Number,
    background: Number,
) -> Theta:
    """Returns `theta` unchanged, as a differentiable function of the image.

    Args:
      model: smooth model.
      resolution: resolution of the image.
      theta: free parameters, amplitudes and sky at the optimum.
      image: fitted image.
      valid: 1 for valid pixels, 0 for others.
      gain, background: parameters of the noise, constant under differentiation.
    """
    del model, resolution, image, valid, gain, background
    return theta


@attach_image_derivative.defjvp
def _derivative(
    model: SmoothModel, resolution: Resolution, primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    theta, image, *rest = primals
    score_jacobian = jax.jacfwd(lambda theta: _score(model, resolution, theta, image, *rest))(theta)
    _, change = jax.jvp(
        lambda image: _score(model, resolution, theta, image, *rest), (image,), (tangents[1],)
    )
    # Parameters at a bound remain there, as do amplitudes of 0.
    free, linear = jnp.split(theta, [len(model.nonlinear)])
    low, high = parameter_bounds(model, theta.dtype)
    keep = jnp.concatenate([(free > low) & (free < high), linear[:-1] > 0, jnp.ones(1, bool)])
    score_jacobian = jnp.where(keep[:, None] & keep[None, :], score_jacobian, -jnp.diag(1.0 - keep))
    change = jnp.where(keep, change, 0)
    diagonal = jnp.abs(jnp.diagonal(score_jacobian))
    scale = jnp.where(diagonal > 0, 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    tiny = 8 * jnp.finfo(theta.dtype).eps * jnp.eye(len(theta), dtype=theta.dtype)
    scaled = scale[:, None] * score_jacobian * scale[None, :] - tiny
    return theta, -scale * jnp.linalg.solve(scaled, scale * change)


def _score(
    model: SmoothModel,
    resolution: Resolution,
    theta: Array,
    image: Array,
    valid: Array,
    gain: Array,
    background: Array,
) -> Theta:
    free, linear = jnp.split(theta, [len(model.nonlinear)])
    columns, jacobian = render_with_jacobian(model, resolution, free)
    light = total_light(columns, linear)
    weighted = valid / variance(light, gain, background) * (image - light - linear[-1])
    means, precisions = normal_priors(model, theta.dtype)
    derivatives = image_derivatives(model, columns, jacobian, linear)
    return (derivatives * weighted[None]).sum((1, 2)) + jnp.pad((means - free) * precisions, (0, len(linear)))
