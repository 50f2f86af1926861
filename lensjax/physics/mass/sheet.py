"""External shear, and a sheet of constant convergence: the field of what lies outside the image."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


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


def shear_convergence(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    gamma1: Float[ArrayLike, ""],
    gamma2: Float[ArrayLike, ""],
) -> Float[Array, "*grid"]:
    """Convergence of an external shear: none.

    Args:
      x, y: image-plane coordinates, arcsec.
      gamma1, gamma2: the shear's components, dimensionless.

    Returns:
      Zeros.
    """
    return jnp.zeros_like(x) * (gamma1 + gamma2)


def sheet_potential(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    kappa: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
) -> Float[Array, "*grid"]:
    """Potential of a sheet of constant convergence.

    Args:
      x, y: image-plane coordinates, arcsec.
      kappa: the convergence, dimensionless.
      center_x, center_y: the point that is not deflected, arcsec; lenstronomy's ra_0 and dec_0.

    Returns:
      The potential, arcsec^2.
    """
    return kappa / 2 * ((x - center_x) ** 2 + (y - center_y) ** 2)


def sheet_deflection(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    kappa: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of a sheet of constant convergence.

    Args:
      x, y: image-plane coordinates, arcsec.
      kappa: the convergence, dimensionless.
      center_x, center_y: the point that is not deflected, arcsec.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    return kappa * (x - center_x), kappa * (y - center_y)


def sheet_convergence(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    kappa: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
) -> Float[Array, "*grid"]:
    """Convergence of a sheet: kappa everywhere.

    Args:
      x, y: image-plane coordinates, arcsec.
      kappa: the convergence, dimensionless.
      center_x, center_y: without effect; here so that all profiles are called alike.

    Returns:
      The convergence, dimensionless.
    """
    return kappa * jnp.ones_like(x)
