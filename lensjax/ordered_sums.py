"""Sums over a batch in an order that does not depend on how the batch is laid over devices.

Rounding makes a sum depend on its order, a ReLU or a max-pool makes a jump out of a rounding error, and AdamW
a whole step out of a gradient's sign: two runs that differ in the order of their sums part within ten
steps. On CPUs lensjax therefore adds up the rows of a batch in pairs, pairs of pairs and so on, the same
way on 1, 2, 4 ... devices, so that the number of devices changes as good as nothing
(tools/compare_devices.py). Accelerators reorder sums inside their own kernels; there the plain sum is
taken.

It holds where the devices have equally many rows, a power of two, from `PART` to `PART * MAX_PARTS`. XLA
still chooses how to round a product that it fuses into a sum, which is why sums over pixels and tokens
are written here as products with ones or as sums of pairs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

PyTree = Any

# A layer's gradient is summed by the layer's own kernel over so many rows, and in pairs over these parts,
PART = 8
# of which there are at most so many: the compiled program grows with their number.
MAX_PARTS = 16
# Of larger batches no order is kept, and parts are those that the layer is quickest with, at most so many.
MAX_QUICK_PARTS = 64


def is_ordered() -> bool:
    """Whether sums keep to the order: on CPUs."""
    return jax.default_backend() == "cpu"


def pairwise_sum(rows: Float[Array, "rows *shape"]) -> Float[Array, "*shape"]:
    """Sum over the rows: of neighbours, then of neighbouring sums, and so on.

    Args:
      rows: what to add up; at least one.
    """
    while rows.shape[0] > 1:
        paired = rows.shape[0] // 2 * 2
        rows = jnp.concatenate([rows[0:paired:2] + rows[1:paired:2], rows[paired:]])
    return rows[0]


def batch_sum(rows: Float[Array, "batch *shape"]) -> Float[Array, "*shape"]:
    """Sum over the rows of this device's share of a batch."""
    return pairwise_sum(rows) if is_ordered() else rows.sum(0)


def pixel_sum(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch channels"]:
    """Sum over the pixels of each image."""
    if not is_ordered():
        return x.sum((1, 2))
    if x.shape[3] == 1:
        return last_sum(x.reshape(x.shape[0], -1))
    # XLA's own sum over a whole image is split in a way that depends on how many images there are.
    return pairwise_sum(jnp.moveaxis(x.sum(2), 1, 0))


def last_sum(x: Float[Array, "*rows last"]) -> Float[Array, "*rows 1"]:
    """Sum over the last axis."""
    if not is_ordered():
        return x.sum(-1, keepdims=True)
    return x @ jnp.ones((x.shape[-1], 1), x.dtype)


def on_each_row(values: Float[Array, " last"], like: Array) -> Array:
    """The values along the last axis of an array like that one, the same everywhere else."""
    if not is_ordered():
        return jnp.broadcast_to(values, like.shape[:-1] + values.shape)
    return jnp.ones((*like.shape[:-1], 1), values.dtype) @ values[None, :]


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def per_pixel(
    values: Float[Array, " batch"], height: int, width: int
) -> Float[Array, "batch height width 1"]:
    """One number an image, at each of its pixels; the gradient's sum over them is `pixel_sum`."""
    return jnp.broadcast_to(values[:, None, None, None], (values.shape[0], height, width, 1))


def _per_pixel_forward(values: Array, height: int, width: int) -> tuple[Array, None]:
    return per_pixel(values, height, width), None


def _per_pixel_backward(height: int, width: int, residuals: None, gradient: Array) -> tuple[Array]:
    del height, width, residuals
    return (pixel_sum(gradient)[:, 0],)


per_pixel.defvjp(_per_pixel_forward, _per_pixel_backward)


def device_sum(values: PyTree, axis_name: str | None) -> PyTree:
    """Sum over devices of each array of a tree.

    Args:
      values: this device's arrays.
      axis_name: mapped axis that the batch is divided over; None where it is not divided.
    """
    if axis_name is None:
        return values
    if is_ordered():
        total = jax.tree.map(pairwise_sum, lax.all_gather(values, axis_name))
        # XLA would fuse the sum, which has another form on each number of devices, into what uses it, and
        # round that differently.
        return kept(total, axis_name)
    return lax.psum(values, axis_name)


def kept(values: PyTree, axis_name: str | None) -> PyTree:
    """The same values, which XLA is to compute once and keep instead of anew in each loop that uses them.

    On CPUs it drops optimisation barriers before it fuses; an exchange of each device with itself ends the
    fusion. Accelerators fuse better than that.

    Args:
      values: this device's arrays.
      axis_name: mapped axis that the batch is divided over; where it is None nothing is done.
    """
    if axis_name is None or not is_ordered():
        return values
    itself = [(index, index) for index in range(lax.axis_size(axis_name))]
    return lax.ppermute(values, axis_name, itself)


RowFunction = Callable[[PyTree, PyTree], PyTree]


def row_by_row(
    function: RowFunction,
    params: PyTree,
    x: PyTree,
    *,
    quickest: int | None = None,
    pulled_back: RowFunction | None = None,
) -> PyTree:
    """`function(params, x)`, with the gradient of the parameters summed over the batch in order.

    Args:
      function: acts on each row by itself, the same on all.
      params: what all rows share.
      x: arrays with one row an example, as the result's are.
      quickest: the number of rows, a power of two, that a kernel sums that gradient over in the least time a
        row; None where it makes no difference.
      pulled_back: the same function in the form whose gradient in the parameters is quicker.
    """
    return _row_by_row(function, quickest, pulled_back or function, params, x)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _row_by_row(
    function: RowFunction, quickest: int | None, pulled_back: RowFunction, params: PyTree, x: PyTree
) -> PyTree:
    del quickest, pulled_back
    return function(params, x)


def _forward(
    function: RowFunction, quickest: int | None, pulled_back: RowFunction, params: PyTree, x: PyTree
) -> tuple[PyTree, tuple[PyTree, PyTree]]:
    del quickest, pulled_back
    return function(params, x), (params, x)


def _backward(
    function: RowFunction,
    quickest: int | None,
    pulled_back: RowFunction,
    residuals: tuple[PyTree, PyTree],
    gradient: PyTree,
) -> tuple[PyTree, PyTree]:
    params, x = residuals
    batch = jax.tree.leaves(x)[0].shape[0]

    def of_some(start: int, size: int) -> PyTree:
        """The parameters' gradient from some of the rows."""
        rows, given = jax.tree.map(lambda leaf: leaf[start : start + size], (x, gradient))
        _, pullback = jax.vjp(lambda params: pulled_back(params, rows), params)
        return pullback(given)[0]

    _, pullback = jax.vjp(lambda x: function(params, x), x)
    size = _rows_at_once(batch, quickest)
    parts = [of_some(start, size) for start in range(0, batch, size)]
    total = jax.tree.map(lambda *leaves: pairwise_sum(jnp.stack(leaves)), *parts)
    return total, pullback(gradient)[0]


_row_by_row.defvjp(_forward, _backward)


def _rows_at_once(batch: int, quickest: int | None) -> int:
    if not is_ordered():
        return batch
    if batch <= PART * MAX_PARTS:
        return min(quickest or PART, PART)
    return batch if quickest is None else max(quickest, -(-batch // MAX_QUICK_PARTS))
