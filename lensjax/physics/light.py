"""Light profiles: surface brightness of a source or a galaxy.

Light profiles are called like mass profiles: the amplitude is positional, and every other parameter is
keyword-only.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.checks import native, offsets
from lensjax.physics.ellipse import clip_ellipticity, elliptical_coordinates, ellipticity
from lensjax.physics.grid import interpolate
from lensjax.physics.types import Grid, Scalar

__all__ = [
    "CORE",
    "elliptical_radius",
    "ellipticity",
    "gaussian_light",
    "sampled_light",
    "sersic",
    "sersic_at_radius",
]

CORE = 1e-8  # arcsec
MAX_SQUARED_RADII = 1500.0  # in units of sigma^2; beyond it exp(-square / 2) is 0 even in float64


def sersic(
    x: Grid,
    y: Grid,
    amp: Scalar,
    *,
    R_sersic: Scalar,
    n_sersic: Scalar,
    e1: Scalar = 0.0,
    e2: Scalar = 0.0,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
) -> Grid:
    """Circular or elliptical Sersic profile.

    Args:
      x, y: coordinates, arcsec.
      amp: surface brightness at the half-light radius, in any unit.
      R_sersic: half-light radius, the geometric mean of the two semi-axes, arcsec.
      n_sersic: Sersic index, about 0.5 to 8.
      e1, e2: ellipticity, see `ellipticity`; its modulus is clipped at 0.9999.
      center_x, center_y: position, arcsec.
      core: softening of the radius and of R_sersic, arcsec; keeps the gradient finite at the center, where an
        index above 1 has a cusp.

    Returns:
      Surface brightness, in the unit of `amp`.

    References: Sersic 1968; lenstronomy's SERSIC and SERSIC_ELLIPSE, which have the same parameters and the
    same b_n = 1.9992 n - 0.3271 (Capaccioli 1989).
    """
    radius = elliptical_radius(*offsets(x, y, center_x, center_y), e1, e2, core=core)
    return sersic_at_radius(radius, amp, R_sersic=R_sersic, n_sersic=n_sersic, core=core)


def sersic_at_radius(
    radius: Grid, amp: Scalar, *, R_sersic: Scalar, n_sersic: Scalar, core: float = CORE
) -> Grid:
    """Sersic profile at softened elliptical radii.

    Args:
      radius: softened elliptical radius, arcsec; see `elliptical_radius`.
      amp, R_sersic, n_sersic, core: as for `sersic`.

    Returns:
      Surface brightness, in the unit of `amp`.
    """
    b = 1.9992 * jnp.asarray(n_sersic) - 0.3271
    scale = jnp.sqrt(jnp.asarray(R_sersic) ** 2 + core**2)
    radius = native(radius)
    if isinstance(n_sersic, int | float) and n_sersic == 1:  # exponential disk, which needs no power
        return amp * jnp.exp(-b * (jnp.minimum(radius / scale, 1e5) - 1))
    # At 11.5, the light, exp(-b e^11.5), is 0 in any precision; farther out, the exponential would overflow.
    exponent = jnp.minimum(jnp.log(radius / scale) / n_sersic, 11.5)
    return amp * jnp.exp(-b * jnp.expm1(exponent))


def gaussian_light(
    x: Grid,
    y: Grid,
    amp: Scalar,
    *,
    sigma: Scalar,
    e1: Scalar = 0.0,
    e2: Scalar = 0.0,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = 1e-6,
) -> Grid:
    """Circular or elliptical Gaussian; lenstronomy's GAUSSIAN and GAUSSIAN_ELLIPSE.

    Args:
      x, y: coordinates, arcsec.
      amp: total flux, in any unit.
      sigma: standard deviation, the geometric mean along the two axes, arcsec.
      e1, e2: ellipticity, see `ellipticity`; its modulus is clipped at 0.9999.
      center_x, center_y: position, arcsec.
      core: softening of sigma, arcsec; smaller values leave the range of float32 at sigma = 0.

    Returns:
      Surface brightness, in the unit of `amp` per arcsec^2.
    """
    squared_sigma = jnp.asarray(sigma) ** 2 + core**2
    square = _squared_radius(*offsets(x, y, center_x, center_y), e1, e2)
    # Where the light is 0, the derivative is omitted: it would be 0 times a value that may be out of range.
    dark = square > MAX_SQUARED_RADII * squared_sigma
    exponent = -jnp.where(dark, 0, square) / (2 * squared_sigma)
    return jnp.where(dark, 0, amp * jnp.exp(exponent) / (2 * np.pi * squared_sigma))


def sampled_light(
    x: Float[Array, "*points"],
    y: Float[Array, "*points"],
    image: Float[Array, "rows columns"],
    *,
    pixel_scale: float,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
) -> Float[Array, "*points"]:
    """Light given on pixels, interpolated bilinearly; lenstronomy's INTERPOL.

    Beyond the outermost pixel centers, the light falls to 0 within one pixel. On lines through pixel centers,
    where the interpolation has a kink, the derivative is that on the side of larger coordinates.

    Args:
      x, y: coordinates, arcsec.
      image: surface brightness at the pixel centers, rows along y, columns along x.
      pixel_scale: pixel size, arcsec.
      center_x, center_y: position of the center of the image, arcsec.

    Returns:
      Surface brightness, in the unit of `image`.
    """
    return interpolate(image, *offsets(x, y, center_x, center_y), pixel_scale)


def elliptical_radius(x: Grid, y: Grid, e1: Scalar, e2: Scalar, *, core: float = CORE) -> Grid:
    """Elliptical radius sqrt(q u^2 + v^2 / q), with u along the major and v along the minor axis.

    In terms of e1 and e2, q u^2 + v^2 / q = (((1 - e1) x - e2 y)^2 + ((1 + e1) y - e2 x)^2) / (1 - e^2). This
    form is smooth at the circle, where the position angle is undefined, and as a sum of squares it stays
    accurate along the major axis of a thin ellipse.

    Args:
      x, y: coordinates relative to the center, arcsec.
      e1, e2: ellipticity, see `ellipticity`; its modulus is clipped at 0.9999.
      core: softening of the radius, arcsec.

    Returns:
      The radius, arcsec.
    """
    return jnp.sqrt(_squared_radius(native(x), native(y), e1, e2) + core**2)


def _squared_radius(x: Array, y: Array, e1: ArrayLike, e2: ArrayLike) -> Array:
    e1, e2 = clip_ellipticity(e1, e2)
    w_x, w_y = elliptical_coordinates(x, y, e1, e2)
    return (w_x**2 + w_y**2) / (1 - (e1**2 + e2**2))
