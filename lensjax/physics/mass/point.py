"""Point masses, one or many.

Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lensjax.physics.checks import native
from lensjax.physics.mass.softening import CORE, softened_offset
from lensjax.physics.mass.superposition import superpose
from lensjax.physics.types import Grid, Scalar


def point_mass_deflection(
    x: Grid, y: Grid, theta_E: Scalar, *, center_x: Scalar = 0.0, center_y: Scalar = 0.0, core: float = CORE
) -> tuple[Grid, Grid]:
    """Deflection of a point mass: theta_E^2 over the distance, directed away from the mass.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the mass, arcsec.
      core: softening of the distance, arcsec; keeps value and gradient finite at the mass.

    Returns:
      The two deflection components, arcsec.
    """
    dx, dy, square = softened_offset(x, y, center_x, center_y, core)
    # Two divisions by the root, because powers of the square in the derivatives are out of float32's range.
    radius = jnp.sqrt(square)
    return theta_E**2 * (dx / radius / radius), theta_E**2 * (dy / radius / radius)


def point_mass_potential(
    x: Grid, y: Grid, theta_E: Scalar, *, center_x: Scalar = 0.0, center_y: Scalar = 0.0, core: float = CORE
) -> Grid:
    """Potential of a point mass: theta_E^2 times the logarithm of the distance, arcsec^2.

    Arguments as for `point_mass_deflection`.
    """
    return theta_E**2 / 2 * jnp.log(softened_offset(x, y, center_x, center_y, core)[2])


def point_mass_convergence(
    x: Grid, y: Grid, theta_E: Scalar, *, center_x: Scalar = 0.0, center_y: Scalar = 0.0, core: float = CORE
) -> Grid:
    """Convergence of a softened point mass: theta_E^2 core^2 / (r^2 + core^2)^2.

    Its integral over the plane is pi theta_E^2. Arguments as for `point_mass_deflection`.
    """
    # In units of the core, because 1 / square^3 in the gradient is out of float32's range.
    dx, dy, _ = softened_offset(x, y, center_x, center_y, core)
    return ((theta_E / core) / (1 + (dx / core) ** 2 + (dy / core) ** 2)) ** 2


def point_masses_deflection(
    x: Grid, y: Grid, masses: Float[Array, "number 3"], *, core: float = CORE
) -> tuple[Grid, Grid]:
    """Total deflection of many point masses, in constant memory.

    Args:
      x, y: image-plane coordinates, arcsec.
      masses: Einstein radius, x and y of each mass, arcsec. Masses with an Einstein radius of 0 contribute
        exactly 0, so sets of different sizes can be padded to one shape.
      core: softening of the distances, arcsec.

    Returns:
      The two deflection components, arcsec.
    """
    theta_E, center_x, center_y = native(masses).T
    return superpose(point_mass_deflection, x, y, theta_E, center_x=center_x, center_y=center_y, core=core)


def point_masses_potential(x: Grid, y: Grid, masses: Float[Array, "number 3"], *, core: float = CORE) -> Grid:
    """Total potential of many point masses, arcsec^2. Arguments as for `point_masses_deflection`."""
    theta_E, center_x, center_y = native(masses).T
    return superpose(point_mass_potential, x, y, theta_E, center_x=center_x, center_y=center_y, core=core)


def point_masses_convergence(
    x: Grid, y: Grid, masses: Float[Array, "number 3"], *, core: float = CORE
) -> Grid:
    """Total convergence of many point masses.

    It is visible on a grid only if `core` is about a pixel. Arguments as for `point_masses_deflection`.
    """
    theta_E, center_x, center_y = native(masses).T
    return superpose(point_mass_convergence, x, y, theta_E, center_x=center_x, center_y=center_y, core=core)
