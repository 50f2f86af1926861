"""Mass profiles: lensing potential, deflection and convergence.

All lengths are arcsec, potentials arcsec^2, convergence is in units of the critical surface density.
`core` softens the centre of a singular profile inside the root of the radius, so that value and gradient
stay finite there; its default is below what float32 coordinates tell apart.

Reference for all profiles: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

CORE = 1e-8


def _radius(x: Array, y: Array, core: float) -> Array:
    return jnp.sqrt(x**2 + y**2 + core**2)


def sis_potential(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Potential of a singular isothermal sphere: theta_E times the distance from its centre.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the lens, arcsec.
      core: softening inside the root, arcsec.

    Returns:
      The potential, arcsec^2.
    """
    return theta_E * _radius(x - center_x, y - center_y, core)


def sis_deflection(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of a singular isothermal sphere: theta_E times the unit vector from its centre.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the lens, arcsec.
      core: softening inside the root, arcsec; keeps value and gradient finite at the centre.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    dx, dy = x - center_x, y - center_y
    radius = _radius(dx, dy, core)
    return theta_E * (dx / radius), theta_E * (dy / radius)


def sis_convergence(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Convergence of a singular isothermal sphere: theta_E over twice the distance from its centre.

    With the softening it is half the Laplacian of `sis_potential`, at any distance.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the lens, arcsec.
      core: softening inside the root, arcsec; the convergence at the centre is theta_E / core.

    Returns:
      The convergence, dimensionless.
    """
    radius = _radius(x - center_x, y - center_y, core)
    return theta_E / (2 * radius) * (1 + (core / radius) ** 2)


def shear_potential(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    gamma1: Float[ArrayLike, ""],
    gamma2: Float[ArrayLike, ""],
) -> Float[Array, "*grid"]:
    """Potential of an external shear about the origin.

    Args:
      x, y: image-plane coordinates, arcsec.
      gamma1, gamma2: the shear's components, dimensionless; positive gamma1 stretches images along x.

    Returns:
      The potential, arcsec^2.
    """
    return gamma1 * (x**2 - y**2) / 2 + gamma2 * (x * y)


def shear_deflection(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    gamma1: Float[ArrayLike, ""],
    gamma2: Float[ArrayLike, ""],
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of an external shear about the origin.

    Args:
      x, y: image-plane coordinates, arcsec.
      gamma1, gamma2: the shear's components, dimensionless; positive gamma1 stretches images along x.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


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
    dx, dy = x - center_x, y - center_y
    return theta_E**2 * jnp.log(_radius(dx, dy, core))


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
    dx, dy = x - center_x, y - center_y
    factor = theta_E**2 / (dx**2 + dy**2 + core**2)
    return factor * dx, factor * dy


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

    # Recomputing a mass's deflection in the gradient is cheaper than keeping all of them.
    @jax.checkpoint
    def add(total: tuple[Array, Array], mass: Array) -> tuple[tuple[Array, Array], None]:
        alpha_x, alpha_y = point_mass_deflection(
            x, y, mass[0], center_x=mass[1], center_y=mass[2], core=core
        )
        return (total[0] + alpha_x, total[1] + alpha_y), None

    total, _ = lax.scan(add, (jnp.zeros_like(x), jnp.zeros_like(y)), masses)
    return total
