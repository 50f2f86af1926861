"""The derivative of the best fit in the image, by the implicit function theorem.

At the optimum the score F(theta, image) = sum (image - model) / variance d model / d theta, less the pull of
the priors, is zero, so d theta = -(dF / d theta)^-1 (dF / d image) d image, with the second derivatives of
the model and the weights' own change in dF / d theta. How the optimum was found does not matter.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lensjax.fitting.level import Level
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.noise import variance
from lensjax.fitting.render import brightness_and_slopes
from lensjax.fitting.solve import priors


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def as_function_of_image(
    model: SmoothModel,
    level: Level,
    theta: Float[Array, " all"],
    image: Float[Array, "height width"],
    valid: Float[Array, "height width"],
    gain: Float[Array, ""],
    background: Float[Array, ""],
) -> Float[Array, " all"]:
    """`theta` itself, with the derivative in the image that an optimum has.

    Args:
      model: the smooth model.
      level: the image's own pixels.
      theta: free parameters, amplitude and sky, at the optimum.
      image: what was fitted.
      valid: 1 for pixels that count, 0 for others.
      gain, background: of the noise, held constant.
    """
    del model, level, image, valid, gain, background
    return theta


@as_function_of_image.defjvp
def _derivative(
    model: SmoothModel, level: Level, primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    theta, image, *rest = primals
    slope = jax.jacfwd(lambda theta: _score(model, level, theta, image, *rest))(theta)
    _, change = jax.jvp(
        lambda image: _score(model, level, theta, image, *rest), (image,), (tangents[1],)
    )
    diagonal = jnp.abs(jnp.diagonal(slope))
    scale = jnp.where(diagonal > 0, 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    tiny = 8 * jnp.finfo(theta.dtype).eps * jnp.eye(len(theta), dtype=theta.dtype)
    scaled = scale[:, None] * slope * scale[None, :] - tiny
    return theta, -scale * jnp.linalg.solve(scaled, scale * change)


def _score(
    model: SmoothModel,
    level: Level,
    theta: Array,
    image: Array,
    valid: Array,
    gain: Array,
    background: Array,
) -> Float[Array, " all"]:
    free, amp, sky = theta[:-2], theta[-2], theta[-1]
    source, slopes = brightness_and_slopes(model, level, free)
    weighted = valid / variance(amp * source, gain, background) * (image - amp * source - sky)
    means, precisions = priors(model, theta.dtype)
    pixels = jnp.concatenate([amp * slopes, source[None], jnp.ones_like(source)[None]])
    return (pixels * weighted[None]).sum((1, 2)) + jnp.pad((means - free) * precisions, (0, 2))
