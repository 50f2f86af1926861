"""Ellipses by their two ellipticity components, e1 and e2, without a position angle.

(e1, e2) is (1 - q) / (1 + q) times the cosine and sine of twice the position angle, for the axis ratio q.
Written with these, a formula is smooth at the circle, where the angle is not defined.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

LARGEST = 0.9999  # an axis ratio of 5e-5; lenstronomy stops there too


def ellipticity(
    axis_ratio: Float[ArrayLike, "*shape"], angle: Float[ArrayLike, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """e1 and e2 of an ellipse.

    Args:
      axis_ratio: minor over major axis, in (0, 1].
      angle: position angle of the major axis, radians counter-clockwise from +x.
    """
    size = (1 - jnp.asarray(axis_ratio)) / (1 + jnp.asarray(axis_ratio))
    return size * jnp.cos(2 * jnp.asarray(angle)), size * jnp.sin(2 * jnp.asarray(angle))


def bounded(
    e1: Float[ArrayLike, "*shape"], e2: Float[ArrayLike, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """e1 and e2 themselves, or in the same direction at the length 0.9999 if they are longer."""
    e1, e2 = jnp.asarray(e1), jnp.asarray(e2)
    square = e1**2 + e2**2
    longer = square > LARGEST**2
    factor = jnp.where(longer, LARGEST / jnp.sqrt(jnp.where(longer, square, 1)), 1)
    return factor * e1, factor * e2


def stretched(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    e1: Float[ArrayLike, ""],
    e2: Float[ArrayLike, ""],
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Coordinates whose circles are ellipses of (e1, e2): z - e conj(z), with z = x + iy, e = e1 + i e2.

    Args:
      x, y: coordinates from the centre, arcsec.
      e1, e2: ellipticity, e1^2 + e2^2 < 1.

    Returns:
      The two coordinates; their length is sqrt(1 - e1^2 - e2^2) times sqrt(q u^2 + v^2 / q), for u along
      the major axis and v along the minor one.
    """
    return (1 - e1) * x - e2 * y, (1 + e1) * y - e2 * x
