"""When light arrives: Fermat potential and time delays.

Reference for all functions: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
"""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from lensjax.physics.cosmology import ARCSEC, MEGAPARSEC, SPEED_OF_LIGHT, time_delay_distance

DAY = 86_400.0  # s
DAYS = MEGAPARSEC / (SPEED_OF_LIGHT * 1e3) * ARCSEC**2 / DAY  # per Mpc and arcsec^2


@runtime_checkable
class Potential(Protocol):
    """A lensing potential as a function of position."""

    def __call__(self, x: Array, y: Array, /) -> Array:
        """The potential at x and y (arcsec), arcsec^2."""


def fermat_potential(
    potential: Potential,
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    beta_x: Float[ArrayLike, ""],
    beta_y: Float[ArrayLike, ""],
) -> Float[Array, "*grid"]:
    """Fermat potential |theta - beta|^2 / 2 - psi(theta); images lie where it is stationary.

    Args:
      potential: takes x and y, arcsec, gives the lensing potential, arcsec^2.
      x, y: image-plane coordinates, arcsec.
      beta_x, beta_y: position of the source, arcsec.

    Returns:
      The Fermat potential, arcsec^2.
    """
    return ((x - beta_x) ** 2 + (y - beta_y) ** 2) / 2 - potential(x, y)


def time_delay(
    potential: Potential,
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    beta_x: Float[ArrayLike, ""],
    beta_y: Float[ArrayLike, ""],
    z_lens: Float[ArrayLike, ""] = 0.5,
    z_source: Float[ArrayLike, ""] = 1.0,
    *,
    H0: Float[ArrayLike, ""] = 70.0,
    Om0: Float[ArrayLike, ""] = 0.3,
) -> Float[Array, "*grid"]:
    """Time by which light seen at theta comes later than without the lens, in days.

    A constant added to the potential adds one to it: only differences can be observed. In float32 they
    are good to seconds. It is infinite for a source at the lens's redshift.

    Args:
      potential: takes x and y, arcsec, gives the lensing potential, arcsec^2.
      x, y: image-plane coordinates, arcsec.
      beta_x, beta_y: position of the source, arcsec.
      z_lens, z_source: redshifts, z_source > z_lens.
      H0: Hubble's constant, km / s / Mpc.
      Om0: density of matter today, in units of the critical one.

    Returns:
      The delay, days.
    """
    distance = time_delay_distance(z_lens, z_source, H0=H0, Om0=Om0)
    return DAYS * distance * fermat_potential(potential, x, y, beta_x, beta_y)


def arrival_time_differences(
    delay: Float[Array, " images"], mask: Bool[Array, " images"] | None = None
) -> Float[Array, " images"]:
    """How much later than the first each image shows what the source does.

    Args:
      delay: of each image, in any unit.
      mask: which images there are; all if not given.

    Returns:
      Differences in the unit of `delay`: 0 for the first to arrive, and for images that are not there.
    """
    there = jnp.ones_like(delay, bool) if mask is None else mask
    first = jnp.min(jnp.where(there, delay, jnp.inf))
    return jnp.where(there, delay - jnp.where(there.any(), first, 0), 0)
