"""Cosmological distances in flat LCDM, and conversions between Einstein radius, mass and velocity dispersion.

Distances are in Mpc, masses in solar masses, radii in arcsec. The functions are differentiable in all
arguments, including the redshifts.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.types import Scalar

SPEED_OF_LIGHT = 299_792.458  # km / s
GM_SUN = 1.32712440018e20  # G times the mass of the Sun, m^3 / s^2
MEGAPARSEC = 3.0856775814913673e22  # m
FOUR_G_OVER_C2 = 4 * GM_SUN / (SPEED_OF_LIGHT * 1e3) ** 2 / MEGAPARSEC  # Mpc per solar mass
ARCSEC = np.pi / (180 * 3600)  # rad

Convention = Literal["angular_diameter", "deeplensesim"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def comoving_distance(z: Scalar, *, H0: Scalar = 70.0, Om0: Scalar = 0.3) -> Float[Array, ""]:
    """Comoving distance in flat LCDM without radiation.

    Args:
      z: redshift; the quadrature is accurate to 1e-10 up to z = 10.
      H0: Hubble constant, km / s / Mpc.
      Om0: matter density today in units of the critical density.

    Returns:
      The distance, Mpc.

    Reference: Hogg 1999, "Distance measures in cosmology", eq. 15.
    """
    redshift = jnp.asarray(z, jnp.result_type(float))
    nodes, weights = (jnp.asarray(array, redshift.dtype) for array in (_NODES, _WEIGHTS))
    expansion = jnp.sqrt(Om0 * (1 + redshift * (nodes + 1) / 2) ** 3 + (1 - Om0))
    return jnp.asarray(SPEED_OF_LIGHT / H0 * redshift / 2 * jnp.sum(weights / expansion))


def lensing_distances(
    z_lens: Scalar,
    z_source: Scalar,
    *,
    H0: Scalar = 70.0,
    Om0: Scalar = 0.3,
    convention: Convention = "angular_diameter",
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Distances to the lens, to the source, and from lens to source.

    Args:
      z_lens, z_source: redshifts.
      H0: Hubble constant, km / s / Mpc.
      Om0: matter density today in units of the critical density.
      convention: "angular_diameter" is correct. "deeplensesim" is the convention of DeepLenseSim and the
        data published with it: luminosity distances, and their difference as the distance between the planes.

    Returns:
      D_L, D_S and D_LS, Mpc.

    Raises:
      ValueError: if the convention is unknown.
    """
    lens = comoving_distance(z_lens, H0=H0, Om0=Om0)
    source = comoving_distance(z_source, H0=H0, Om0=Om0)
    lens_factor, source_factor = 1 + jnp.asarray(z_lens), 1 + jnp.asarray(z_source)
    if convention == "angular_diameter":
        return lens / lens_factor, source / source_factor, (source - lens) / source_factor
    if convention == "deeplensesim":
        return (lens * lens_factor, source * source_factor, source * source_factor - lens * lens_factor)
    raise ValueError(f"unknown convention {convention!r}; use 'angular_diameter' or 'deeplensesim'")


def time_delay_distance(
    z_lens: Scalar, z_source: Scalar, *, H0: Scalar = 70.0, Om0: Scalar = 0.3
) -> Float[Array, ""]:
    """Time-delay distance (1 + z_lens) D_L D_S / D_LS.

    Args:
      z_lens, z_source: redshifts; the distance is infinite if they are equal.
      H0: Hubble constant, km / s / Mpc.
      Om0: matter density today in units of the critical density.

    Returns:
      The distance, Mpc.

    Reference: Refsdal 1964; Suyu et al. 2010, ApJ 711, 201, eq. 2.
    """
    lens, source, between = lensing_distances(z_lens, z_source, H0=H0, Om0=Om0)
    return (1 + jnp.asarray(z_lens)) * lens * source / between


def einstein_radius(
    mass: Float[ArrayLike, "*shape"],
    z_lens: Scalar = 0.5,
    z_source: Scalar = 1.0,
    *,
    H0: Scalar = 70.0,
    Om0: Scalar = 0.3,
    convention: Convention = "angular_diameter",
) -> Float[Array, "*shape"]:
    """Einstein radius of a point mass.

    Args:
      mass: nonnegative mass, solar masses.
      z_lens, z_source: redshifts.
      H0: Hubble constant, km / s / Mpc.
      Om0: matter density today in units of the critical density.
      convention: see `lensing_distances`.

    Returns:
      The radius, arcsec: 1.66 for 1e12 solar masses at the default redshifts; 0 for a source in front of the
      lens. The radius grows as the square root of the mass, with an infinite slope at 0. Its square, to which
      the deflection is proportional, is `einstein_radius(1.0)**2 * mass`.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing", eq. 21.
    """
    squared = _squared_radius_per_mass(z_lens, z_source, H0, Om0, convention)
    return _safe_sqrt(squared) / ARCSEC * jnp.sqrt(jnp.asarray(mass))


def einstein_mass(
    theta_E: Float[ArrayLike, "*shape"],
    z_lens: Scalar = 0.5,
    z_source: Scalar = 1.0,
    *,
    H0: Scalar = 70.0,
    Om0: Scalar = 0.3,
    convention: Convention = "angular_diameter",
) -> Float[Array, "*shape"]:
    """Mass of a point mass with a given Einstein radius; the inverse of `einstein_radius`.

    For any circularly symmetric lens, this is the mass within the Einstein radius.

    Args:
      theta_E: Einstein radius, arcsec.
      z_lens, z_source: redshifts, z_source > z_lens; the mass is infinite if they are equal.
      H0: Hubble constant, km / s / Mpc.
      Om0: matter density today in units of the critical density.
      convention: see `lensing_distances`.

    Returns:
      The mass, solar masses.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing", eq. 21.
    """
    squared = _squared_radius_per_mass(z_lens, z_source, H0, Om0, convention)
    return (ARCSEC * jnp.asarray(theta_E)) ** 2 / squared


def sis_einstein_radius(
    velocity_dispersion: Float[ArrayLike, "*shape"],
    z_lens: Scalar = 0.5,
    z_source: Scalar = 1.0,
    *,
    H0: Scalar = 70.0,
    Om0: Scalar = 0.3,
    convention: Convention = "angular_diameter",
) -> Float[Array, "*shape"]:
    """Einstein radius of a singular isothermal sphere: 4 pi (sigma / c)^2 D_LS / D_S.

    Args:
      velocity_dispersion: line-of-sight velocity dispersion of the stars, km / s.
      z_lens, z_source: redshifts.
      H0: Hubble constant, km / s / Mpc; the radius does not depend on it.
      Om0: matter density today in units of the critical density.
      convention: see `lensing_distances`.

    Returns:
      The radius, arcsec: 0.57 for 200 km / s at the default redshifts; 0 for a source in front of the lens.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
    """
    _, source, between = lensing_distances(z_lens, z_source, H0=H0, Om0=Om0, convention=convention)
    ratio = jnp.maximum(between, 0) / source
    return 4 * np.pi / ARCSEC * (jnp.asarray(velocity_dispersion) / SPEED_OF_LIGHT) ** 2 * ratio


def sis_velocity_dispersion(
    theta_E: Float[ArrayLike, "*shape"],
    z_lens: Scalar = 0.5,
    z_source: Scalar = 1.0,
    *,
    H0: Scalar = 70.0,
    Om0: Scalar = 0.3,
    convention: Convention = "angular_diameter",
) -> Float[Array, "*shape"]:
    """Velocity dispersion of a singular isothermal sphere; the inverse of `sis_einstein_radius`.

    Args:
      theta_E: nonnegative Einstein radius, arcsec; at 0, the slope is infinite.
      z_lens, z_source: redshifts, z_source > z_lens; the dispersion is infinite if they are equal.
      H0: Hubble constant, km / s / Mpc; the dispersion does not depend on it.
      Om0: matter density today in units of the critical density.
      convention: see `lensing_distances`.

    Returns:
      The dispersion, km / s.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
    """
    at_light_speed = sis_einstein_radius(
        SPEED_OF_LIGHT, z_lens, z_source, H0=H0, Om0=Om0, convention=convention
    )
    return SPEED_OF_LIGHT * jnp.sqrt(jnp.asarray(theta_E) / at_light_speed)


def _squared_radius_per_mass(
    z_lens: ArrayLike, z_source: ArrayLike, H0: ArrayLike, Om0: ArrayLike, convention: Convention
) -> Array:
    """Squared Einstein radius of a point mass per unit mass, rad^2 per solar mass."""
    lens, source, between = lensing_distances(z_lens, z_source, H0=H0, Om0=Om0, convention=convention)
    return FOUR_G_OVER_C2 * jnp.maximum(between, 0) / (lens * source)


def _safe_sqrt(square: Array) -> Array:
    """Square root with derivative 0 at 0, for sources in front of the lens."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
