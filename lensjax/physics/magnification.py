"""How a lens stretches what is behind it, from the derivatives of any deflection function.

The derivatives are exact: the deflection is differentiated in forward mode, so that there is no step to
choose. A deflection function works on arrays point by point, as those of `lensjax.physics.mass` do.

Reference for all functions: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lensjax.physics.rays import Deflection


class Hessian(NamedTuple):
    """Derivatives of the deflection, dimensionless; of a potential's deflection f_xy and f_yx are equal.

    Attributes:
      f_xx: of alpha_x by x.
      f_xy: of alpha_x by y.
      f_yx: of alpha_y by x.
      f_yy: of alpha_y by y.
    """

    f_xx: Array
    f_xy: Array
    f_yx: Array
    f_yy: Array


def hessian(deflection: Deflection, x: Float[Array, "*grid"], y: Float[Array, "*grid"]) -> Hessian:
    """Derivatives of a deflection: the Hessian of its potential.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      x, y: image-plane coordinates, arcsec.

    Returns:
      The four derivatives, each of the shape of x.
    """
    one, zero = jnp.ones_like(x), jnp.zeros_like(x)
    _, (f_xx, f_yx) = jax.jvp(deflection, (x, y), (one, zero))
    _, (f_xy, f_yy) = jax.jvp(deflection, (x, y), (zero, one))
    return Hessian(f_xx, f_xy, f_yx, f_yy)


def convergence(
    deflection: Deflection, x: Float[Array, "*grid"], y: Float[Array, "*grid"]
) -> Float[Array, "*grid"]:
    """Convergence kappa, half the divergence of a deflection: surface density over the critical one.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      x, y: image-plane coordinates, arcsec.
    """
    f_xx, _, _, f_yy = hessian(deflection, x, y)
    return (f_xx + f_yy) / 2


def shear(
    deflection: Deflection, x: Float[Array, "*grid"], y: Float[Array, "*grid"]
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Shear gamma1 and gamma2 of a deflection; positive gamma1 stretches images along x.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      x, y: image-plane coordinates, arcsec.
    """
    f_xx, f_xy, f_yx, f_yy = hessian(deflection, x, y)
    return (f_xx - f_yy) / 2, (f_xy + f_yx) / 2


def inverse_magnification(
    deflection: Deflection, x: Float[Array, "*grid"], y: Float[Array, "*grid"]
) -> Float[Array, "*grid"]:
    """Determinant of d beta / d theta: 0 on critical curves, negative where images are mirrored.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      x, y: image-plane coordinates, arcsec.
    """
    f_xx, f_xy, f_yx, f_yy = hessian(deflection, x, y)
    return (1 - f_xx) * (1 - f_yy) - f_xy * f_yx


def magnification(
    deflection: Deflection, x: Float[Array, "*grid"], y: Float[Array, "*grid"]
) -> Float[Array, "*grid"]:
    """Signed magnification of a small image: its area over that of its source.

    On a critical curve it is infinite, and so is its gradient; `inverse_magnification` is smooth there.
    Everywhere else, the centre of an isothermal sphere and a point mass included, both are finite.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      x, y: image-plane coordinates, arcsec.

    Returns:
      The magnification, dimensionless: positive at minima and maxima of the arrival time, negative at
      its saddle points, where images are mirrored.
    """
    f_xx, f_xy, f_yx, f_yy = hessian(deflection, x, y)
    # At singular centres the derivatives' products pass the range of float32; their ratios to the
    # largest do not. The result does not depend on the scale, so neither does its gradient.
    largest = jnp.maximum(jnp.maximum(abs(f_xx), abs(f_yy)), jnp.maximum(abs(f_xy), abs(f_yx)))
    scale = lax.stop_gradient(jnp.maximum(largest, 1))
    along_x, along_y = (1 - f_xx) / scale, (1 - f_yy) / scale
    return 1 / (along_x * along_y - (f_xy / scale) * (f_yx / scale)) / scale / scale
