"""Priors on the substructure (point masses or a line of masses) as plain data."""

import dataclasses

from lensjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class PointMasses:
    """Prior on independent point masses around the lens.

    Attributes:
      number: number of point masses.
      theta_E_squared: range of the squared Einstein radius of a mass, arcsec^2; positive.
      exponent: theta_E_squared^exponent is uniform within the range.
      distance: range of the distance from the center of the image, arcsec; uniform, with a random
        direction.
    """

    number: int
    theta_E_squared: tuple[float, float]
    exponent: float
    distance: tuple[float, float]

    def __post_init__(self) -> None:
        _check("theta_E_squared of the point masses", self.theta_E_squared)
        _check("distance of the point masses", self.distance)

    def moments(self) -> tuple[float, float]:
        """Mean of theta_E_squared and of its square."""
        low, high = (end**self.exponent for end in self.theta_E_squared)
        powers = (power / self.exponent + 1 for power in (1, 2))
        mean, square = ((high**p - low**p) / (p * (high - low)) for p in powers)
        return mean, square


@dataclasses.dataclass(frozen=True)
class MassLine:
    """Prior on equal point masses along a straight line in a random direction.

    Attributes:
      number: number of point masses; the first and the last are at the ends of the line.
      theta_E_squared: range of the sum of the squared Einstein radii, arcsec^2; uniform.
      length: range of the length, arcsec; uniform.
      center_sigma: standard deviation of each coordinate of the center of the line, arcsec.
    """

    number: int
    theta_E_squared: tuple[float, float]
    length: tuple[float, float]
    center_sigma: float

    def __post_init__(self) -> None:
        _check("theta_E_squared of the line", self.theta_E_squared)
        _check("length of the line", self.length)
        if not self.center_sigma > 0:
            raise UserError(f"center_sigma of the line is {self.center_sigma}; it must be positive")


@dataclasses.dataclass(frozen=True)
class SubstructurePrior:
    """Priors on both kinds of substructure.

    Attributes:
      masses: prior on point masses.
      line: prior on a line of masses.
    """

    masses: PointMasses
    line: MassLine


def _check(name: str, limits: tuple[float, float]) -> None:
    if not 0 < limits[0] < limits[1]:
        raise UserError(f"{name} has the range {limits}; expected 0 < lower end < upper end")
