"""Light profiles: surface brightness of a source or a galaxy."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.ellipse import bounded, ellipticity, stretched
from lensjax.physics.grid import interpolate

__all__ = ["CORE", "elliptical_radius", "ellipticity", "gaussian_light", "sampled_light", "sersic"]

CORE = 1e-8
DARK = 1500.0  # squared radii of a Gaussian, beyond which exp(-square / 2) is 0 in float64 too


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
    """Sersic profile, round or elliptical.

    Args:
      x, y: coordinates, arcsec.
      amp: surface brightness at the half-light radius, in any unit.
      R_sersic: half-light radius, the geometric mean of the two half axes, arcsec.
      n_sersic: Sersic index; about 0.5 to 8.
      e1, e2: ellipticity (1 - q) / (1 + q) times cosine and sine of twice the position angle, for the
        axis ratio q.
      center_x, center_y: position, arcsec.
      core: softening inside the root of the radius and of R_sersic, arcsec; keeps the gradient finite at
        the centre, where an index above 1 has a cusp.

    Returns:
      Surface brightness, in the unit of `amp`.

    References: Sersic 1968; lenstronomy's SERSIC and SERSIC_ELLIPSE, which have the same parameters and the
    same b_n = 1.9992 n - 0.3271 (Capaccioli 1989).
    """
    radius = elliptical_radius(x - center_x, y - center_y, e1, e2, core)
    return sersic_at(radius, amp, R_sersic, n_sersic, core)


def sersic_at(
    radius: Float[Array, "*grid"],
    amp: Float[ArrayLike, ""],
    R_sersic: Float[ArrayLike, ""],
    n_sersic: Float[ArrayLike, ""],
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """`sersic` at softened radii from its centre, arcsec; arguments as there."""
    b = 1.9992 * jnp.asarray(n_sersic) - 0.3271
    scale = jnp.sqrt(jnp.asarray(R_sersic) ** 2 + core**2)
    if isinstance(n_sersic, int | float) and n_sersic == 1:  # an exponential disc: no power to take
        return amp * jnp.exp(-b * (jnp.minimum(radius / scale, 1e5) - 1))
    # At e^11.5 times b the light is 0 in any precision; further out the exponential would be infinite.
    exponent = jnp.minimum(jnp.log(radius / scale) / n_sersic, 11.5)
    return amp * jnp.exp(-b * jnp.expm1(exponent))


def gaussian_light(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    amp: Float[ArrayLike, ""],
    sigma: Float[ArrayLike, ""],
    *,
    e1: Float[ArrayLike, ""] = 0.0,
    e2: Float[ArrayLike, ""] = 0.0,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = 1e-6,
) -> Float[Array, "*grid"]:
    """Gaussian light, round or elliptical: lenstronomy's GAUSSIAN and GAUSSIAN_ELLIPSE.

    Args:
      x, y: coordinates, arcsec.
      amp: the integral over the plane, in any unit of flux.
      sigma: standard deviation, the geometric mean along the two axes, arcsec.
      e1, e2: ellipticity, see `ellipticity`.
      center_x, center_y: position, arcsec.
      core: softening of sigma, arcsec; smaller ones leave the range of float32 where sigma is 0.

    Returns:
      Surface brightness, in the unit of `amp` per arcsec^2.
    """
    squared_sigma = jnp.asarray(sigma) ** 2 + core**2
    square = _squared_radius(x - center_x, y - center_y, e1, e2)
    # Where it is dark no derivative passes: it would be 0 times what may be out of range.
    dark = square > DARK * squared_sigma
    exponent = -jnp.where(dark, 0, square) / (2 * squared_sigma)
    return jnp.where(dark, 0, amp * jnp.exp(exponent) / (2 * np.pi * squared_sigma))


def sampled_light(
    x: Float[Array, "*points"],
    y: Float[Array, "*points"],
    image: Float[Array, "rows columns"],
    pixel_scale: float,
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
) -> Float[Array, "*points"]:
    """Light given by its pixels, interpolated bilinearly; lenstronomy's INTERPOL.

    Beyond the outermost pixels' centres it falls to 0 within one pixel, and stays 0. On a line through
    pixels' centres, where it has a kink, the derivative is the one on the side of larger coordinates.

    Args:
      x, y: coordinates, arcsec.
      image: surface brightness at the pixels' centres, rows along y, columns along x.
      pixel_scale: side of a pixel, arcsec.
      center_x, center_y: position of the middle of the image, arcsec.

    Returns:
      Surface brightness, in the unit of `image`.
    """
    return interpolate(image, x - center_x, y - center_y, pixel_scale)


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
      e1, e2: ellipticity, as for `sersic`; one longer than 0.9999 is taken for 0.9999.
      core: softening inside the root, arcsec.

    Returns:
      The radius, arcsec.
    """
    return jnp.sqrt(_squared_radius(x, y, e1, e2) + core**2)


def _squared_radius(x: Array, y: Array, e1: ArrayLike, e2: ArrayLike) -> Array:
    e1, e2 = bounded(e1, e2)
    along_x, along_y = stretched(x, y, e1, e2)
    return (along_x**2 + along_y**2) / (1 - (e1**2 + e2**2))
