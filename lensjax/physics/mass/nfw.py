"""Spherical Navarro-Frenk-White profile with lenstronomy's parameters alpha_Rs and Rs.

With X = r / Rs, all quantities follow from Phi(m) = atanh(sqrt(m)) / sqrt(m) at m = 1 - X^2, which is smooth
at X = 1. The deflection is proportional to g = ln(X / 2) + Phi, the convergence to F = (Phi - 1) / m and the
potential to h = ln(X / 2)^2 - m Phi^2.

Inside X = 1/2, the terms of g and h cancel. With s = sqrt(1 - X^2) and L = ln((1 + s) / 2), they are computed
as (L - (1 - s) ln(X / 2)) / s and L (2 ln(X / 2) - L). Outside, the identity
Phi(1 - X^2) = 2 / (1 + X) Phi((1 - X) / (1 + X)) is applied twice, and Phi of the resulting small argument is
computed as a short series.

References: Navarro, Frenk & White 1997, arXiv:astro-ph/9611107; Golse & Kneib 2002, arXiv:astro-ph/0112138.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lensjax.physics.mass.softening import (
    CORE,
    polynomial,
    softened_convergence,
    softened_length,
    softened_offset,
    terms_for_precision,
)
from lensjax.physics.types import Grid, Scalar

G_AT_RS = 1 - float(np.log(2))  # g at X = 1


def nfw_deflection(
    x: Grid,
    y: Grid,
    alpha_Rs: Scalar,
    *,
    Rs: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
) -> tuple[Grid, Grid]:
    """Deflection of a spherical NFW halo.

    Args:
      x, y: image-plane coordinates, arcsec.
      alpha_Rs: deflection at the scale radius, arcsec.
      Rs: scale radius, arcsec.
      center_x, center_y: position of the halo, arcsec.
      core: softening of the distance and of Rs, arcsec.

    Returns:
      The two deflection components, arcsec.
    """
    dx, dy, square = softened_offset(x, y, center_x, center_y, core)
    scale = softened_length(Rs, core)
    factor = alpha_Rs / G_AT_RS / scale * _half_mean(_intermediates(square, scale))
    return factor * dx, factor * dy


def nfw_potential(
    x: Grid,
    y: Grid,
    alpha_Rs: Scalar,
    *,
    Rs: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
) -> Grid:
    """Potential of a spherical NFW halo, arcsec^2. Arguments as for `nfw_deflection`."""
    _, _, square = softened_offset(x, y, center_x, center_y, core)
    scale = softened_length(Rs, core)
    part = _intermediates(square, scale)
    inner = part.L * (2 * part.log_half_X - part.L)
    outer = part.log_half_X**2 - (1 - part.X**2) * part.phi**2
    return alpha_Rs * scale / (2 * G_AT_RS) * jnp.where(part.is_inner, inner, outer)


def nfw_convergence(
    x: Grid,
    y: Grid,
    alpha_Rs: Scalar,
    *,
    Rs: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
) -> Grid:
    """Convergence of a spherical NFW halo; it diverges as ln(1 / r) toward the center.

    Arguments as for `nfw_deflection`.
    """
    _, _, square = softened_offset(x, y, center_x, center_y, core)
    scale = softened_length(Rs, core)
    part = _intermediates(square, scale)
    inner = ((part.L - part.log_half_X) / part.s - 1) / part.s**2
    innermost = polynomial(_odd_reciprocals(part.argument, 3), part.argument)
    outer = _undo_halving(part.X, _undo_halving(part.halved_X, innermost))
    local = jnp.where(part.is_inner, inner, outer) / 2
    factor = alpha_Rs / G_AT_RS / scale
    return factor * softened_convergence(local, _half_mean(part), square, core)


class _Intermediates(NamedTuple):
    """Quantities in the formulas above; `s` to `L` are valid inside X = 1/2, and `X` to `phi` outside."""

    is_inner: Array  # X < 1/2
    log_half_X: Array  # ln(X / 2), valid everywhere
    s: Array
    L_over_X2: Array
    L: Array
    X: Array
    halved_X: Array  # sqrt(2 X / (1 + X)), the X of the halved argument
    argument: Array  # m after two halvings, from -0.18 to 0.11
    phi: Array


def _intermediates(square: Array, scale: Array) -> _Intermediates:
    ratio = jnp.sqrt(square) / scale
    is_inner = ratio < 0.5
    inner_X, outer_X = jnp.where(is_inner, ratio, 0.25), jnp.where(is_inner, 1, ratio)
    s = jnp.sqrt(1 - inner_X**2)
    small = inner_X**2 / (2 * (1 + s))  # (1 - s) / 2, below 0.067: L = ln(1 - small)
    terms = terms_for_precision(square, 6, 12)
    L_over_X2 = -polynomial([1 / (n + 1) for n in range(terms)], small) / (2 * (1 + s))
    halved_X = jnp.sqrt(2 * outer_X / (1 + outer_X))
    argument = (1 - halved_X) / (1 + halved_X)
    return _Intermediates(
        is_inner=is_inner,
        log_half_X=jnp.log(ratio / 2),
        s=s,
        L_over_X2=L_over_X2,
        L=L_over_X2 * inner_X**2,
        X=outer_X,
        halved_X=halved_X,
        argument=argument,
        phi=4 / ((1 + outer_X) * (1 + halved_X)) * polynomial(_odd_reciprocals(argument, 1), argument),
    )


def _half_mean(part: _Intermediates) -> Array:
    """Half the mean of F within X: g / X^2."""
    inner = (part.L_over_X2 - part.log_half_X / (1 + part.s)) / part.s
    outer = (part.log_half_X + part.phi) / part.X**2
    return jnp.where(part.is_inner, inner, outer)


def _undo_halving(X: Array, F: Array) -> Array:
    """F at X, given F at sqrt(2 X / (1 + X)); no cancellation at X = 1."""
    return (1 + 2 * F / (1 + X)) / (1 + X) ** 2


def _odd_reciprocals(variable: Array, first: int) -> list[float]:
    """1 / first, 1 / (first + 2), ...: series of Phi for first = 1, of (Phi - 1) / m for first = 3."""
    return [1 / (2 * n + first) for n in range(terms_for_precision(variable, 9, 18))]
