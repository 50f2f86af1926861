"""Convolution and max-pooling with derivatives that are fast on CPUs.

`conv_general_dilated` replaces `jax.lax.conv_general_dilated` in Flax's `nn.Conv`, and `max_pool` replaces
`nn.max_pool`. Both compute the same functions as the originals. When a program is lowered,
`jax.lax.platform_dependent` selects the implementations in this file for CPUs and JAX's own for all other
platforms. There is no custom backward pass: only forward-mode derivatives are defined, and JAX transposes
them, so derivatives of any order work in both modes.

tools/benchmarks/convolutions.py times the implementations.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

# Convolutions with at most this many output pixels or a 1 x 1 kernel are computed as a matrix product.
_MAX_PRODUCT_PIXELS = 100
# For other convolutions, the gradient with respect to the kernel is summed over parts of _PART_SIZE images,
# or more images if there are fewer than _WIDE features. The compiled program grows with the number of parts.
_PART_SIZE, _WIDE, _MAX_PARTS = 4, 64, 16

_POOL = 3  # side of a pooling window, pixels
_ROW = 4  # the index of a pixel in its window is _ROW * row + column; must exceed the width of the window


def conv_general_dilated(
    lhs: Float[Array, "batch height width channels"],
    rhs: Float[Array, "rows columns channels features"],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    precision: Any = None,
    **others: Any,
) -> Float[Array, "batch new_height new_width features"]:
    """Replaces `jax.lax.conv_general_dilated` in the two-dimensional convolutions of `nn.Conv`.

    Args:
      lhs: feature maps.
      rhs: kernel.
      window_strides: strides of rows and columns.
      padding: pixels added before and after rows and columns.
      precision: precision of the products.
      others: other arguments from `nn.Conv`.

    Returns:
      The new feature maps.

    Raises:
      NotImplementedError: if the convolution has dilation or feature groups.
    """
    dilations = {*(others.get("lhs_dilation") or (1,)), *(others.get("rhs_dilation") or (1,))}
    if dilations != {1} or others.get("feature_group_count", 1) != 1:
        raise NotImplementedError("convolutions with dilation or feature groups are not supported")
    options = {"window_strides": window_strides, "padding": padding, "precision": precision}
    convolve = functools.partial(lax.conv_general_dilated, **options, **others)
    _, height, width, _ = jax.eval_shape(convolve, lhs, rhs).shape
    if rhs.shape[:2] == (1, 1) or height * width <= _MAX_PRODUCT_PIXELS:
        on_cpu = functools.partial(product_convolution, **options)
    else:
        on_cpu = functools.partial(_convolve_in_parts, convolve)
    return lax.platform_dependent(lhs, rhs, cpu=on_cpu, default=convolve)


def product_convolution(
    x: Array,
    kernel: Array,
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    precision: Any = None,
) -> Array:
    """Convolution as a single matrix product of the pixels in each window and the kernel.

    Args:
      x: feature maps `[batch, height, width, channels]`.
      kernel: kernel `[rows, columns, channels, features]`.
      window_strides, padding, precision: see `conv_general_dilated`.
    """
    rows, columns = kernel.shape[:2]
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    batch, height, width, channels = padded.shape
    down, right = window_strides
    if (rows, columns) == (down, right):  # windows do not overlap
        high, wide = height // rows, width // columns
        tiles = padded[:, : high * rows, : wide * columns]
        tiles = tiles.reshape(batch, high, rows, wide, columns, channels).swapaxes(2, 3)
        windows = tiles.reshape(batch, high, wide, -1)
    else:
        shifted = [
            padded[:, row : height - rows + 1 + row : down, column : width - columns + 1 + column : right]
            for row, column in itertools.product(range(rows), range(columns))
        ]
        windows = jnp.concatenate(shifted, -1)
    return jnp.matmul(windows, kernel.reshape(-1, kernel.shape[-1]), precision=precision)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _convolve_in_parts(convolve: Callable[[Array, Array], Array], x: Array, kernel: Array) -> Array:
    """Convolution whose gradient with respect to the kernel is a sum over parts of the batch."""
    return convolve(x, kernel)


def _convolve_in_parts_jvp(
    convolve: Callable[[Array, Array], Array], primals: tuple[Array, Array], tangents: Any
) -> tuple[Array, Array]:
    (x, kernel), (x_tangent, kernel_tangent) = primals, tangents
    y = convolve(x, kernel)
    tangent = jnp.zeros_like(y)
    if not isinstance(x_tangent, SymbolicZero):
        tangent += convolve(x_tangent, kernel)
    if not isinstance(kernel_tangent, SymbolicZero):
        size = max(_PART_SIZE * max(_WIDE // kernel.shape[-1], 1), -(-len(x) // _MAX_PARTS))
        parts = [convolve(x[i : i + size], kernel_tangent) for i in range(0, len(x), size)]
        tangent += jnp.concatenate(parts)
    return y, tangent


_convolve_in_parts.defjvp(_convolve_in_parts_jvp, symbolic_zeros=True)


def max_pool(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch new_height new_width channels"]:
    """Maximum of each 3 x 3 window, with stride 2 and one pixel of padding.

    If several pixels of a window have the maximum value, the first of them receives the gradient, as in
    PyTorch.

    Args:
      x: feature maps.

    Returns:
      The new feature maps.
    """
    return lax.platform_dependent(x, cpu=_gathering_max_pool, default=_plain_max_pool)


def _plain_max_pool(x: Array) -> Array:
    return nn.max_pool(x, (_POOL, _POOL), strides=(2, 2), padding=[(1, 1), (1, 1)])


@jax.custom_jvp
def _gathering_max_pool(x: Array) -> Array:
    """Max-pooling in which pixels gather the gradient, instead of windows scattering it."""
    return _plain_max_pool(x)


@_gathering_max_pool.defjvp
def _gathering_max_pool_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    maxima, argmax = _window_maxima(x)
    to_pixels = functools.partial(_add_to_maxima, argmax, x.shape[1:3])
    return maxima, jax.linear_transpose(to_pixels, maxima)(tangent)[0]


def _window_maxima(x: Array) -> tuple[Array, Array]:
    """Maximum of each window, and the index within the window of the first pixel that has it."""
    rows, columns = ((size + 1) // 2 for size in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=-jnp.inf)
    maxima = jnp.full((len(x), rows, columns, x.shape[3]), -jnp.inf, x.dtype)
    argmax = jnp.zeros(maxima.shape, jnp.int8)
    for row, column in itertools.product(range(_POOL), repeat=2):
        values = padded[:, row : row + 2 * rows - 1 : 2, column : column + 2 * columns - 1 : 2]
        argmax = jnp.where(values > maxima, jnp.int8(_ROW * row + column), argmax)
        maxima = jnp.maximum(maxima, values)
    return maxima, argmax


def _add_to_maxima(argmax: Array, size: tuple[int, ...], values: Array) -> Array:
    """Adds the value of each window to the pixel that has the maximum of the window.

    A pixel is in one, two or four windows. Row R of the padded image is row R % 2 of window R // 2. If R is
    even, it is also row 2 of the preceding window. The same holds for columns.
    """
    rows, columns = (length // 2 + 1 for length in (size[0] + 1, size[1] + 1))
    shape = (len(values), rows, 2, columns, 2, values.shape[-1])
    parity = jnp.arange(2, dtype=argmax.dtype)
    within = (_ROW * parity[:, None] + parity[None, :])[None, None, :, None, :, None]

    def spread(windows: Array, row_back: int, column_back: int, fill: float) -> Array:
        """Broadcasts the value of each pixel's own window, or of a preceding window, to the pixel."""
        pad = ((0, 0), (row_back, 1 - row_back), (column_back, 1 - column_back), (0, 0))
        padded = jnp.pad(windows, pad, constant_values=fill)[:, :rows, None, :columns, None, :]
        return jnp.broadcast_to(padded, shape)

    total = jnp.zeros(shape, values.dtype)
    for row_back, column_back in itertools.product(range(2), repeat=2):
        number = within + jnp.int8(2 * (_ROW * row_back + column_back))
        is_maximum = spread(argmax, row_back, column_back, -1) == number
        total += jnp.where(is_maximum, spread(values, row_back, column_back, 0), 0)
    padded = total.reshape(len(values), 2 * rows, 2 * columns, -1)
    return padded[:, 1 : size[0] + 1, 1 : size[1] + 1]
