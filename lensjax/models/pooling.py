"""The max-pool of a ResNet's stem, with a gradient that is fast on CPUs.

XLA differentiates a max-pool by scattering, one window after another; gathering instead takes less than a
tenth of the time on a CPU.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lensjax.ordered_sums import kept

SIZE = 3
ROW = 4  # more than a window is wide, so that what lies beside one window is in no row of it


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(
    x: Float[Array, "batch height width channels"], axis_name: str | None = None
) -> Float[Array, "batch new_height new_width channels"]:
    """Largest value of each 3 x 3 window, at steps of 2, with one pixel of padding.

    Of equal values in a window the first gets the gradient, as in PyTorch.

    Args:
      x: feature maps.
      axis_name: mapped axis that the batch is divided over; None where it is not divided.
    """
    del axis_name
    return nn.max_pool(x, (SIZE, SIZE), strides=(2, 2), padding=[(1, 1), (1, 1)])


def _forward(x: Array, axis_name: str | None) -> tuple[Array, tuple[Array, Array]]:
    """The result, and for each window the place of its largest value, `ROW` for each row."""
    height, width = x.shape[1:3]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=-jnp.inf)
    best = jnp.full((x.shape[0], rows, columns, x.shape[3]), -jnp.inf, x.dtype)
    place = jnp.zeros(best.shape, jnp.int8)
    for row, column in itertools.product(range(SIZE), repeat=2):
        values = padded[:, row : row + 2 * rows - 1 : 2, column : column + 2 * columns - 1 : 2]
        place = jnp.where(values > best, jnp.int8(ROW * row + column), place)
        best = jnp.maximum(best, values)
    return best, (kept(place, axis_name), x)


def _backward(
    axis_name: str | None, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array]:
    """Each pixel gathers from the windows over it: one, two or four, as its row and column are odd or even.

    Row R of the padded image is row R % 2 of window R // 2 and row R % 2 + 2 of the window before it, where
    that is no more than 2; likewise columns.
    """
    place, x = residuals
    gradient = kept(gradient, axis_name)
    batch, height, width, channels = x.shape
    rows, columns = (size // 2 + 1 for size in (height + 1, width + 1))
    parity = jnp.arange(2, dtype=place.dtype)
    # The place of a pixel in window R // 2 of its row and of its column.
    within = (ROW * parity[:, None] + parity[None, :])[None, None, :, None, :, None]

    def windows(values: Array, row_back: int, column_back: int, fill: float) -> Array:
        """The windows so many before those of each pair of rows and of columns, for all pixels in them."""
        pad = ((0, 0), (row_back, 1 - row_back), (column_back, 1 - column_back), (0, 0))
        padded = jnp.pad(values, pad, constant_values=fill)[:, :rows, None, :columns, None, :]
        return jnp.broadcast_to(padded, (batch, rows, 2, columns, 2, channels))

    total = jnp.zeros((), gradient.dtype)
    for row_back, column_back in itertools.product(range(2), repeat=2):
        chosen = windows(place, row_back, column_back, -1)
        here = chosen == within + jnp.int8(2 * (ROW * row_back + column_back))
        total = total + jnp.where(here, windows(gradient, row_back, column_back, 0), 0)
    padded = total.reshape(batch, 2 * rows, 2 * columns, channels)
    return (padded[:, 1 : height + 1, 1 : width + 1],)


max_pool.defvjp(_forward, _backward)
