"""Point masses, one or many, and sums of any profile over a table of its parameters.

Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.mass.softening import CORE, offset

AT_ONCE = 4  # rows of a table that are added in one pass over the grid


def point_mass_potential(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Potential of a point mass: theta_E^2 times the logarithm of the distance.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the mass, arcsec.
      core: softening inside the root, arcsec.

    Returns:
      The potential, arcsec^2.
    """
    return theta_E**2 / 2 * jnp.log(offset(x, y, center_x, center_y, core)[2])


def point_mass_deflection(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of a point mass: theta_E^2 over the distance, away from the mass.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec; 0 is no mass at all.
      center_x, center_y: position of the mass, arcsec.
      core: softening inside the root, arcsec; keeps value and gradient finite at the mass.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    dx, dy, square = offset(x, y, center_x, center_y, core)
    # By the root twice: powers of the square, which derivatives have, are out of float32's range.
    radius = jnp.sqrt(square)
    return theta_E**2 * (dx / radius / radius), theta_E**2 * (dy / radius / radius)


def point_mass_convergence(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Convergence of a point mass: nothing but what the softening spreads over a few `core`.

    With `core` c it is theta_E^2 c^2 / (r^2 + c^2)^2, half the Laplacian of `point_mass_potential`.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the mass, arcsec.
      core: softening inside the root, arcsec.

    Returns:
      The convergence, dimensionless; its integral over the plane is pi theta_E^2.
    """
    # In units of the core: 1 / square^3, which the gradient has, is out of float32's range.
    dx, dy, _ = offset(x, y, center_x, center_y, core)
    return ((theta_E / core) / (1 + (dx / core) ** 2 + (dy / core) ** 2)) ** 2


def summed(
    profile: Callable[..., Any],
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    table: Float[Array, "number parameters"],
    **options: float,
) -> Any:
    """Sum of a profile over many lenses, one after another in constant memory.

    `summed(sis_deflection, x, y, table)` with rows (theta_E, x, y), or
    `summed(pseudo_jaffe_deflection, x, y, table)` with rows (sigma0, Ra, Rs, x, y).

    Args:
      profile: a potential, deflection or convergence of this package.
      x, y: image-plane coordinates, arcsec.
      table: in each row the parameters of one lens in the order of the profile's signature, then the x
        and y of its centre, arcsec. Rows of zeros add exactly nothing for every profile whose first
        parameter is its strength, so that sets of different sizes can share one shape.
      options: passed on to the profile, as `core`.

    Returns:
      What the profile returns, summed.
    """

    def one(row: Array) -> Any:
        *parameters, center_x, center_y = row
        return profile(x, y, *parameters, center_x=center_x, center_y=center_y, **options)

    # Recomputing a lens in the gradient is cheaper than keeping all of them.
    @jax.checkpoint
    def add(total: Any, row: Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, one(row)), None

    shapes = jax.eval_shape(one, jax.ShapeDtypeStruct(table.shape[1:], table.dtype))
    nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    # Rows of nothing to a whole number of passes: with the same arithmetic for each row, padding by the
    # caller changes no bit.
    table = jnp.pad(table, ((0, -len(table) % AT_ONCE), (0, 0)))
    total, _ = lax.scan(add, nothing, table, unroll=AT_ONCE)
    return total


def point_masses_potential(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    masses: Float[Array, "number 3"],
    *,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Potential of many point masses together.

    Args:
      x, y: image-plane coordinates, arcsec.
      masses: Einstein radius, x and y of each mass, arcsec; rows of zeros add exactly nothing.
      core: softening inside the root, arcsec.

    Returns:
      The potential, arcsec^2.
    """
    return summed(point_mass_potential, x, y, masses, core=core)


def point_masses_deflection(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    masses: Float[Array, "number 3"],
    *,
    core: float = CORE,
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of many point masses together, one after another in constant memory.

    Args:
      x, y: image-plane coordinates, arcsec.
      masses: Einstein radius, x and y of each mass, arcsec. Rows with Einstein radius 0 add exactly
        nothing, so that sets of different sizes can share one shape.
      core: softening inside the root, arcsec.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    return summed(point_mass_deflection, x, y, masses, core=core)


def point_masses_convergence(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    masses: Float[Array, "number 3"],
    *,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Convergence of many point masses together: give a `core` of a pixel or so to see them.

    Args:
      x, y: image-plane coordinates, arcsec.
      masses: Einstein radius, x and y of each mass, arcsec; rows of zeros add exactly nothing.
      core: softening inside the root, arcsec.

    Returns:
      The convergence, dimensionless.
    """
    return summed(point_mass_convergence, x, y, masses, core=core)
