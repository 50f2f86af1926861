"""Helpers shared by the mass profiles: softened distances and polynomials."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

CORE = 1e-8  # arcsec


def softened_offset(
    x: Array, y: Array, center_x: ArrayLike, center_y: ArrayLike, core: float
) -> tuple[Array, Array, Array]:
    """Offsets dx and dy from the center, and the softened squared distance dx^2 + dy^2 + core^2."""
    dx, dy = x - center_x, y - center_y
    return dx, dy, dx**2 + dy**2 + core**2


def softened_convergence(
    convergence: Array, mean_convergence: Array, squared_radius: Array, core: float
) -> Array:
    """Convergence of a circular profile whose potential depends on the softened radius.

    If psi(r) is replaced by psi(s) with s = sqrt(r^2 + core^2), the deflection becomes (alpha(s) / s) r, and
    half of its divergence is kappa(s) + (alpha(s) / s - kappa(s)) (core / s)^2.

    Args:
      convergence: kappa(s).
      mean_convergence: alpha(s) / s, the mean convergence within s.
      squared_radius: s^2, arcsec^2.
      core: softening length, arcsec.

    Returns:
      The convergence of the softened profile, dimensionless.
    """
    # Divide by the root, because powers of s^2 in the derivatives of core^2 / s^2 are out of float32's range.
    ratio = core / jnp.sqrt(squared_radius)
    return convergence + (mean_convergence - convergence) * ratio**2


def softened_length(length: ArrayLike, core: float) -> Array:
    """sqrt(length^2 + core^2), for a length that may be zero."""
    return jnp.sqrt(jnp.asarray(length) ** 2 + core**2)


def polynomial(coefficients: list[float], variable: Array) -> Array:
    """coefficients[0] + coefficients[1] * variable + ..., by Horner's rule."""
    total = jnp.full_like(variable, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = coefficient + variable * total
    return total


def terms_for_precision(variable: Array, single: int, double: int) -> int:
    """Number of series terms for the precision of a variable: `double` in float64, otherwise `single`."""
    return double if variable.dtype == jnp.float64 else single
