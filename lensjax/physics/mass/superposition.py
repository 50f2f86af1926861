"""Sum of a mass profile over many lenses."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.checks import native
from lensjax.physics.types import Grid

LENSES_PER_STEP = 4  # lenses added in one pass over the grid

Field = TypeVar("Field", Array, tuple[Array, Array])


def superpose(
    profile: Callable[..., Field],
    x: Grid,
    y: Grid,
    strength: Float[Array, " lenses"],
    **parameters: ArrayLike | None,
) -> Field:
    """Sum of a profile over many lenses, in constant memory.

    Pass the arguments of the profile, with one value per lens in each array. For example:
    `superpose(pseudo_jaffe_deflection, x, y, sigma0, Ra=0.01, Rs=Rs, center_x=x0, center_y=y0)`.

    Args:
      profile: potential, deflection or convergence of a profile in `lensjax.physics.mass`.
      x, y: image-plane coordinates, arcsec.
      strength: first parameter of the profile, for each lens. Lenses of strength 0 contribute exactly 0, so
        sets of different sizes can be padded to one shape.
      parameters: keyword arguments of the profile; one value per lens, or a scalar shared by all lenses.

    Returns:
      The sum, in the form that the profile returns.
    """
    x, y, strength = native(x), native(y), native(strength)
    per_lens, shared = {}, {}
    for name, value in parameters.items():
        if value is not None and jnp.ndim(value):
            per_lens[name] = jnp.asarray(native(value))
        else:
            shared[name] = value

    def evaluate(lens: tuple[Array, dict[str, Array]]) -> Field:
        return profile(x, y, lens[0], **lens[1], **shared)

    # Recomputing each lens in the backward pass is cheaper than storing all lenses.
    @jax.checkpoint
    def add(total: Field, lens: tuple[Array, dict[str, Array]]) -> tuple[Field, None]:
        return jax.tree.map(jnp.add, total, evaluate(lens)), None

    # Pad with lenses of strength 0 to a whole number of passes. Every lens is then added by the same
    # arithmetic, and padding by the caller leaves the sum bit-identical.
    lenses = jax.tree.map(
        lambda values: jnp.pad(values, (0, -len(values) % LENSES_PER_STEP)), (strength, per_lens)
    )
    one_lens = jax.tree.map(lambda values: jax.ShapeDtypeStruct((), values.dtype), lenses)
    shapes = jax.eval_shape(evaluate, one_lens)
    zero = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    total, _ = lax.scan(add, zero, lenses, unroll=LENSES_PER_STEP)
    return total
