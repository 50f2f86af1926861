"""Jacobian of the lens mapping and the quantities derived from it, for any deflection.

The derivatives are exact: the deflection is differentiated in forward mode, without a step size. A deflection
function must act point by point on arrays, as the profiles of `lensjax.physics.mass` do.

Reference for all functions: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from lensjax.physics.checks import as_float
from lensjax.physics.rays import Deflection
from lensjax.physics.types import Grid


class Hessian(NamedTuple):
    """Derivatives of the deflection, dimensionless; f_xy = f_yx for the gradient of a potential.

    Attributes:
      f_xx: d alpha_x / dx.
      f_xy: d alpha_x / dy.
      f_yx: d alpha_y / dx.
      f_yy: d alpha_y / dy.
    """

    f_xx: Array
    f_xy: Array
    f_yx: Array
    f_yy: Array


def hessian(deflection: Deflection, x: Grid, y: Grid) -> Hessian:
    """Derivatives of a deflection: the Hessian of its potential.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      x, y: image-plane coordinates, arcsec.

    Returns:
      The four derivatives, each of the shape of x.
    """
    x, y = as_float(x), as_float(y)
    one, zero = jnp.ones_like(x), jnp.zeros_like(x)
    _, (f_xx, f_yx) = jax.jvp(deflection, (x, y), (one, zero))
    _, (f_xy, f_yy) = jax.jvp(deflection, (x, y), (zero, one))
    return Hessian(f_xx, f_xy, f_yx, f_yy)


def convergence(deflection: Deflection, x: Grid, y: Grid) -> Grid:
    """Convergence kappa of any deflection: half its divergence.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      x, y: image-plane coordinates, arcsec.

    Returns:
      The surface density in units of the critical surface density, dimensionless.
    """
    f_xx, _, _, f_yy = hessian(deflection, x, y)
    return (f_xx + f_yy) / 2


def shear(deflection: Deflection, x: Grid, y: Grid) -> tuple[Grid, Grid]:
    """Shear of any deflection.

    For the profile of an external shear, see `external_shear_deflection`.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      x, y: image-plane coordinates, arcsec.

    Returns:
      gamma1 and gamma2, dimensionless; positive gamma1 stretches images along x.
    """
    f_xx, f_xy, f_yx, f_yy = hessian(deflection, x, y)
    return (f_xx - f_yy) / 2, (f_xy + f_yx) / 2


def inverse_magnification(deflection: Deflection, x: Grid, y: Grid) -> Grid:
    """Determinant of d beta / d theta.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      x, y: image-plane coordinates, arcsec.

    Returns:
      The determinant, dimensionless: 0 on critical curves, negative where images are mirrored.
    """
    determinant, scale = _scaled_determinant(hessian(deflection, x, y))
    return determinant * scale * scale


def magnification(deflection: Deflection, x: Grid, y: Grid) -> Grid:
    """Signed magnification of a small image: its area over the area of its source.

    The magnification and its gradient are infinite on critical curves, where `inverse_magnification` is
    smooth. Both are finite everywhere else, including the center of an isothermal sphere or a point mass.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      x, y: image-plane coordinates, arcsec.

    Returns:
      The magnification, dimensionless: positive at minima and maxima of the arrival time, negative at
      saddle points, where images are mirrored.
    """
    determinant, scale = _scaled_determinant(hessian(deflection, x, y))
    return 1 / determinant / scale / scale


def _scaled_determinant(derivatives: Hessian) -> tuple[Array, Array]:
    """Determinant of d beta / d theta over the square of a scale, and the scale.

    At singular centers, products of the derivatives overflow float32; products of their ratios to the largest
    derivative do not. The product with the squared scale, and its gradient, do not depend on the scale.
    """
    f_xx, f_xy, f_yx, f_yy = derivatives
    largest = jnp.maximum(jnp.maximum(abs(f_xx), abs(f_yy)), jnp.maximum(abs(f_xy), abs(f_yx)))
    scale = lax.stop_gradient(jnp.maximum(largest, 1))
    a_xx, a_yy = (1 - f_xx) / scale, (1 - f_yy) / scale
    return a_xx * a_yy - (f_xy / scale) * (f_yx / scale), scale
