"""Light profiles: surface brightness of a source or a galaxy."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

CORE = 1e-8


def sersic(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    amp: Float[ArrayLike, ""],
    R_sersic: Float[ArrayLike, ""],
    n_sersic: Float[ArrayLike, ""],
    *,
    e1: Float[ArrayLike, ""] = 0.0,
    e2: Float[ArrayLike, ""] = 0.0,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Elliptical Sersic profile.

    Args:
      x, y: coordinates, arcsec.
      amp: surface brightness at the half-light radius, in any unit.
      R_sersic: half-light radius, the geometric mean of the two half axes, arcsec.
      n_sersic: Sersic index; about 0.5 to 8.
      e1, e2: ellipticity (1 - q) / (1 + q) times cosine and sine of twice the position angle, for the
        axis ratio q.
      center_x, center_y: position, arcsec.
      core: softening inside the root of the radius, arcsec; keeps the gradient finite at the centre.

    Returns:
      Surface brightness, in the unit of `amp`.

    References: Sersic 1968; lenstronomy's SERSIC_ELLIPSE, which has the same parameters and the same
    b_n = 1.9992 n - 0.3271 (Capaccioli 1989).
    """
    b = 1.9992 * jnp.asarray(n_sersic) - 0.3271
    radius = elliptical_radius(x - center_x, y - center_y, e1, e2, core)
    return amp * jnp.exp(-b * jnp.expm1(jnp.log(radius / R_sersic) / n_sersic))


def elliptical_radius(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    e1: Float[ArrayLike, ""],
    e2: Float[ArrayLike, ""],
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Radius sqrt(q u^2 + v^2 / q) along the major (u) and minor (v) axis of an ellipse.

    Written with e1 and e2 themselves and no position angle, it is smooth at the circle, where the angle
    is not defined: q u^2 + v^2 / q = (((1 - e1) x - e2 y)^2 + ((1 + e1) y - e2 x)^2) / (1 - e^2). A sum
    of squares, it stays accurate along the major axis of a thin ellipse.

    Args:
      x, y: coordinates from the centre, arcsec.
      e1, e2: ellipticity, as for `sersic`; e1^2 + e2^2 < 1.
      core: softening inside the root, arcsec.

    Returns:
      The radius, arcsec.
    """
    square = jnp.asarray(e1) ** 2 + jnp.asarray(e2) ** 2
    along_x, along_y = (1 - e1) * x - e2 * y, (1 + e1) * y - e2 * x
    return jnp.sqrt((along_x**2 + along_y**2) / (1 - square) + core**2)


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
