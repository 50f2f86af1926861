"""Distances in a flat universe, and Einstein radii of masses.

Distances are in Mpc, masses in solar masses, radii in arcsec. The functions take redshifts as arrays and
can be differentiated.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

SPEED_OF_LIGHT = 299_792.458  # km / s
SUN_GM = 1.32712440018e20  # G times the mass of the sun, m^3 / s^2
MEGAPARSEC = 3.0856775814913673e22  # m
FOUR_G_OVER_C2 = 4 * SUN_GM / (SPEED_OF_LIGHT * 1e3) ** 2 / MEGAPARSEC  # Mpc per solar mass
ARCSEC = np.pi / (180 * 3600)

Convention = Literal["angular_diameter", "deeplensesim"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def comoving_distance(
    z: Float[ArrayLike, ""], *, H0: float = 70.0, Om0: float = 0.3
) -> Float[Array, ""]:
    """Comoving distance in flat LCDM without radiation.

    Args:
      z: redshift; the quadrature is good to 1e-10 up to 10.
      H0: Hubble's constant, km / s / Mpc.
      Om0: density of matter today, in units of the critical one.

    Returns:
      The distance, Mpc.

    Reference: Hogg 1999, "Distance measures in cosmology", eq. 15.
    """
    redshift = jnp.asarray(z, jnp.result_type(float))
    nodes, weights = (jnp.asarray(array, redshift.dtype) for array in (_NODES, _WEIGHTS))
    expansion = jnp.sqrt(Om0 * (1 + redshift * (nodes + 1) / 2) ** 3 + (1 - Om0))
    return SPEED_OF_LIGHT / H0 * redshift / 2 * jnp.sum(weights / expansion)


def lensing_distances(
    z_lens: Float[ArrayLike, ""],
    z_source: Float[ArrayLike, ""],
    *,
    H0: float = 70.0,
    Om0: float = 0.3,
    convention: Convention = "angular_diameter",
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Distances to the lens, to the source, and between the two.

    Args:
      z_lens, z_source: redshifts.
      H0: Hubble's constant, km / s / Mpc.
      Om0: density of matter today, in units of the critical one.
      convention: "angular_diameter" is right. "deeplensesim" is what DeepLenseSim, and so the data
        published with it, uses: luminosity distances, and their plain difference between the planes.

    Returns:
      D_L, D_S and D_LS, Mpc.
    """
    lens = comoving_distance(z_lens, H0=H0, Om0=Om0)
    source = comoving_distance(z_source, H0=H0, Om0=Om0)
    lens_factor, source_factor = 1 + jnp.asarray(z_lens), 1 + jnp.asarray(z_source)
    if convention == "angular_diameter":
        return lens / lens_factor, source / source_factor, (source - lens) / source_factor
    if convention == "deeplensesim":
        return (
            lens * lens_factor,
            source * source_factor,
            source * source_factor - lens * lens_factor,
        )
    raise ValueError(f"convention {convention!r} is neither 'angular_diameter' nor 'deeplensesim'")


def einstein_radius(
    mass: Float[ArrayLike, "*shape"],
    z_lens: Float[ArrayLike, ""] = 0.5,
    z_source: Float[ArrayLike, ""] = 1.0,
    *,
    H0: float = 70.0,
    Om0: float = 0.3,
    convention: Convention = "angular_diameter",
) -> Float[Array, "*shape"]:
    """Einstein radius of a point mass.

    Args:
      mass: solar masses, not negative.
      z_lens, z_source: redshifts.
      H0: Hubble's constant, km / s / Mpc.
      Om0: density of matter today, in units of the critical one.
      convention: see `lensing_distances`.

    Returns:
      The radius, arcsec: 1.66 for 1e12 solar masses at the default redshifts.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing", eq. 21.
    """
    lens, source, between = lensing_distances(
        z_lens, z_source, H0=H0, Om0=Om0, convention=convention
    )
    per_mass = jnp.sqrt(FOUR_G_OVER_C2 * between / (lens * source)) / ARCSEC
    return per_mass * jnp.sqrt(jnp.asarray(mass))
