"""What substructure there may be, as plain data: priors of point masses and of a line of masses."""

import dataclasses

from lensjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class PointMasses:
    """Point masses about the lens, independent of one another.

    Attributes:
      number: how many.
      theta_E_squared: least and largest squared Einstein radius of one, arcsec^2; above 0.
      exponent: theta_E_squared^exponent is uniform between the two ends' values.
      distance: least and largest distance from the image's centre; uniform between, at any angle, arcsec.
    """

    number: int
    theta_E_squared: tuple[float, float]
    exponent: float
    distance: tuple[float, float]

    def __post_init__(self) -> None:
        _check("theta_E_squared of the point masses", self.theta_E_squared)
        _check("distance of the point masses", self.distance)

    def moments(self) -> tuple[float, float]:
        """Mean of theta_E_squared, and of its square."""
        low, high = (end**self.exponent for end in self.theta_E_squared)
        powers = (power / self.exponent + 1 for power in (1, 2))
        mean, square = ((high**p - low**p) / (p * (high - low)) for p in powers)
        return mean, square


@dataclasses.dataclass(frozen=True)
class MassLine:
    """Equal point masses on a straight line at any angle.

    Attributes:
      number: how many; the first and the last lie on the line's ends.
      theta_E_squared: least and largest sum of the squared Einstein radii, uniform between, arcsec^2.
      length: least and largest, uniform between, arcsec.
      center_sigma: standard deviation of the line's centre on each axis, arcsec.
    """

    number: int
    theta_E_squared: tuple[float, float]
    length: tuple[float, float]
    center_sigma: float

    def __post_init__(self) -> None:
        _check("theta_E_squared of the line", self.theta_E_squared)
        _check("length of the line", self.length)
        if not self.center_sigma > 0:
            raise UserError(f"center_sigma of the line is {self.center_sigma}; it must be above 0")


@dataclasses.dataclass(frozen=True)
class SubstructurePrior:
    """What an image may have beside the smooth lens: nothing, point masses, or a line of masses."""

    masses: PointMasses
    line: MassLine


def _check(what: str, limits: tuple[float, float]) -> None:
    if not 0 < limits[0] < limits[1]:
        raise UserError(f"{what} is from {limits[0]} to {limits[1]}; expected 0 < least < largest")
