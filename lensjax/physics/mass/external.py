"""External shear and mass sheet: the tidal field and convergence of the environment of the lens."""

import jax.numpy as jnp

from lensjax.physics.types import Grid, Scalar


def external_shear_deflection(x: Grid, y: Grid, gamma1: Scalar, gamma2: Scalar) -> tuple[Grid, Grid]:
    """Deflection of an external shear about the origin.

    Args:
      x, y: image-plane coordinates, arcsec.
      gamma1, gamma2: shear components, dimensionless; positive gamma1 stretches images along x.

    Returns:
      The two deflection components, arcsec.
    """
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


def external_shear_potential(x: Grid, y: Grid, gamma1: Scalar, gamma2: Scalar) -> Grid:
    """Potential of an external shear, arcsec^2. Arguments as for `external_shear_deflection`."""
    return gamma1 * (x**2 - y**2) / 2 + gamma2 * (x * y)


def external_shear_convergence(x: Grid, y: Grid, gamma1: Scalar, gamma2: Scalar) -> Grid:
    """Convergence of an external shear: zero. Arguments as for `external_shear_deflection`."""
    return jnp.zeros_like(x) * (gamma1 + gamma2)


def mass_sheet_deflection(
    x: Grid, y: Grid, kappa: Scalar, *, center_x: Scalar = 0.0, center_y: Scalar = 0.0
) -> tuple[Grid, Grid]:
    """Deflection of a mass sheet with constant convergence; lenstronomy's CONVERGENCE.

    Args:
      x, y: image-plane coordinates, arcsec.
      kappa: convergence, dimensionless.
      center_x, center_y: point of zero deflection, arcsec; lenstronomy's ra_0 and dec_0.

    Returns:
      The two deflection components, arcsec.
    """
    return kappa * (x - center_x), kappa * (y - center_y)


def mass_sheet_potential(
    x: Grid, y: Grid, kappa: Scalar, *, center_x: Scalar = 0.0, center_y: Scalar = 0.0
) -> Grid:
    """Potential of a mass sheet, arcsec^2. Arguments as for `mass_sheet_deflection`."""
    return kappa / 2 * ((x - center_x) ** 2 + (y - center_y) ** 2)


def mass_sheet_convergence(
    x: Grid, y: Grid, kappa: Scalar, *, center_x: Scalar = 0.0, center_y: Scalar = 0.0
) -> Grid:
    """Convergence of a mass sheet: kappa everywhere, dimensionless.

    Arguments as for `mass_sheet_deflection`; the center has no effect.
    """
    return kappa * jnp.ones_like(x)
