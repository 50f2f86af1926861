"""Circular isothermal profiles: the singular sphere, and the truncated pseudo-Jaffe profile of subhalos.

References: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing"; Eliasdottir et al. 2007,
arXiv:0710.5636, appendix A.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.checks import offsets
from lensjax.physics.mass.softening import CORE, polynomial, softened_convergence, softened_offset
from lensjax.physics.types import Grid, Scalar


def sis_deflection(
    x: Grid, y: Grid, theta_E: Scalar, *, center_x: Scalar = 0.0, center_y: Scalar = 0.0, core: float = CORE
) -> tuple[Grid, Grid]:
    """Deflection of a singular isothermal sphere: theta_E times the unit vector from the center.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the lens, arcsec.
      core: softening of the distance, arcsec; keeps value and gradient finite at the center.

    Returns:
      The two deflection components, arcsec.
    """
    dx, dy, square = softened_offset(x, y, center_x, center_y, core)
    radius = jnp.sqrt(square)
    return theta_E * (dx / radius), theta_E * (dy / radius)


def sis_potential(
    x: Grid, y: Grid, theta_E: Scalar, *, center_x: Scalar = 0.0, center_y: Scalar = 0.0, core: float = CORE
) -> Grid:
    """Potential of a singular isothermal sphere: theta_E times the distance from the center, arcsec^2.

    Arguments as for `sis_deflection`.
    """
    return theta_E * jnp.sqrt(softened_offset(x, y, center_x, center_y, core)[2])


def sis_convergence(
    x: Grid, y: Grid, theta_E: Scalar, *, center_x: Scalar = 0.0, center_y: Scalar = 0.0, core: float = CORE
) -> Grid:
    """Convergence of a singular isothermal sphere: theta_E over twice the distance from the center.

    With softening, it is theta_E / core at the center. Arguments as for `sis_deflection`.
    """
    radius = jnp.sqrt(softened_offset(x, y, center_x, center_y, core)[2])
    return theta_E / (2 * radius) * (1 + (core / radius) ** 2)


def pseudo_jaffe_sigma0(
    theta_E: Float[ArrayLike, "*shape"], Ra: Float[ArrayLike, "*shape"], Rs: Float[ArrayLike, "*shape"]
) -> Float[Array, "*shape"]:
    """Value of sigma0 for which a pseudo-Jaffe profile is an isothermal sphere at Ra << r << Rs.

    Args:
      theta_E: Einstein radius of the sphere without core and truncation, arcsec.
      Ra: core radius, arcsec, positive.
      Rs: truncation radius, arcsec, larger than Ra.

    Returns:
      sigma0, dimensionless.
    """
    Ra, Rs = jnp.asarray(Ra), jnp.asarray(Rs)
    return theta_E * (Rs - Ra) / (2 * Ra * Rs)


def pseudo_jaffe_deflection(
    x: Grid,
    y: Grid,
    sigma0: Scalar,
    *,
    Ra: Scalar,
    Rs: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
) -> tuple[Grid, Grid]:
    """Deflection of a truncated isothermal sphere with a core; lenstronomy's PJAFFE.

    Args:
      x, y: image-plane coordinates, arcsec.
      sigma0: scale of the convergence, dimensionless; see `pseudo_jaffe_sigma0`.
      Ra, Rs: core and truncation radius, arcsec; nonnegative, in either order or equal.
      center_x, center_y: position of the halo, arcsec.
      core: softening of the distance, arcsec.

    Returns:
      The two deflection components, arcsec.
    """
    Ra, Rs, inner, outer = _radii(x, y, Ra, Rs, center_x, center_y, core)
    factor = (2 * sigma0 * Ra * Rs) * _half_mean_convergence(inner, outer, Ra, Rs)
    dx, dy = offsets(x, y, center_x, center_y)
    return factor * dx, factor * dy


def pseudo_jaffe_potential(
    x: Grid,
    y: Grid,
    sigma0: Scalar,
    *,
    Ra: Scalar,
    Rs: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
) -> Grid:
    """Potential of a pseudo-Jaffe profile, arcsec^2. Arguments as for `pseudo_jaffe_deflection`."""
    Ra, Rs, inner, outer = _radii(x, y, Ra, Rs, center_x, center_y, core)
    # ln((Rs + outer) / (Ra + inner)) / (Rs - Ra), regular at Rs = Ra.
    slope = (1 + (Ra + Rs) / (inner + outer)) / (Ra + inner)
    logarithm = slope * _log1p_over((Rs - Ra) * slope)
    mean = jnp.log(Ra + inner) + Rs * logarithm - (Ra + Rs) / (inner + outer)
    return (2 * sigma0 * Ra * Rs) * mean


def pseudo_jaffe_convergence(
    x: Grid,
    y: Grid,
    sigma0: Scalar,
    *,
    Ra: Scalar,
    Rs: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
) -> Grid:
    """Convergence of a pseudo-Jaffe profile. Arguments as for `pseudo_jaffe_deflection`.

    It is sigma0 Ra Rs / (Rs - Ra) (1 / sqrt(Ra^2 + r^2) - 1 / sqrt(Rs^2 + r^2)).
    """
    Ra, Rs, inner, outer = _radii(x, y, Ra, Rs, center_x, center_y, core)
    square = softened_offset(x, y, center_x, center_y, core)[2]
    local = (Ra + Rs) / (inner + outer) / inner / outer
    mean = 2 * _half_mean_convergence(inner, outer, Ra, Rs)
    return (sigma0 * Ra * Rs) * softened_convergence(local, mean, square, core)


def _radii(
    x: Array, y: Array, Ra: ArrayLike, Rs: ArrayLike, center_x: ArrayLike, center_y: ArrayLike, core: float
) -> tuple[Array, Array, Array, Array]:
    """Ra and Rs, the smaller one first, sqrt(Ra^2 + r^2) and sqrt(Rs^2 + r^2)."""
    Ra, Rs = jnp.asarray(Ra), jnp.asarray(Rs)
    Ra, Rs = jnp.where(Ra < Rs, Ra, Rs), jnp.where(Ra < Rs, Rs, Ra)
    square = softened_offset(x, y, center_x, center_y, core)[2]
    return Ra, Rs, jnp.sqrt(Ra**2 + square), jnp.sqrt(Rs**2 + square)


def _half_mean_convergence(inner: Array, outer: Array, Ra: Array, Rs: Array) -> Array:
    """(1 / (Ra + inner) - 1 / (Rs + outer)) / (Rs - Ra), computed without a difference.

    It is half the mean convergence within r, in units of sigma0 Ra Rs.
    """
    total = inner + outer
    return (total + (Ra + Rs)) / ((Ra + inner) * (Rs + outer)) / total


def _log1p_over(z: Array) -> Array:
    """log(1 + z) / z for z > -1, smooth at 0."""
    near = jnp.abs(z) < 0.2
    small, large = jnp.where(near, z, 0), jnp.where(near, 1, z)
    series = polynomial([1 / (2 * n + 1) for n in range(9)], (small / (2 + small)) ** 2)
    return jnp.where(near, 2 / (2 + small) * series, jnp.log1p(large) / large)
