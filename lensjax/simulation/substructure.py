"""Deflection of many point masses, in the order of operations that is fastest to render."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from lensjax import physics
from lensjax.simulation.transposes import Field, by_coordinates, linear

CORE = 1e-8  # softening inside the root of the distance, arcsec
BLOCK = 13  # masses that are added up without going through memory in between
# In the gradient: masses at a time, and pixels that are added up without going through memory.
GRADIENT_BLOCK, GRADIENT_PIXELS = 25, 10


def masses_deflection(
    x: Float[Array, "*grid"], y: Float[Array, "*grid"], masses: Float[Array, "number 3"]
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """What `physics.point_masses_deflection` gives, several times faster on a CPU.

    Args:
      x, y: image-plane coordinates, arcsec.
      masses: Einstein radius, x and y of each mass, arcsec; Einstein radius 0 adds exactly nothing.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    return with_masses(jnp.zeros_like(x), jnp.zeros_like(y), x, y, masses)


@jax.custom_jvp
def with_masses(
    alpha_x: Float[Array, "*grid"],
    alpha_y: Float[Array, "*grid"],
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    masses: Float[Array, "number 3"],
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """A deflection with that of point masses added to it.

    A loop over the masses reads and writes the whole field for each of them; here a block of masses is
    added up while a pixel is at hand. There are always two blocks or more: XLA merges no loop with what
    is computed before and after it, and merged with the rest of a renderer this would be more than its
    code for a CPU's vector unit can hold. The derivative is that of `physics.point_masses_deflection`.

    Args:
      alpha_x, alpha_y: deflection without the masses, arcsec.
      x, y: image-plane coordinates, arcsec.
      masses: Einstein radius, x and y of each mass, arcsec; Einstein radius 0 adds exactly nothing.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    if not len(masses):
        return alpha_x, alpha_y

    # Both components as one array of complex numbers: XLA computes two arrays in two separate loops.
    def add(total: Array, block: Array) -> tuple[Array, None]:
        return lax.complex(*_added(total.real, total.imag, x, y, block)), None

    total = lax.scan(add, lax.complex(alpha_x, alpha_y), _in_blocks(masses, BLOCK))[0]
    return total.real, total.imag


def _derivative(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Field, Field]:
    _, _, x, y, masses = primals
    parts = [
        tuple(
            jnp.zeros_like(x) if isinstance(each, SymbolicZero) else each for each in tangents[:2]
        )
    ]

    def forward(moved: Array) -> Field:
        plain = physics.point_masses_deflection
        return jax.jvp(lambda masses: plain(x, y, masses), (masses,), (moved,))[1]

    def transpose(given: Field) -> Array:
        return _by_masses(x, y, masses, *given)

    if not isinstance(tangents[4], SymbolicZero):
        parts.append(linear(forward, transpose, tangents[4]))
    parts += by_coordinates(
        lambda x, y: physics.point_masses_deflection(x, y, masses), (x, y), tangents[2:4]
    )
    return with_masses(*primals), jax.tree.map(lambda *each: sum(each), *parts)


with_masses.defjvp(_derivative, symbolic_zeros=True)


def _by_masses(
    x: Array, y: Array, masses: Array, given_x: Array, given_y: Array
) -> Float[Array, "number 3"]:
    """The derivative, in each mass, of the deflections times what is given, summed over the grid."""
    width = -(-x.size // GRADIENT_PIXELS)

    def in_rows(image: Array) -> Array:
        padded = jnp.pad(image.ravel(), (0, GRADIENT_PIXELS * width - x.size))
        return padded.reshape(GRADIENT_PIXELS, 1, width)

    rows = [in_rows(image) for image in (x, y, given_x, given_y)]

    def one_block(_: None, block: Array) -> tuple[None, Array]:
        theta_E, center_x, center_y = block.T[:, :, None]
        strength = along_x = along_y = jnp.zeros((len(block), width), x.dtype)
        for x_row, y_row, g_x, g_y in zip(*rows, strict=True):
            dx, dy = x_row - center_x, y_row - center_y
            square = dx**2 + dy**2 + CORE**2
            radial = g_x * dx + g_y * dy
            # A division of its own: XLA would write the inverse of all pixels to memory for both sums.
            strength = strength + radial / square
            inverse = 1 / square
            twice = 2 * radial * inverse
            along_x = along_x + inverse * (twice * dx - g_x)
            along_y = along_y + inverse * (twice * dy - g_y)
        center = lax.complex(along_x, along_y) @ jnp.ones(width, jnp.result_type(x, 1j))
        parts = [
            2 * (strength @ jnp.ones(width, x.dtype)),
            theta_E[:, 0] * center.real,
            theta_E[:, 0] * center.imag,
        ]
        return None, theta_E * jnp.stack(parts, 1)

    if not len(masses):
        return jnp.zeros_like(masses)
    blocks = _in_blocks(masses, GRADIENT_BLOCK)
    return lax.scan(one_block, None, blocks)[1].reshape(-1, 3)[: len(masses)]


def _in_blocks(masses: Array, most: int) -> Float[Array, "blocks size 3"]:
    """Two blocks or more of at most so many masses, the last one padded with masses of nothing."""
    blocks = max(2, -(-len(masses) // most))
    size = -(-len(masses) // blocks)
    return jnp.pad(masses, ((0, blocks * size - len(masses)), (0, 0))).reshape(blocks, size, 3)


def _added(
    total_x: Array, total_y: Array, x: Array, y: Array, masses: Array
) -> tuple[Array, Array]:
    for theta_E, center_x, center_y in masses:
        dx, dy = x - center_x, y - center_y
        factor = theta_E**2 / (dx**2 + dy**2 + CORE**2)
        total_x, total_y = total_x + factor * dx, total_y + factor * dy
    return total_x, total_y
