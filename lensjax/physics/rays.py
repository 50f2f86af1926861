"""Lens equation, ray shooting and lensed images."""

from typing import Protocol, runtime_checkable

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Num

from lensjax.physics.grid import interpolate
from lensjax.physics.mass import sis_deflection
from lensjax.physics.types import Grid, Scalar


@runtime_checkable
class Deflection(Protocol):
    """Deflection as a function of position, such as a lambda around profiles of `lensjax.physics.mass`."""

    def __call__(self, x: Array, y: Array, /) -> tuple[Array, Array]:
        """Two deflection components at x and y; all in arcsec."""


@runtime_checkable
class Light(Protocol):
    """Surface brightness as a function of position."""

    def __call__(self, x: Array, y: Array, /) -> Array:
        """Surface brightness at x and y (arcsec)."""


@jax.jit
def lens_equation(x: Grid, y: Grid, alpha_x: Grid, alpha_y: Grid) -> tuple[Grid, Grid]:
    """Source-plane position beta = theta - alpha(theta).

    Args:
      x, y: image-plane coordinates, arcsec.
      alpha_x, alpha_y: deflection at x and y, arcsec.

    Returns:
      The two components of beta, arcsec.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing", eq. 13.
    """
    return x - alpha_x, y - alpha_y


@jax.jit
def sis_lens_equation(
    x: Grid, y: Grid, theta_E: Scalar, *, center_x: Scalar = 0.0, center_y: Scalar = 0.0
) -> tuple[Grid, Grid]:
    """Source-plane position behind a singular isothermal sphere.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the lens, arcsec.

    Returns:
      The two components of beta, arcsec.
    """
    alpha = sis_deflection(x, y, theta_E, center_x=center_x, center_y=center_y)
    return lens_equation(x, y, *alpha)


def ray_shooting(deflection: Deflection, x: Grid, y: Grid) -> tuple[Grid, Grid]:
    """Traces rays from the observer through a lens to the source plane.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      x, y: image-plane coordinates, arcsec.

    Returns:
      The two components of the source-plane position, arcsec.

    Reference: Kayser, Refsdal & Stabell 1986, "Astrophysical applications of gravitational
    micro-lensing", A&A 166, 36.
    """
    return lens_equation(x, y, *deflection(x, y))


def lensed_image(
    source: Light | Num[ArrayLike, "source_rows source_columns"],
    deflection: Deflection,
    x: Grid,
    y: Grid,
    *,
    source_scale: float | None = None,
) -> Grid:
    """Image of a source behind a lens.

    Lensing conserves surface brightness: I(theta) = S(beta(theta)).

    Args:
      source: function of source-plane x and y (arcsec), or the brightness on a `pixel_grid` of the source
        plane, which is interpolated and is 0 outside the grid.
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      x, y: image-plane coordinates, arcsec.
      source_scale: pixel size of a sampled source, arcsec.

    Returns:
      Surface brightness at x and y, in the unit of the source. A point exactly at the center of a singular
      lens shows the source undeflected, because the deflection there is 0 by convention.

    Raises:
      ValueError: if the source is sampled and `source_scale` is not given or not positive.
    """
    beta_x, beta_y = ray_shooting(deflection, x, y)
    if callable(source):
        return source(beta_x, beta_y)
    if source_scale is None:
        raise ValueError("a sampled source needs source_scale, its pixel size in arcsec")
    return interpolate(source, beta_x, beta_y, source_scale)
