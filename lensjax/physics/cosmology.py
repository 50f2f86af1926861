"""Cosmological distances in flat LCDM, and conversions between Einstein radius, mass and velocity dispersion.

Distances are in Mpc, masses in solar masses, radii in arcsec. The functions are differentiable in all
arguments, including the redshifts. Arguments may be arrays, which are broadcast against each other. Undefined
results are NaN: those for a redshift or `Om0` below 0, and for an `H0` that is not positive. An unknown
convention raises a `ValueError`.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from lensjax.physics.checks import as_float

SPEED_OF_LIGHT = 299_792.458  # km / s
GM_SUN = 1.32712440018e20  # G times the mass of the Sun, m^3 / s^2
MEGAPARSEC = 3.0856775814913673e22  # m
FOUR_G_OVER_C2 = 4 * GM_SUN / (SPEED_OF_LIGHT * 1e3) ** 2 / MEGAPARSEC  # Mpc per solar mass
ARCSEC = np.pi / (180 * 3600)  # rad

Convention = Literal["angular_diameter", "deeplensesim"]
# Numbers or arrays; all arguments of a call are broadcast against each other.
Values = Real[ArrayLike, "..."]
Result = Float[Array, "..."]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def comoving_distance(z: Values, *, H0: Values = 70.0, Om0: Values = 0.3) -> Result:
    """Comoving distance in flat LCDM without radiation.

    Args:
      z: redshift.
      H0: Hubble constant, km / s / Mpc.
      Om0: matter density today in units of the critical density.

    Returns:
      The distance, Mpc, with a relative accuracy of 1e-10 in float64; NaN for a redshift above 100 if Om0 is
      below 0.001, for which the quadrature is less accurate. Radiation, which is not included, matters at
      redshifts of about 100 and more.

    Reference: Hogg 1999, "Distance measures in cosmology", eq. 15.
    """
    z, H0, Om0 = _broadcast(z, H0, Om0)
    return _comoving_distance_between(jnp.zeros_like(z), z, H0, Om0)


def lensing_distances(
    z_lens: Values,
    z_source: Values,
    *,
    H0: Values = 70.0,
    Om0: Values = 0.3,
    convention: Convention = "angular_diameter",
) -> tuple[Result, Result, Result]:
    """Distances to the lens, to the source, and from lens to source.

    Args:
      z_lens, z_source: redshifts.
      H0: Hubble constant, km / s / Mpc.
      Om0: matter density today in units of the critical density.
      convention: "angular_diameter" is correct. "deeplensesim" is the convention of DeepLenseSim and the
        data published with it: luminosity distances, and their difference as the distance between the planes.

    Returns:
      D_L, D_S and D_LS, Mpc; D_LS is NaN for a source in front of the lens.

    Raises:
      ValueError: if the convention is unknown.
    """
    z_lens, z_source, H0, Om0 = _broadcast(z_lens, z_source, H0, Om0)
    lens, source, between = _lensing_distances(convention, z_lens, z_source, H0, Om0)
    return lens, source, jnp.where(z_source >= z_lens, between, jnp.nan)


def time_delay_distance(z_lens: Values, z_source: Values, *, H0: Values = 70.0, Om0: Values = 0.3) -> Result:
    """Time-delay distance (1 + z_lens) D_L D_S / D_LS. Arguments as for `lensing_distances`.

    Returns:
      The distance, Mpc; infinite if the redshifts are equal, and NaN for a source in front of the lens.

    Reference: Refsdal 1964; Suyu et al. 2010, ApJ 711, 201, eq. 2.
    """
    lens, source, between = lensing_distances(z_lens, z_source, H0=H0, Om0=Om0)
    return _broadcast(1 + as_float(z_lens), lens)[0] * lens * source / between


def einstein_radius(
    mass: Values,
    z_lens: Values = 0.5,
    z_source: Values = 1.0,
    *,
    H0: Values = 70.0,
    Om0: Values = 0.3,
    convention: Convention = "angular_diameter",
) -> Result:
    """Einstein radius of a point mass.

    Args:
      mass: nonnegative mass, solar masses.
      z_lens, z_source, H0, Om0, convention: as for `lensing_distances`.

    Returns:
      The radius, arcsec: 1.66 for 1e12 solar masses at the default redshifts; 0 for a source in front of the
      lens. The radius grows as the square root of the mass, with an infinite slope at 0. Its square, to which
      the deflection is proportional, is `einstein_radius(1.0)**2 * mass`.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing", eq. 21.
    """
    mass, *cosmology = _broadcast(mass, z_lens, z_source, H0, Om0)
    return _safe_sqrt(_squared_radius_per_mass(convention, *cosmology)) / ARCSEC * jnp.sqrt(mass)


def einstein_mass(
    theta_E: Values,
    z_lens: Values = 0.5,
    z_source: Values = 1.0,
    *,
    H0: Values = 70.0,
    Om0: Values = 0.3,
    convention: Convention = "angular_diameter",
) -> Result:
    """Mass of a point mass with a given Einstein radius; the inverse of `einstein_radius`.

    For any circularly symmetric lens, this is the mass within the Einstein radius.

    Args:
      theta_E: Einstein radius, arcsec.
      z_lens, z_source, H0, Om0, convention: as for `lensing_distances`, with z_source > z_lens.

    Returns:
      The mass, solar masses; infinite for a source that is not behind the lens.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing", eq. 21.
    """
    theta_E, *cosmology = _broadcast(theta_E, z_lens, z_source, H0, Om0)
    return (ARCSEC * theta_E) ** 2 / _squared_radius_per_mass(convention, *cosmology)


def sis_einstein_radius(
    velocity_dispersion: Values,
    z_lens: Values = 0.5,
    z_source: Values = 1.0,
    *,
    H0: Values = 70.0,
    Om0: Values = 0.3,
    convention: Convention = "angular_diameter",
) -> Result:
    """Einstein radius of a singular isothermal sphere: 4 pi (sigma / c)^2 D_LS / D_S.

    Args:
      velocity_dispersion: line-of-sight velocity dispersion of the stars, km / s.
      z_lens, z_source, H0, Om0, convention: as for `lensing_distances`; the radius does not depend on H0.

    Returns:
      The radius, arcsec: 0.49 for 200 km / s at the default redshifts; 0 for a source in front of the lens.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
    """
    velocity_dispersion, *cosmology = _broadcast(velocity_dispersion, z_lens, z_source, H0, Om0)
    _, source, between = _lensing_distances(convention, *cosmology)
    ratio = jnp.maximum(between, 0) / source
    return 4 * np.pi / ARCSEC * (velocity_dispersion / SPEED_OF_LIGHT) ** 2 * ratio


def sis_velocity_dispersion(
    theta_E: Values,
    z_lens: Values = 0.5,
    z_source: Values = 1.0,
    *,
    H0: Values = 70.0,
    Om0: Values = 0.3,
    convention: Convention = "angular_diameter",
) -> Result:
    """Velocity dispersion of a singular isothermal sphere; the inverse of `sis_einstein_radius`.

    Args:
      theta_E: nonnegative Einstein radius, arcsec; at 0, the slope is infinite.
      z_lens, z_source, H0, Om0, convention: as for `lensing_distances`, with z_source > z_lens; the
        dispersion does not depend on H0.

    Returns:
      The dispersion, km / s; infinite for a source that is not behind the lens.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
    """
    at_light_speed = sis_einstein_radius(
        SPEED_OF_LIGHT, z_lens, z_source, H0=H0, Om0=Om0, convention=convention
    )
    theta_E, at_light_speed = _broadcast(theta_E, at_light_speed)
    return SPEED_OF_LIGHT * jnp.sqrt(theta_E / at_light_speed)


def _broadcast(*values: Values) -> tuple[Array, ...]:
    arrays = [as_float(value).astype(jnp.result_type(float)) for value in values]
    return tuple(jnp.broadcast_arrays(*arrays))


def _comoving_distance_between(near: Array, far: Array, H0: Array, Om0: Array) -> Array:
    """Comoving distance between two redshifts, without the cancellation of a difference of distances.

    With u = 1 / sqrt(1 + z), it is c / H0 times the integral of 2 / sqrt(Om0 + (1 - Om0) u^6), which is
    smooth at any redshift.
    """
    near_root, far_root = jnp.sqrt(1 + near), jnp.sqrt(1 + far)
    interval = (far - near) / (near_root * far_root * (near_root + far_root))
    axes = (1,) * near.ndim
    nodes, weights = (jnp.asarray(array, near.dtype).reshape(*axes, -1) for array in (_NODES, _WEIGHTS))
    u = (1 / near_root)[..., None] - interval[..., None] * ((1 + nodes) / 2)
    matter = Om0[..., None]
    distance = SPEED_OF_LIGHT / H0 * interval * jnp.sum(weights / jnp.sqrt(matter + (1 - matter) * u**6), -1)
    is_known = (near >= 0) & (far >= 0) & (H0 > 0) & (Om0 >= 0) & ((Om0 >= 0.001) | (far <= 100))
    return jnp.where(is_known, distance, jnp.nan)


def _lensing_distances(
    convention: Convention, z_lens: Array, z_source: Array, H0: Array, Om0: Array
) -> tuple[Array, Array, Array]:
    """The distances of `lensing_distances`; D_LS is negative for a source in front of the lens."""
    lens = _comoving_distance_between(jnp.zeros_like(z_lens), z_lens, H0, Om0)
    source = _comoving_distance_between(jnp.zeros_like(z_source), z_source, H0, Om0)
    between = _comoving_distance_between(z_lens, z_source, H0, Om0)
    if convention == "angular_diameter":
        return lens / (1 + z_lens), source / (1 + z_source), between / (1 + z_source)
    if convention == "deeplensesim":
        difference = between * (1 + z_source) + lens * (z_source - z_lens)
        return lens * (1 + z_lens), source * (1 + z_source), difference
    raise ValueError(f"unknown convention {convention!r}; use 'angular_diameter' or 'deeplensesim'")


def _squared_radius_per_mass(
    convention: Convention, z_lens: Array, z_source: Array, H0: Array, Om0: Array
) -> Array:
    """Squared Einstein radius of a point mass per unit mass, rad^2 per solar mass."""
    lens, source, between = _lensing_distances(convention, z_lens, z_source, H0, Om0)
    return FOUR_G_OVER_C2 * jnp.maximum(between, 0) / (lens * source)


def _safe_sqrt(square: Array) -> Array:
    """Square root with derivative 0 at 0, for sources in front of the lens."""
    not_positive = square <= 0
    return jnp.where(not_positive, 0, jnp.sqrt(jnp.where(not_positive, 1, square)))
