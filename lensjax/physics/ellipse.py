"""Ellipses described by the ellipticity components e1 and e2 instead of a position angle.

(e1, e2) is (1 - q) / (1 + q) times the cosine and sine of twice the position angle, for axis ratio q.
Formulas in e1 and e2 are smooth at the circle, where the angle is undefined.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.types import Grid, Scalar

MAX_ELLIPTICITY = 0.9999  # an axis ratio of 5e-5; lenstronomy has the same limit


def ellipticity(
    axis_ratio: Float[ArrayLike, "*shape"], angle: Float[ArrayLike, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Ellipticity components e1 and e2 of an ellipse.

    Args:
      axis_ratio: minor over major axis, in (0, 1].
      angle: position angle of the major axis, radians counterclockwise from +x.

    Returns:
      e1 and e2, dimensionless.
    """
    size = (1 - jnp.asarray(axis_ratio)) / (1 + jnp.asarray(axis_ratio))
    return size * jnp.cos(2 * jnp.asarray(angle)), size * jnp.sin(2 * jnp.asarray(angle))


def clip_ellipticity(
    e1: Float[ArrayLike, "*shape"], e2: Float[ArrayLike, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """e1 and e2, scaled to a modulus of 0.9999 if their modulus is larger."""
    e1, e2 = jnp.asarray(e1), jnp.asarray(e2)
    square = e1**2 + e2**2
    too_large = square > MAX_ELLIPTICITY**2
    factor = jnp.where(too_large, MAX_ELLIPTICITY / jnp.sqrt(jnp.where(too_large, square, 1)), 1)
    return factor * e1, factor * e2


def elliptical_coordinates(x: Grid, y: Grid, e1: Scalar, e2: Scalar) -> tuple[Grid, Grid]:
    """Coordinates in which ellipses of ellipticity e are circles: z - e conj(z), z = x + iy, e = e1 + i e2.

    Args:
      x, y: coordinates relative to the center, arcsec.
      e1, e2: ellipticity, e1^2 + e2^2 < 1.

    Returns:
      The two coordinates, arcsec. Their modulus is sqrt(1 - e1^2 - e2^2) sqrt(q u^2 + v^2 / q), with u along
      the major axis, v along the minor axis and q the axis ratio.
    """
    return (1 - e1) * x - e2 * y, (1 + e1) * y - e2 * x
