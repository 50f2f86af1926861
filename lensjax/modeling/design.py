"""Images of unit amplitude of a lens model, their scalar products, and the derivatives of the model image.

All functions run in float32 on the default device. Each is compiled once per model and frame.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax.modeling.frame import Data, Frame, convolve_columns, pixel_positions, ray_positions
from lensjax.modeling.internal import traced_values
from lensjax.modeling.model import LensModel
from lensjax.physics.precision import full_precision


class Design(NamedTuple):
    """The linear part of a fit.

    Attributes:
      columns: weighted images of unit amplitudes.
      gram: scalar products of the columns.
      projection: scalar products of the columns with the weighted image.
    """

    columns: Float[Array, "amplitudes pixels"]
    gram: Float[Array, "amplitudes amplitudes"]
    projection: Float[Array, "amplitudes"]


class Derivatives(NamedTuple):
    """The model image's derivatives with respect to internal parameters, at fixed amplitudes.

    Attributes:
      jacobian: weighted derivatives; 0 for held parameters.
      products: scalar products of the derivatives.
      crossed: scalar products of the derivatives with the columns.
      gradient: scalar products of the derivatives with the weighted residual.
    """

    jacobian: Float[Array, "fitted pixels"]
    products: Float[Array, "fitted fitted"]
    crossed: Float[Array, "fitted amplitudes"]
    gradient: Float[Array, "fitted"]


@partial(jax.jit, static_argnums=(0, 1))
@full_precision
def compute_design(model: LensModel, frame: Frame, data: Data, position: Float[Array, "fitted"]) -> Design:
    """Computes the columns of the amplitudes in the order of `model.amplitudes`.

    Args:
      model, frame: the model and its pixels.
      data: values of the pixels.
      position: internal parameters.
    """
    x, y = ray_positions(frame)
    values = traced_values(model, position)
    light, source = model.light_columns(x, y, values), model.source_columns(x, y, values)
    blurred = convolve_columns(jnp.concatenate([light, source]), jnp.asarray(data.psf), frame)
    number = light.shape[0]
    columns = jnp.concatenate([blurred[:number], _sky_columns(model, frame), blurred[number:]])
    weighted = columns.reshape(columns.shape[0], -1) * data.weight.reshape(1, -1)
    return Design(weighted, weighted @ weighted.T, weighted @ (data.image * data.weight).reshape(-1))


@jax.jit
@full_precision
def compute_chi_square(columns: Float[Array, "n pixels"], amplitudes: Float[Array, "n"], data: Data) -> Array:
    """Sum of the squared weighted residuals."""
    return jnp.sum(_residual(columns, amplitudes, data) ** 2)


@partial(jax.jit, static_argnums=(0, 1))
@full_precision
def compute_derivatives(
    model: LensModel,
    frame: Frame,
    data: Data,
    position: Float[Array, "fitted"],
    amplitudes: Float[Array, "amplitudes"],
    columns: Float[Array, "amplitudes pixels"],
) -> Derivatives:
    """Computes the derivatives of the model image with respect to internal parameters.

    Args:
      model, frame, data, position: as for `compute_design`.
      amplitudes: the amplitudes.
      columns: the columns at this position.
    """
    slopes = _slopes(model, frame, position, amplitudes)
    blurred = convolve_columns(slopes, jnp.asarray(data.psf), frame)
    jacobian = blurred.reshape(len(blurred), -1) * data.weight.reshape(1, -1)
    residual = _residual(columns, amplitudes, data)
    return Derivatives(jacobian, jacobian @ jacobian.T, jacobian @ columns.T, jacobian @ residual)


def _slopes(
    model: LensModel, frame: Frame, position: Array, amplitudes: Array
) -> Float[Array, "fitted rows columns"]:
    """Derivatives of the image before the convolution.

    Each ray has one brightness and many parameters. Reverse mode per ray gives all of its derivatives at the
    cost of a few images.
    """

    def brightness(at: list[Array], x: Array, y: Array) -> Array:
        return model.image(x, y, traced_values(model, at), amplitudes)

    x, y = ray_positions(frame)
    gradient = jax.vmap(jax.grad(brightness), in_axes=(None, 0, 0))
    slopes = gradient(list(position), x.ravel(), y.ravel())
    used = [jnp.zeros_like(each) if held else each for each, held in zip(slopes, model.held, strict=True)]
    return jnp.stack(used).reshape(-1, *x.shape)


def _residual(columns: Array, amplitudes: Array, data: Data) -> Float[Array, "pixels"]:
    return (data.image * data.weight).reshape(-1) - amplitudes @ columns


def _sky_columns(model: LensModel, frame: Frame) -> Array:
    x, y = pixel_positions(frame)
    width = frame.pixel_scale * frame.columns / 2
    plane = [np.ones_like(x), x / width, y / width]
    return jnp.asarray(np.stack(plane[: model.amplitudes["sky"]]), jnp.float32)
