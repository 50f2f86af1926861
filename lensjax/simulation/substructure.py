"""Deflection of many point masses, ordered for fast rendering."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from lensjax import physics
from lensjax.simulation.transposes import Field, apply_linear, coordinate_tangents

CORE = 1e-8  # softening length, arcsec
BLOCK_SIZE = 13  # masses summed without a round trip through memory
# Backward pass: masses per block, and pixels summed without a round trip through memory.
GRADIENT_BLOCK_SIZE, GRADIENT_PIXELS = 25, 10


def masses_deflection(
    x: Float[Array, "*grid"], y: Float[Array, "*grid"], masses: Float[Array, "number 3"]
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Computes `physics.point_masses_deflection` several times faster on a CPU.

    Args:
      x, y: image-plane coordinates, arcsec.
      masses: Einstein radius, x and y of each mass, arcsec; masses with an Einstein radius of 0 add
        exactly 0.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    return add_mass_deflections(jnp.zeros_like(x), jnp.zeros_like(y), x, y, masses)


@jax.custom_jvp
def add_mass_deflections(
    alpha_x: Float[Array, "*grid"],
    alpha_y: Float[Array, "*grid"],
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    masses: Float[Array, "number 3"],
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Adds the deflection of point masses to a deflection field.

    A loop over single masses would read and write the whole field once per mass; this function adds
    a block of masses per pass. It always uses at least two blocks, hence a loop, because XLA does not
    fuse loops with the code around them. Fused with the rest of a renderer, the code would be too
    large for XLA to vectorize on a CPU. The derivative is that of `physics.point_masses_deflection`.

    Args:
      alpha_x, alpha_y: deflection without the masses, arcsec.
      x, y: image-plane coordinates, arcsec.
      masses: as for `masses_deflection`.

    Returns:
      The two components of the total deflection, arcsec.
    """
    if not len(masses):
        return alpha_x, alpha_y

    # One complex array holds both components: XLA would compute two arrays in two separate loops.
    def add(total: Array, block: Array) -> tuple[Array, None]:
        return lax.complex(*_add_block(total.real, total.imag, x, y, block)), None

    total = lax.scan(add, lax.complex(alpha_x, alpha_y), _split_into_blocks(masses, BLOCK_SIZE))[0]
    return total.real, total.imag


def _derivative(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Field, Field]:
    _, _, x, y, masses = primals
    parts = [tuple(jnp.zeros_like(x) if isinstance(each, SymbolicZero) else each for each in tangents[:2])]

    def forward(masses_tangent: Array) -> Field:
        plain = physics.point_masses_deflection
        return jax.jvp(lambda masses: plain(x, y, masses), (masses,), (masses_tangent,))[1]

    def transpose(cotangent: Field) -> Array:
        return _mass_cotangents(x, y, masses, *cotangent)

    if not isinstance(tangents[4], SymbolicZero):
        parts.append(apply_linear(forward, transpose, tangents[4]))
    parts += coordinate_tangents(
        lambda x, y: physics.point_masses_deflection(x, y, masses), (x, y), tangents[2:4]
    )
    return add_mass_deflections(*primals), jax.tree.map(lambda *each: sum(each), *parts)


add_mass_deflections.defjvp(_derivative, symbolic_zeros=True)


def _mass_cotangents(
    x: Array, y: Array, masses: Array, cotangent_x: Array, cotangent_y: Array
) -> Float[Array, "number 3"]:
    """Cotangents of the masses, summed over the grid, given the cotangents of the deflection."""
    width = -(-x.size // GRADIENT_PIXELS)

    def to_rows(image: Array) -> Array:
        padded = jnp.pad(image.ravel(), (0, GRADIENT_PIXELS * width - x.size))
        return padded.reshape(GRADIENT_PIXELS, 1, width)

    rows = [to_rows(image) for image in (x, y, cotangent_x, cotangent_y)]

    def one_block(_: None, block: Array) -> tuple[None, Array]:
        theta_E, center_x, center_y = block.T[:, :, None]
        strength = along_x = along_y = jnp.zeros((len(block), width), x.dtype)
        for x_row, y_row, g_x, g_y in zip(*rows, strict=True):
            dx, dy = x_row - center_x, y_row - center_y
            square = dx**2 + dy**2 + CORE**2
            radial = g_x * dx + g_y * dy
            # A separate division, because XLA would write a shared inverse of all pixels to memory.
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
    blocks = _split_into_blocks(masses, GRADIENT_BLOCK_SIZE)
    return lax.scan(one_block, None, blocks)[1].reshape(-1, 3)[: len(masses)]


def _split_into_blocks(masses: Array, max_size: int) -> Float[Array, "blocks size 3"]:
    """At least two blocks of at most `max_size` masses, padded with zeros."""
    blocks = max(2, -(-len(masses) // max_size))
    size = -(-len(masses) // blocks)
    return jnp.pad(masses, ((0, blocks * size - len(masses)), (0, 0))).reshape(blocks, size, 3)


def _add_block(total_x: Array, total_y: Array, x: Array, y: Array, masses: Array) -> tuple[Array, Array]:
    for theta_E, center_x, center_y in masses:
        dx, dy = x - center_x, y - center_y
        factor = theta_E**2 / (dx**2 + dy**2 + CORE**2)
        total_x, total_y = total_x + factor * dx, total_y + factor * dy
    return total_x, total_y
