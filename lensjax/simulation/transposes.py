"""Gradients that are added up over pixels in a way that a CPU's vector unit can do.

Left to JAX, each parameter's gradient is a sum over the image into which XLA fuses all that the sum is
made of, once for each parameter, as scalar code. Here the way back is written out, and forward mode, and
derivatives of any order, stay what they are.
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
PART = 2_200  # points of the grid at a time


def linear(forward: Callable[[Array], Any], transpose: Callable[[Any], Array], given: Array) -> Any:
    """A linear function of an array, `forward(given)`, with its transpose given and not derived.

    It is the solution of the equations `u = given, v - forward(u) = 0`, since JAX takes the transpose
    of the solution of linear equations from the caller, under `vmap` and at any order too.

    Args:
      forward: linear; may close over what it likes.
      transpose: its transpose.
      given: what it is applied to.
    """
    # No more than zeros, but such as depend on what is given: JAX transposes all of a right-hand side.
    zeros = jax.tree.map(
        lambda made: jnp.pad(given.ravel()[:0], (0, made.size)).reshape(made.shape),
        jax.eval_shape(forward, given),
    )

    def equations(pair: tuple[Array, Any]) -> tuple[Array, Any]:
        return pair[0], jax.tree.map(jnp.subtract, pair[1], forward(pair[0]))

    def solve(_: Any, pair: tuple[Array, Any]) -> tuple[Array, Any]:
        return pair[0], jax.tree.map(jnp.add, pair[1], forward(pair[0]))

    def transpose_solve(_: Any, pair: tuple[Array, Any]) -> tuple[Array, Any]:
        return pair[0] + transpose(pair[1]), pair[1]

    return lax.custom_linear_solve(equations, (given, zeros), solve, transpose_solve)[1]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def pointwise(
    function: Callable[[Any, Array, Array], Any],
    parameters: Float[Array, " number"],
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
) -> Any:
    """`function(parameters, x, y)`, with a gradient that takes a part of the grid at a time.

    What belongs to a part stays in the cache. There each point has parameters of its own, whose
    derivatives are added to those at the same place of the parts before, and at the end over the places.
    It is quick where `function` does at each point only what differs between points, and where
    parameters that share most of their derivatives are neighbours: two at a time go through one loop.

    Args:
      function: acts on each point by itself, of whose shape its results are; closes over nothing that is
        differentiated or batched.
      parameters: the same for all points.
      x, y: coordinates of the points.
    """
    return function(parameters, x, y)


def _pointwise_derivative(
    function: Callable[[Any, Array, Array], Any],
    primals: tuple[Array, Array, Array],
    tangents: tuple[Any, Any, Any],
) -> tuple[Any, Any]:
    moving = [i for i, each in enumerate(tangents) if not isinstance(each, SymbolicZero)]
    ends = np.cumsum([primals[i].size for i in moving])[:-1]

    def moved(*values: Array) -> Any:
        arguments = list(primals)
        for i, value in zip(moving, values, strict=True):
            arguments[i] = value
        return function(*arguments)

    def forward(given: Array) -> Any:
        at = tuple(primals[i] for i in moving)
        parts = zip(jnp.split(given, ends), at, strict=True)
        return jax.jvp(moved, at, tuple(part.reshape(one.shape) for part, one in parts))[1]

    def transpose(given: Any) -> Array:
        pulled = _pulled(function, primals, given, moving)
        return jnp.concatenate([pulled[i].ravel() for i in moving])

    given = jnp.concatenate([tangents[i].ravel() for i in moving])
    return function(*primals), linear(forward, transpose, given)


pointwise.defjvp(_pointwise_derivative, symbolic_zeros=True)


def _pulled(
    function: Callable[[Any, Array, Array], Any],
    primals: tuple[Array, Array, Array],
    given: Any,
    moving: list[int],
) -> tuple[Array, Array, Array]:
    """The derivatives of the function times what is given: in parameters, summed, and coordinates."""
    parameters, x, y = primals
    columns = x.shape[-1] if x.ndim else 1
    rows = x.size // columns
    # Whole rows and equal parts: indices that have to be divided, or padding, would not be vectorised.
    at_once = max(
        n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or n * columns <= PART)
    )
    shape = (at_once, columns)

    number = len(parameters)
    by_point = jax.vmap(jax.vmap(lambda pairs, x, y: function(_apart(pairs, number), x, y)))
    call = by_point if 0 in moving else partial(_held, function, parameters)
    # Each pair as an array of its own: parts of one array come back as one, which is slow to fill.
    pairs = [jnp.broadcast_to(one, shape) for one in _in_pairs(parameters)] if 0 in moving else []

    def in_rows(image: Array) -> Array:
        return image.reshape(rows, columns)

    fields = (in_rows(x), in_rows(y), jax.tree.map(in_rows, given))

    def add(carry: Any, first: Array) -> tuple[Any, None]:
        totals, whole = carry
        part = jax.tree.map(lambda field: lax.dynamic_slice_in_dim(field, first, at_once), fields)
        each, *coordinates = jax.vjp(call, pairs, *part[:2])[1](part[2])
        # Point by point, in the loop that computes them: sums over points would need one of their own.
        totals = [total + one for total, one in zip(totals, each, strict=True)]
        if not {1, 2}.isdisjoint(moving):
            whole = [
                lax.dynamic_update_slice_in_dim(field, one, first, 0)
                for field, one in zip(whole, coordinates, strict=True)
            ]
        return (totals, whole), None

    start = [jnp.zeros_like(one) for one in pairs], [jnp.zeros_like(field) for field in fields[:2]]
    (totals, coordinates), _ = lax.scan(add, start, jnp.arange(0, rows, at_once))
    by_x, by_y = (field.reshape(x.shape) for field in coordinates)
    if 0 not in moving:
        return jnp.zeros_like(parameters), by_x, by_y
    # The conjugate, as JAX's derivatives in complex numbers are.
    sums = [jnp.sum(one.conj() @ jnp.ones(columns, one.dtype)) for one in totals]
    return jnp.stack(_apart(sums, number)), by_x, by_y


def _held(function: Callable[..., Any], parameters: Array, _: Any, x: Array, y: Array) -> Any:
    return function(parameters, x, y)


def _in_pairs(parameters: Array) -> list[Array]:
    """Two parameters as one complex number, and a last one that has no neighbour."""
    paired = len(parameters) // 2 * 2
    return [*lax.complex(parameters[0:paired:2], parameters[1:paired:2]), *parameters[paired:]]


def _apart(pairs: list[Array], number: int) -> list[Array]:
    return [part for pair in pairs for part in (pair.real, pair.imag)][:number]


def by_coordinates(
    function: Callable[[Array, Array], Field], point: tuple[Array, Array], tangents: tuple[Any, Any]
) -> list[Field]:
    """The tangent of a field for those of its coordinates; nothing where neither has one."""
    if all(isinstance(each, SymbolicZero) for each in tangents):
        return []
    moving = [
        jnp.zeros_like(at) if isinstance(each, SymbolicZero) else each
        for at, each in zip(point, tangents, strict=True)
    ]
    return [jax.jvp(function, point, tuple(moving))[1]]
