"""Fermat potential and time delays.

Reference for all functions: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
"""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lensjax.physics.checks import as_float
from lensjax.physics.cosmology import ARCSEC, MEGAPARSEC, SPEED_OF_LIGHT, time_delay_distance
from lensjax.physics.types import Grid, Scalar

DAY = 86_400.0  # s
DAYS_PER_MPC_ARCSEC2 = MEGAPARSEC / (SPEED_OF_LIGHT * 1e3) * ARCSEC**2 / DAY


@runtime_checkable
class Potential(Protocol):
    """Lensing potential as a function of position."""

    def __call__(self, x: Array, y: Array, /) -> Array:
        """Potential (arcsec^2) at x and y (arcsec)."""


def fermat_potential(potential: Potential, x: Grid, y: Grid, beta_x: Scalar, beta_y: Scalar) -> Grid:
    """Fermat potential |theta - beta|^2 / 2 - psi(theta), which is stationary at the images.

    Args:
      potential: function of x and y (arcsec) that returns the lensing potential, arcsec^2.
      x, y: image-plane coordinates, arcsec.
      beta_x, beta_y: position of the source, arcsec.

    Returns:
      The Fermat potential, arcsec^2.
    """
    x, y = as_float(x), as_float(y)
    return ((x - beta_x) ** 2 + (y - beta_y) ** 2) / 2 - potential(x, y)


def time_delay(
    potential: Potential,
    x: Grid,
    y: Grid,
    beta_x: Scalar,
    beta_y: Scalar,
    z_lens: Scalar = 0.5,
    z_source: Scalar = 1.0,
    *,
    H0: Scalar = 70.0,
    Om0: Scalar = 0.3,
) -> Grid:
    """Arrival time of light at theta relative to the unlensed light path, days.

    A constant in the potential adds a constant to the delay, so only differences are observable. In float32,
    differences are accurate to seconds. The delay is infinite for a source at the redshift of the lens, and
    NaN for a source in front of it.

    Args:
      potential: function of x and y (arcsec) that returns the lensing potential, arcsec^2.
      x, y: image-plane coordinates, arcsec.
      beta_x, beta_y: position of the source, arcsec.
      z_lens, z_source: redshifts, z_source > z_lens.
      H0: Hubble constant, km / s / Mpc.
      Om0: matter density today in units of the critical density.

    Returns:
      The delay, days.
    """
    distance = time_delay_distance(z_lens, z_source, H0=H0, Om0=Om0)
    return DAYS_PER_MPC_ARCSEC2 * distance * fermat_potential(potential, x, y, beta_x, beta_y)


def arrival_time_differences(
    delay: Float[Array, " images"], mask: Bool[Array, " images"] | None = None
) -> Float[Array, " images"]:
    """Delay of each image relative to the image that arrives first.

    Args:
      delay: delay of each image, in any unit.
      mask: True for entries that are images; by default all.

    Returns:
      Differences in the unit of `delay`; 0 for the first image and for masked entries.
    """
    delay = as_float(delay)
    is_image = jnp.ones_like(delay, bool) if mask is None else mask
    first = jnp.min(jnp.where(is_image, delay, jnp.inf))
    return jnp.where(is_image, delay - jnp.where(is_image.any(), first, 0), 0)
