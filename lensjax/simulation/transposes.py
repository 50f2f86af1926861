"""Backward passes whose sums over pixels XLA can vectorize on a CPU.

JAX's own backward pass sums the gradient of each parameter over the image. XLA fuses all computation on
which a sum depends into the loop of that sum, as scalar code. The functions of this module define the
transpose explicitly instead. Forward mode and higher-order derivatives are unaffected.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

Field = tuple[Array, Array]
CHUNK_SIZE = 2_200  # grid points per iteration of the backward pass


def apply_linear(forward: Callable[[Array], Any], transpose: Callable[[Any], Array], operand: Array) -> Any:
    """Applies a linear function whose transpose is given explicitly.

    The result is computed as the solution of `u = operand, v - forward(u) = 0`, because JAX lets the
    caller define the transpose of a linear solve, including under `vmap` and for derivatives of any order.

    Args:
      forward: linear function; may close over arrays.
      transpose: transpose of `forward`.
      operand: argument of `forward`.

    Returns:
      `forward(operand)`.
    """
    # These zeros depend on the operand, because JAX transposes the entire right-hand side.
    zeros = jax.tree.map(
        lambda made: jnp.pad(operand.ravel()[:0], (0, made.size)).reshape(made.shape),
        jax.eval_shape(forward, operand),
    )

    def equations(pair: tuple[Array, Any]) -> tuple[Array, Any]:
        return pair[0], jax.tree.map(jnp.subtract, pair[1], forward(pair[0]))

    def solve(_: Any, pair: tuple[Array, Any]) -> tuple[Array, Any]:
        return pair[0], jax.tree.map(jnp.add, pair[1], forward(pair[0]))

    def transpose_solve(_: Any, pair: tuple[Array, Any]) -> tuple[Array, Any]:
        return pair[0] + transpose(pair[1]), pair[1]

    return lax.custom_linear_solve(equations, (operand, zeros), solve, transpose_solve)[1]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def apply_pointwise(
    function: Callable[[Any, Array, Array], Any],
    parameters: Float[Array, " number"],
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
) -> Any:
    """Evaluates `function(parameters, x, y)`, with a backward pass that loops over chunks of the grid.

    The working set of a chunk stays in the CPU cache. Within a chunk, every point has its own copy of
    the parameters. Their cotangents are accumulated over the chunks and finally summed over the points.
    This is fast if `function` computes only what differs between points, and if parameters that share
    most of the computation of their derivatives are neighbors: the backward pass handles two at a time.

    Args:
      function: acts on each point separately and returns arrays of the shape of `x`; must not close over
        differentiated or batched arrays.
      parameters: parameters that all points share.
      x, y: coordinates of the points.

    Returns:
      `function(parameters, x, y)`.
    """
    return function(parameters, x, y)


def _pointwise_derivative(
    function: Callable[[Any, Array, Array], Any],
    primals: tuple[Array, Array, Array],
    tangents: tuple[Any, Any, Any],
) -> tuple[Any, Any]:
    active = [i for i, each in enumerate(tangents) if not isinstance(each, SymbolicZero)]
    ends = np.cumsum([primals[i].size for i in active])[:-1]

    def function_of_active(*values: Array) -> Any:
        arguments = list(primals)
        for i, value in zip(active, values, strict=True):
            arguments[i] = value
        return function(*arguments)

    def forward(tangent: Array) -> Any:
        at = tuple(primals[i] for i in active)
        parts = zip(jnp.split(tangent, ends), at, strict=True)
        return jax.jvp(function_of_active, at, tuple(part.reshape(one.shape) for part, one in parts))[1]

    def transpose(cotangent: Any) -> Array:
        pulled = _pull_back(function, primals, cotangent, active)
        return jnp.concatenate([pulled[i].ravel() for i in active])

    tangent = jnp.concatenate([tangents[i].ravel() for i in active])
    return function(*primals), apply_linear(forward, transpose, tangent)


apply_pointwise.defjvp(_pointwise_derivative, symbolic_zeros=True)


def _pull_back(
    function: Callable[[Any, Array, Array], Any],
    primals: tuple[Array, Array, Array],
    cotangent: Any,
    active: list[int],
) -> tuple[Array, Array, Array]:
    """Cotangents of the parameters, summed over the grid, and of both coordinates."""
    parameters, x, y = primals
    columns = x.shape[-1] if x.ndim else 1
    rows = x.size // columns
    # Equal chunks of whole rows: XLA does not vectorize index divisions or padding.
    rows_per_chunk = max(
        n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or n * columns <= CHUNK_SIZE)
    )
    shape = (rows_per_chunk, columns)

    number = len(parameters)
    by_point = jax.vmap(jax.vmap(lambda pairs, x, y: function(_unpair(pairs, number), x, y)))
    call = by_point if 0 in active else partial(_ignore_pairs, function, parameters)
    # One array per pair: slices of a single array would be written back into one array, which is slow.
    pairs = [jnp.broadcast_to(one, shape) for one in _pair(parameters)] if 0 in active else []

    def to_rows(image: Array) -> Array:
        return image.reshape(rows, columns)

    fields = (to_rows(x), to_rows(y), jax.tree.map(to_rows, cotangent))

    def add(carry: Any, first: Array) -> tuple[Any, None]:
        totals, whole = carry
        chunk = jax.tree.map(lambda field: lax.dynamic_slice_in_dim(field, first, rows_per_chunk), fields)
        each, *coordinates = jax.vjp(call, pairs, *chunk[:2])[1](chunk[2])
        # Accumulated point by point in the loop that computes them; a sum would need a separate loop.
        totals = [total + one for total, one in zip(totals, each, strict=True)]
        if not {1, 2}.isdisjoint(active):
            whole = [
                lax.dynamic_update_slice_in_dim(field, one, first, 0)
                for field, one in zip(whole, coordinates, strict=True)
            ]
        return (totals, whole), None

    start = [jnp.zeros_like(one) for one in pairs], [jnp.zeros_like(field) for field in fields[:2]]
    (totals, coordinates), _ = lax.scan(add, start, jnp.arange(0, rows, rows_per_chunk))
    by_x, by_y = (field.reshape(x.shape) for field in coordinates)
    if 0 not in active:
        return jnp.zeros_like(parameters), by_x, by_y
    # JAX's derivatives with respect to complex numbers are conjugated.
    sums = [jnp.sum(one.conj() @ jnp.ones(columns, one.dtype)) for one in totals]
    return jnp.stack(_unpair(sums, number)), by_x, by_y


def _ignore_pairs(function: Callable[..., Any], parameters: Array, _: Any, x: Array, y: Array) -> Any:
    return function(parameters, x, y)


def _pair(parameters: Array) -> list[Array]:
    """Pairs of parameters as complex numbers; if their number is odd, the last parameter stays real."""
    paired = len(parameters) // 2 * 2
    return [*lax.complex(parameters[0:paired:2], parameters[1:paired:2]), *parameters[paired:]]


def _unpair(pairs: list[Array], number: int) -> list[Array]:
    return [part for pair in pairs for part in (pair.real, pair.imag)][:number]


def coordinate_tangents(
    function: Callable[[Array, Array], Field], point: tuple[Array, Array], tangents: tuple[Any, Any]
) -> list[Field]:
    """Tangent of a field, given those of its coordinates; an empty list if both are symbolic zeros."""
    if all(isinstance(each, SymbolicZero) for each in tangents):
        return []
    dense = [
        jnp.zeros_like(at) if isinstance(each, SymbolicZero) else each
        for at, each in zip(point, tangents, strict=True)
    ]
    return [jax.jvp(function, point, tuple(dense))[1]]
