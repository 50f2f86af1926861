"""Convolution and max-pooling in forms whose derivatives are fast on CPUs.

`conv_general_dilated` takes the place of `jax.lax.conv_general_dilated` in Flax's `nn.Conv`, and
`max_pool` that of `nn.max_pool`. Both compute what the originals compute. When a program is lowered,
`jax.lax.platform_dependent` selects the forms below for CPUs and JAX's own for all other platforms. No
form defines its own backward pass: JAX transposes a derivative in forward mode, so derivatives of any
order and in both modes work.

tools/benchmarks/convolutions.py times the forms.
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

# A convolution with at most this many output pixels is a product of matrices.
_FEW_PIXELS = 100
# The gradient of other convolutions with respect to the kernel is summed over parts of this many images, or
# more if there are fewer than _WIDE features. The compiled program grows with the number of parts.
_PART, _WIDE, _MOST_PARTS = 4, 64, 16

_POOL = 3  # side of a pooling window, pixels
_ROW = 4  # numbers the pixels of a window: _ROW * row + column; larger than a window is wide


def conv_general_dilated(
    lhs: Float[Array, "batch height width channels"],
    rhs: Float[Array, "rows columns channels features"],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    precision: Any = None,
    **others: Any,
) -> Float[Array, "batch new_height new_width features"]:
    """`jax.lax.conv_general_dilated` as `nn.Conv` calls it for a two-dimensional convolution.

    Args:
      lhs: feature maps.
      rhs: kernel.
      window_strides: of rows and columns.
      padding: pixels added before and after rows and columns.
      precision: of the products.
      others: further arguments from `nn.Conv`, for a convolution without dilation or feature groups.

    Raises:
      NotImplementedError: dilation or feature groups.
    """
    dilations = {*(others.get("lhs_dilation") or (1,)), *(others.get("rhs_dilation") or (1,))}
    if dilations != {1} or others.get("feature_group_count", 1) != 1:
        raise NotImplementedError("a convolution with dilation or feature groups")
    options = {"window_strides": window_strides, "padding": padding, "precision": precision}
    convolve = functools.partial(lax.conv_general_dilated, **options, **others)
    _, height, width, _ = jax.eval_shape(convolve, lhs, rhs).shape
    if rhs.shape[:2] == (1, 1) or height * width <= _FEW_PIXELS:
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
    """A convolution as one product of matrices: the pixels in each window times the kernel.

    Args:
      x: feature maps `[batch, height, width, channels]`.
      kernel: `[rows, columns, channels, features]`.
      window_strides, padding, precision: see `conv_general_dilated`.
    """
    rows, columns = kernel.shape[:2]
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    batch, height, width, channels = padded.shape
    down, right = window_strides
    if (rows, columns) == (down, right):  # windows without overlap
        high, wide = height // rows, width // columns
        tiles = padded[:, : high * rows, : wide * columns]
        tiles = tiles.reshape(batch, high, rows, wide, columns, channels).swapaxes(2, 3)
        windows = tiles.reshape(batch, high, wide, -1)
    else:
        shifted = [
            padded[
                :,
                row : height - rows + 1 + row : down,
                column : width - columns + 1 + column : right,
            ]
            for row, column in itertools.product(range(rows), range(columns))
        ]
        windows = jnp.concatenate(shifted, -1)
    return jnp.matmul(windows, kernel.reshape(-1, kernel.shape[-1]), precision=precision)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _convolve_in_parts(convolve: Callable[[Array, Array], Array], x: Array, kernel: Array) -> Array:
    """A convolution whose gradient with respect to the kernel is a sum over parts of the batch."""
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
        part = max(_PART * max(_WIDE // kernel.shape[-1], 1), -(-len(x) // _MOST_PARTS))
        parts = [convolve(x[at : at + part], kernel_tangent) for at in range(0, len(x), part)]
        tangent += jnp.concatenate(parts)
    return y, tangent


_convolve_in_parts.defjvp(_convolve_in_parts_jvp, symbolic_zeros=True)


def max_pool(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch new_height new_width channels"]:
    """Largest value of each 3 x 3 window, with stride 2 and one pixel of padding.

    If several values in a window are equal, the first one receives the gradient, as in PyTorch.

    Args:
      x: feature maps.
    """
    return lax.platform_dependent(x, cpu=_gathering_max_pool, default=_plain_max_pool)


def _plain_max_pool(x: Array) -> Array:
    return nn.max_pool(x, (_POOL, _POOL), strides=(2, 2), padding=[(1, 1), (1, 1)])


@jax.custom_jvp
def _gathering_max_pool(x: Array) -> Array:
    """A max-pool whose gradient is gathered by each pixel, not scattered by each window."""
    return _plain_max_pool(x)


@_gathering_max_pool.defjvp
def _gathering_max_pool_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    largest, place = _largest(x)
    to_pixels = functools.partial(_to_pixels, place, x.shape[1:3])
    return largest, jax.linear_transpose(to_pixels, largest)(tangent)[0]


def _largest(x: Array) -> tuple[Array, Array]:
    """The largest value of each window, and which pixel of the window it is."""
    rows, columns = ((size + 1) // 2 for size in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=-jnp.inf)
    largest = jnp.full((len(x), rows, columns, x.shape[3]), -jnp.inf, x.dtype)
    place = jnp.zeros(largest.shape, jnp.int8)
    for row, column in itertools.product(range(_POOL), repeat=2):
        values = padded[:, row : row + 2 * rows - 1 : 2, column : column + 2 * columns - 1 : 2]
        place = jnp.where(values > largest, jnp.int8(_ROW * row + column), place)
        largest = jnp.maximum(largest, values)
    return largest, place


def _to_pixels(place: Array, size: tuple[int, ...], values: Array) -> Array:
    """Adds the value of each window to the pixel that is the window's largest.

    A pixel is in one, two or four windows. Row R of the padded image is row R % 2 of window R // 2 and, if
    that is at most 2, row R % 2 + 2 of the window before; columns likewise.
    """
    rows, columns = (length // 2 + 1 for length in (size[0] + 1, size[1] + 1))
    shape = (len(values), rows, 2, columns, 2, values.shape[-1])
    parity = jnp.arange(2, dtype=place.dtype)
    within = (_ROW * parity[:, None] + parity[None, :])[None, None, :, None, :, None]

    def spread(windows: Array, row_back: int, column_back: int, fill: float) -> Array:
        """At each pixel, the window so many before the pixel's own pair of rows and columns."""
        pad = ((0, 0), (row_back, 1 - row_back), (column_back, 1 - column_back), (0, 0))
        padded = jnp.pad(windows, pad, constant_values=fill)[:, :rows, None, :columns, None, :]
        return jnp.broadcast_to(padded, shape)

    total = jnp.zeros(shape, values.dtype)
    for row_back, column_back in itertools.product(range(2), repeat=2):
        here = within + jnp.int8(2 * (_ROW * row_back + column_back))
        chosen = spread(place, row_back, column_back, -1) == here
        total += jnp.where(chosen, spread(values, row_back, column_back, 0), 0)
    padded = total.reshape(len(values), 2 * rows, 2 * columns, -1)
    return padded[:, 1 : size[0] + 1, 1 : size[1] + 1]
