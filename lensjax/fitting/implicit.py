"""Derivative of the best fit with respect to the image, by the implicit function theorem.

At the optimum, the score F(theta, image) = sum (image - model) / variance d model / d theta, minus the
gradient of the priors, is zero. Therefore d theta = -(dF / d theta)^-1 (dF / d image) d image, where
dF / d theta includes the second derivatives of the model and the derivatives of the weights. The result does
not depend on how the optimum was found.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lensjax.fitting.model import SmoothModel
from lensjax.fitting.noise import variance
from lensjax.fitting.rendering import render_with_jacobian
from lensjax.fitting.resolution import Resolution
from lensjax.fitting.solve import normal_priors


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def attach_image_derivative(
    model: SmoothModel,
    resolution: Resolution,
    theta: Float[Array, " all"],
    image: Float[Array, "height width"],
    valid: Float[Array, "height width"],
    gain: Float[Array, ""],
    background: Float[Array, ""],
) -> Float[Array, " all"]:
    """Returns `theta` unchanged, as a differentiable function of the image.

    Args:
      model: smooth model.
      resolution: resolution of the image.
      theta: free parameters, amplitude and sky at the optimum.
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
) -> Float[Array, " all"]:
    free, amp, sky = theta[:-2], theta[-2], theta[-1]
    source, jacobian = render_with_jacobian(model, resolution, free)
    weighted = valid / variance(amp * source, gain, background) * (image - amp * source - sky)
    means, precisions = normal_priors(model, theta.dtype)
    columns = jnp.concatenate([amp * jacobian, source[None], jnp.ones_like(source)[None]])
    return (columns * weighted[None]).sum((1, 2)) + jnp.pad((means - free) * precisions, (0, 2))
