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
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

Field = tuple[Array, Array]


def linear(
    forward: Callable[[Array], Any], transpose: Callable[[Any], Array], given: Array
) -> Any:
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
def field(
    function: Callable[[Array, Array, Array], Field],
    parameters: Float[Array, " number"],
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """`function(parameters, x, y)`, a field of two components, with a fast gradient in its parameters.

    Args:
      function: acts on each point by itself; closes over nothing that is differentiated or batched.
      parameters: neighbours should have most of their derivative in common: they are computed in pairs.
      x, y: coordinates of the points.
    """
    return function(parameters, x, y)


def _field_derivative(
    function: Callable[[Array, Array, Array], Field],
    primals: tuple[Array, Array, Array],
    tangents: tuple[Any, Any, Any],
) -> tuple[Field, Field]:
    parameters, x, y = primals

    def along(direction: Array) -> Field:
        return jax.jvp(lambda p: function(p, x, y), (parameters,), (direction,))[1]

    def transpose(given: Field) -> Array:
        def one(index: int) -> Array:
            # Differentiated in this parameter alone, so that nothing is multiplied by zeros.
            def moved(value: Array) -> Field:
                return function(parameters.at[index].set(value), x, y)

            by_x, by_y = jax.jvp(moved, (parameters[index],), (jnp.ones((), x.dtype),))[1]
            return given[0] * by_x + given[1] * by_y

        return summed([one(index) for index in range(parameters.size)])

    parts = []
    if not isinstance(tangents[0], SymbolicZero):
        parts.append(linear(along, transpose, tangents[0]))
    parts += by_coordinates(lambda x, y: function(parameters, x, y), (x, y), tangents[1:])
    return function(parameters, x, y), jax.tree.map(lambda *each: sum(each), *parts)


field.defjvp(_field_derivative, symbolic_zeros=True)


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


def summed(images: list[Array]) -> Float[Array, " number"]:
    """The sum of each image. Two at a time, as complex numbers: XLA computes two arrays in two loops."""
    pairs = zip(images[::2], images[1::2], strict=False)
    totals = [lax.complex(*pair).sum() for pair in pairs]
    parts = [part for total in totals for part in (total.real, total.imag)]
    return jnp.stack(parts + [images[-1].sum()] * (len(images) % 2))
