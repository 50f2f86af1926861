"""Priors on dark substructure, used for simulated images and for Bayesian evidence.

Substructure consists of point masses; their squared Einstein radii are proportional to their masses.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lensjax.physics.checks import check_number
from lensjax.physics.types import Scalar


@dataclasses.dataclass(frozen=True)
class SubhaloPrior:
    """Prior on independent point masses around the lens.

    Attributes:
      number: number of point masses.
      theta_E_squared: range of the squared Einstein radius of a mass, arcsec^2; positive.
      exponent: theta_E_squared^exponent is uniform within the range; not 0, -1 or -2.
      distance: range of the distance from the lens, arcsec; uniform, in a random direction.

    Raises:
      ValueError: if the number is negative, a range is empty or includes 0, or the exponent is 0, -1, -2 or
        not finite.
    """

    number: int
    theta_E_squared: tuple[float, float]
    exponent: float
    distance: tuple[float, float]

    def __post_init__(self) -> None:
        _check_range("theta_E_squared of the subhalos", self.theta_E_squared)
        _check_range("distance of the subhalos", self.distance)
        check_number("number of subhalos", self.number, 0)
        if self.exponent in (0, -1, -2) or not abs(self.exponent) < float("inf"):
            raise ValueError(
                f"exponent of the subhalos is {self.exponent}; expected a finite number other than 0, -1, -2"
            )

    def moments(self) -> tuple[float, float]:
        """Means of theta_E_squared and of its square."""
        low, high = (end**self.exponent for end in self.theta_E_squared)
        powers = (power / self.exponent + 1 for power in (1, 2))
        mean, square = ((high**p - low**p) / (p * (high - low)) for p in powers)
        return mean, square

    def draw(self, key: Key[Array, ""]) -> Float[Array, "number 3"]:
        """Draws the Einstein radius, x and y of each mass, arcsec."""
        mass_key, distance_key, angle_key = jax.random.split(key, 3)
        low, high = sorted(end**self.exponent for end in self.theta_E_squared)
        power = jax.random.uniform(mass_key, (self.number,), minval=low, maxval=high)
        low, high = self.distance
        distance = jax.random.uniform(distance_key, (self.number,), minval=low, maxval=high)
        angle = jax.random.uniform(angle_key, (self.number,), maxval=2 * jnp.pi)
        theta_E = power ** (0.5 / self.exponent)
        return jnp.stack([theta_E, distance * jnp.cos(angle), distance * jnp.sin(angle)], axis=1)


@dataclasses.dataclass(frozen=True)
class VortexPrior:
    """Prior on equal point masses along a straight line in a random direction.

    Attributes:
      number: number of point masses; the first and the last are at the ends of the line.
      mass_fraction: range of the mass of the line relative to that of the main lens, as a ratio of squared
        Einstein radii; uniform.
      length: range of the length, arcsec; uniform.
      center_sigma: standard deviation of each coordinate of the center of the line, arcsec.

    Raises:
      ValueError: if there are fewer than two masses, a range is empty or includes 0, or `center_sigma` is not
        positive and finite.
    """

    number: int
    mass_fraction: tuple[float, float]
    length: tuple[float, float]
    center_sigma: float

    def __post_init__(self) -> None:
        check_number("number of masses of the vortex", self.number, 2)
        _check_range("mass_fraction of the vortex", self.mass_fraction)
        _check_range("length of the vortex", self.length)
        _check_positive("center_sigma of the vortex", self.center_sigma)

    def draw(self, key: Key[Array, ""], theta_E: Scalar) -> Float[Array, "number 3"]:
        """Draws the Einstein radius, x and y of each mass, arcsec; `theta_E` is that of the main lens."""
        mass_key, length_key, angle_key, center_key = jax.random.split(key, 4)
        fraction = _uniform(mass_key, self.mass_fraction)
        length = _uniform(length_key, self.length)
        center_x, center_y = self.center_sigma * jax.random.normal(center_key, (2,))
        angle = jax.random.uniform(angle_key, maxval=jnp.pi)
        return _line(self.number, theta_E * jnp.sqrt(fraction), length, angle, center_x, center_y)


@dataclasses.dataclass(frozen=True)
class BroadVortexPrior:
    """Prior on equal point masses along a line with a log-uniform length, up to a distance from the lens.

    Attributes:
      number: number of point masses; the first and the last are at the ends of the line.
      mass_fraction: range of the mass of the line relative to that of the main lens, as a ratio of squared
        Einstein radii; uniform.
      length: range of the length, arcsec; its logarithm is uniform.
      max_distance: largest distance of the center of the line from the lens, arcsec; uniform, in a random
        direction.

    Raises:
      ValueError: if there are fewer than two masses, a range is empty or includes 0, or `max_distance` is not
        positive and finite.
    """

    number: int
    mass_fraction: tuple[float, float]
    length: tuple[float, float]
    max_distance: float

    def __post_init__(self) -> None:
        check_number("number of masses of the vortex", self.number, 2)
        _check_range("mass_fraction of the vortex", self.mass_fraction)
        _check_range("length of the vortex", self.length)
        _check_positive("max_distance of the vortex", self.max_distance)

    def draw(self, key: Key[Array, ""], theta_E: Scalar) -> Float[Array, "number 3"]:
        """Draws the Einstein radius, x and y of each mass, arcsec; `theta_E` is that of the main lens."""
        mass_key, length_key, angle_key, distance_key, direction_key = jax.random.split(key, 5)
        fraction = _uniform(mass_key, self.mass_fraction)
        low, high = self.length
        length = low * (high / low) ** _uniform(length_key, (0.0, 1.0))
        distance = _uniform(distance_key, (0.0, self.max_distance))
        direction = jax.random.uniform(direction_key, maxval=2 * jnp.pi)
        center = distance * jnp.cos(direction), distance * jnp.sin(direction)
        angle = jax.random.uniform(angle_key, maxval=jnp.pi)
        return _line(self.number, theta_E * jnp.sqrt(fraction), length, angle, *center)


@dataclasses.dataclass(frozen=True)
class AxionVortexPrior:
    """Prior on equal point masses along a line through the center of the lens, one axion wavelength long.

    Attributes:
      number: number of point masses; the first and the last are at the ends of the line.
      theta_E_squared: sum of the squared Einstein radii, arcsec^2.
      log10_axion_mass: range of log10 of the axion mass in eV; uniform.
      length: length of the line for an axion mass of 1e-22 eV, arcsec; the length is inversely proportional
        to the axion mass.

    Raises:
      ValueError: if there are fewer than two masses, `theta_E_squared` or `length` is not positive and
        finite, or the range is not finite or in descending order.
    """

    number: int
    theta_E_squared: float
    log10_axion_mass: tuple[float, float]
    length: float

    def __post_init__(self) -> None:
        check_number("number of masses of the axion vortex", self.number, 2)
        low, high = self.log10_axion_mass
        if not -float("inf") < low <= high < float("inf"):
            raise ValueError(f"log10_axion_mass is {self.log10_axion_mass}; expected lower end <= upper end")
        for name in ("theta_E_squared", "length"):
            _check_positive(f"{name} of the axion vortex", getattr(self, name))

    def draw(self, key: Key[Array, ""]) -> tuple[Float[Array, "number 3"], Float[Array, ""]]:
        """Draws the Einstein radius, x and y of each mass, arcsec, and the axion mass, eV."""
        mass_key, angle_key = jax.random.split(key)
        log10_mass = _uniform(mass_key, self.log10_axion_mass)
        length = self.length * 10 ** (-22 - log10_mass)
        angle = jax.random.uniform(angle_key, maxval=jnp.pi)
        return _line(self.number, self.theta_E_squared**0.5, length, angle, 0.0, 0.0), 10**log10_mass


@dataclasses.dataclass(frozen=True)
class SubstructurePrior:
    """Priors on both kinds of substructure.

    Attributes:
      subhalos: prior for the class "sphere".
      vortex: prior for the class "vort".
    """

    subhalos: SubhaloPrior
    vortex: VortexPrior | BroadVortexPrior | AxionVortexPrior


def _line(
    number: int, theta_E: Scalar, length: Scalar, angle: Scalar, center_x: Scalar, center_y: Scalar
) -> Float[Array, "number 3"]:
    """Equal point masses along a line; `theta_E` is the Einstein radius of their sum."""
    along = length * jnp.linspace(-0.5, 0.5, number)
    x, y = center_x + along * jnp.cos(angle), center_y + along * jnp.sin(angle)
    return jnp.stack([jnp.full_like(x, theta_E / number**0.5), x, y], axis=1)


def _uniform(key: Key[Array, ""], limits: tuple[float, float]) -> Float[Array, ""]:
    return jax.random.uniform(key, minval=limits[0], maxval=limits[1])


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}; it must be positive and finite")


def _check_range(name: str, limits: tuple[float, float]) -> None:
    if not 0 < limits[0] < limits[1] < float("inf"):
        raise ValueError(f"{name} has the range {limits}; expected 0 < lower end < upper end")
