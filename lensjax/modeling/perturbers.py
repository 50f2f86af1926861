"""Mass components besides the main lens: halos and multipoles, with parameters named as in lenstronomy."""

import dataclasses
import functools
from typing import ClassVar

from jaxtyping import Array

from lensjax import physics
from lensjax.errors import UserError
from lensjax.modeling.components import Values, as_method
from lensjax.modeling.parameter import Parameter

_COORDINATE = Parameter.fitted((0.0, 0.0), (-6.0, 6.0))
_POINT_RADIUS = Parameter.fitted((0.05, 0.05), (1e-4, 1.0))
_CONVERGENCE = Parameter.fitted((0.5, 0.5), (1e-4, 1e3))
_CORE_RADIUS = Parameter.fixed(0.005)
_TRUNCATION_RADIUS = Parameter.fixed(0.1)
_SCALE_DEFLECTION = Parameter.fitted((0.02, 0.02), (1e-6, 2.0))
_SCALE_RADIUS = Parameter.fixed(0.3)
_MULTIPOLE = Parameter.fitted((0.0, 0.0), (-0.3, 0.3), prior=(0.0, 0.01))
_ZERO = Parameter.fixed(0.0)
_FOUR = Parameter.fixed(4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointMass:
    """Point mass; parameters as in `physics.point_mass_deflection`."""

    lenstronomy: ClassVar[str] = "POINT_MASS"
    theta_E: Parameter = _POINT_RADIUS
    center_x: Parameter = _COORDINATE
    center_y: Parameter = _COORDINATE
    # The softening is far below the resolution of an image and keeps derivatives finite.
    deflection = as_method(functools.partial(physics.point_mass_deflection, core=1e-4))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoJaffe:
    """Truncated isothermal sphere with a core; parameters as in `physics.pseudo_jaffe_deflection`."""

    lenstronomy: ClassVar[str] = "PJAFFE"
    sigma0: Parameter = _CONVERGENCE
    Ra: Parameter = _CORE_RADIUS
    Rs: Parameter = _TRUNCATION_RADIUS
    center_x: Parameter = _COORDINATE
    center_y: Parameter = _COORDINATE
    deflection = as_method(physics.pseudo_jaffe_deflection)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NFW:
    """Navarro-Frenk-White halo; parameters as in `physics.nfw_deflection`."""

    lenstronomy: ClassVar[str] = "NFW"
    alpha_Rs: Parameter = _SCALE_DEFLECTION
    Rs: Parameter = _SCALE_RADIUS
    center_x: Parameter = _COORDINATE
    center_y: Parameter = _COORDINATE
    deflection = as_method(physics.nfw_deflection)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Multipole:
    """Multipole of an isothermal lens; parameters as in `physics.multipole_deflection`.

    The order `m` is fixed. A pair of multipoles with `phi_m` of 0 and pi / (2 m) can have any orientation.

    Raises:
      UserError: if `m` is not a fixed whole number of at least 2.
    """

    lenstronomy: ClassVar[str] = "MULTIPOLE"
    m: Parameter = _FOUR
    a_m: Parameter = _MULTIPOLE
    phi_m: Parameter = _ZERO
    center_x: Parameter = _ZERO
    center_y: Parameter = _ZERO

    def __post_init__(self) -> None:
        if self.m.free or self.m.value < 2 or self.m.value != int(self.m.value):
            raise UserError(
                f"the order m of a Multipole is {self.m}; give Parameter.fixed with an integer of at least 2"
            )

    def deflection(self, x: Array, y: Array, values: Values) -> tuple[Array, Array]:
        """Deflection at x and y, arcsec."""
        return physics.multipole_deflection(x, y, **{**values, "m": int(values["m"])})
