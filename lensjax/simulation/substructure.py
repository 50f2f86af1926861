"""Deflection of many point masses, in the order of operations that is fastest to render."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lensjax import physics

CORE = 1e-8  # softening inside the root of the distance, arcsec
BLOCK = 13  # masses that are added up without going through memory in between


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
    code for a CPU's vector unit can hold. The derivative is that of the loop over single masses.

    Args:
      alpha_x, alpha_y: deflection without the masses, arcsec.
      x, y: image-plane coordinates, arcsec.
      masses: Einstein radius, x and y of each mass, arcsec; Einstein radius 0 adds exactly nothing.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    blocks = max(2, -(-len(masses) // BLOCK))
    size = max(1, -(-len(masses) // blocks))
    padded = jnp.pad(masses, ((0, blocks * size - len(masses)), (0, 0)))

    # Both components as one array of complex numbers: XLA computes two arrays in two separate loops.
    def add(total: Array, block: Array) -> tuple[Array, None]:
        return lax.complex(*_added(total.real, total.imag, x, y, block)), None

    total = lax.scan(add, lax.complex(alpha_x, alpha_y), padded.reshape(blocks, size, 3))[0]
    return total.real, total.imag


@with_masses.defjvp
def _derivative(
    primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    _, (by_x, by_y) = jax.jvp(physics.point_masses_deflection, primals[2:], tangents[2:])
    return with_masses(*primals), (tangents[0] + by_x, tangents[1] + by_y)


def _added(
    total_x: Array, total_y: Array, x: Array, y: Array, masses: Array
) -> tuple[Array, Array]:
    for theta_E, center_x, center_y in masses:
        dx, dy = x - center_x, y - center_y
        factor = theta_E**2 / (dx**2 + dy**2 + CORE**2)
        total_x, total_y = total_x + factor * dx, total_y + factor * dy
    return total_x, total_y
