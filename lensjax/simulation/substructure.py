"""Deflection of many point masses, in the order of operations that is fastest to render."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lensjax import physics

CORE = 1e-8  # softening inside the root of the distance, arcsec
BLOCK = 13  # masses that are added up without going through memory in between


@jax.custom_jvp
def masses_deflection(
    x: Float[Array, "*grid"], y: Float[Array, "*grid"], masses: Float[Array, "number 3"]
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """What `physics.point_masses_deflection` gives, several times faster on a CPU.

    A loop over the masses reads and writes the whole field for each of them; here a block of masses is
    added up while a pixel is at hand. Much larger blocks, or all else in the renderer beside them, are more
    than XLA's code for a CPU's vector unit can hold. The derivative is that of the loop over the masses.

    Args:
      x, y: image-plane coordinates, arcsec.
      masses: Einstein radius, x and y of each mass, arcsec; Einstein radius 0 adds exactly nothing.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    number = len(masses)
    if number <= BLOCK:
        return _added(jnp.zeros_like(x), jnp.zeros_like(x), x, y, masses)
    blocks = -(-number // BLOCK)
    padded = jnp.pad(masses, ((0, blocks * BLOCK - number), (0, 0)))

    # Both components as one array of complex numbers: XLA computes two arrays in two separate loops.
    def add(total: Array, block: Array) -> tuple[Array, None]:
        return lax.complex(*_added(total.real, total.imag, x, y, block)), None

    total = lax.scan(add, lax.complex(0 * x, 0 * y), padded.reshape(blocks, BLOCK, 3))[0]
    return total.real, total.imag


@masses_deflection.defjvp
def _derivative(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    _, derivative = jax.jvp(physics.point_masses_deflection, primals, tangents)
    return masses_deflection(*primals), derivative


def _added(
    total_x: Array, total_y: Array, x: Array, y: Array, masses: Array
) -> tuple[Array, Array]:
    for theta_E, center_x, center_y in masses:
        dx, dy = x - center_x, y - center_y
        factor = theta_E**2 / (dx**2 + dy**2 + CORE**2)
        total_x, total_y = total_x + factor * dx, total_y + factor * dy
    return total_x, total_y
