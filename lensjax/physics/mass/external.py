"""External shear and mass sheet: the tidal field and convergence of mass outside the image."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def external_shear_deflection(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    gamma1: Float[ArrayLike, ""],
    gamma2: Float[ArrayLike, ""],
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of an external shear about the origin.

    Args:
      x, y: image-plane coordinates, arcsec.
      gamma1, gamma2: shear components, dimensionless; positive gamma1 stretches images along x.

    Returns:
      The two deflection components, arcsec.
    """
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


def external_shear_potential(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    gamma1: Float[ArrayLike, ""],
    gamma2: Float[ArrayLike, ""],
) -> Float[Array, "*grid"]:
    """Potential of an external shear, arcsec^2. Arguments as for `external_shear_deflection`."""
    return gamma1 * (x**2 - y**2) / 2 + gamma2 * (x * y)


def external_shear_convergence(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    gamma1: Float[ArrayLike, ""],
    gamma2: Float[ArrayLike, ""],
) -> Float[Array, "*grid"]:
    """Convergence of an external shear: zero. Arguments as for `external_shear_deflection`."""
    return jnp.zeros_like(x) * (gamma1 + gamma2)


def mass_sheet_deflection(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    kappa: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
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
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    kappa: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
) -> Float[Array, "*grid"]:
    """Potential of a mass sheet, arcsec^2. Arguments as for `mass_sheet_deflection`."""
    return kappa / 2 * ((x - center_x) ** 2 + (y - center_y) ** 2)


def mass_sheet_convergence(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    kappa: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
) -> Float[Array, "*grid"]:
    """Convergence of a mass sheet: kappa everywhere, dimensionless.

    Arguments as for `mass_sheet_deflection`; the center has no effect.
    """
    return kappa * jnp.ones_like(x)
