"""Components of a lens model: mass and light profiles, with parameters named as in lenstronomy.

A mass component has a `deflection`. A light component has `columns`: images of unit amplitude whose sum,
weighted by linear amplitudes, is the light. The same light components describe a foreground galaxy (in the
image plane) and a source (in the source plane).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax import physics
from lensjax.errors import UserError
from lensjax.modeling.parameter import Parameter

Values = Mapping[str, Any]  # parameter name -> scalar
Deflection = Callable[..., tuple[Array, Array]]

_COORDINATE = Parameter.fitted((0.0, 0.0), (-2.0, 2.0))
_ELLIPTICITY = Parameter.fitted((0.0, 0.0), (-0.6, 0.6))
_EINSTEIN_RADIUS = Parameter.fitted((0.5, 2.2), (0.05, 6.0))
_SLOPE = Parameter.fitted((2.0, 2.0), (1.4, 2.6), prior=(2.08, 0.2))
_SHEAR = Parameter.fitted((0.0, 0.0), (-0.5, 0.5))
_HALF_LIGHT_RADIUS = Parameter.fitted((0.1, 1.0), (0.01, 10.0))
_SERSIC_INDEX = Parameter.fitted((1.0, 4.0), (0.3, 8.0))


@runtime_checkable
class Mass(Protocol):
    """A mass component.

    Attributes:
      lenstronomy: name of the same profile in lenstronomy.
    """

    lenstronomy: ClassVar[str]

    def deflection(self, x: Array, y: Array, values: Values) -> tuple[Array, Array]:
        """Deflection at x and y, arcsec."""


@runtime_checkable
class LightComponent(Protocol):
    """A light component with linear amplitudes.

    Attributes:
      nonnegative: True if its amplitudes must not be negative.
    """

    nonnegative: ClassVar[bool]

    @property
    def size(self) -> int:
        """Number of amplitudes."""

    def columns(self, x: Array, y: Array, values: Values) -> Float[Array, "size *grid"]:
        """Images of unit amplitude at x and y, arcsec."""

    def to_lenstronomy(self, values: Values, amplitudes: np.ndarray) -> list[tuple[str, dict[str, float]]]:
        """Names and arguments of lenstronomy's light profiles with the same light."""


@runtime_checkable
class DirectImage(Protocol):
    """A light component whose image needs less work than the sum of its columns."""

    def image(self, x: Array, y: Array, values: Values, amplitudes: Float[Array, "size"]) -> Array:
        """The sum of the columns times the amplitudes."""


def component_parameters(component: Any) -> dict[str, Parameter]:
    """The parameters of a component by name, in the order of its fields."""
    fields = {field.name: getattr(component, field.name) for field in dataclasses.fields(component)}
    return {name: value for name, value in fields.items() if isinstance(value, Parameter)}


def check_parameters(component: Any) -> None:
    """Checks that the fields of a component that are parameters are instances of `Parameter`.

    Raises:
      UserError: if one is not, such as a number.
    """
    for field in dataclasses.fields(component):
        kind: Any = field.type
        value = getattr(component, field.name)
        if kind in (Parameter, Parameter | None) and not isinstance(value, kind):
            raise UserError(
                f"{field.name} of {type(component).__name__} is {value!r}; expected a Parameter, such as "
                "Parameter.fixed(1.0)"
            )


def as_method(profile: Deflection) -> Callable[[Any, Array, Array, Values], tuple[Array, Array]]:
    """A deflection of `lensjax.physics` as the method `deflection` of a mass component."""

    def deflection(self: Any, x: Array, y: Array, values: Values) -> tuple[Array, Array]:
        """Deflection at x and y, arcsec."""
        return profile(x, y, **values)

    return deflection


@dataclasses.dataclass(frozen=True, kw_only=True)
class SIS:
    """Singular isothermal sphere; parameters as in `physics.sis_deflection`."""

    lenstronomy: ClassVar[str] = "SIS"
    theta_E: Parameter = _EINSTEIN_RADIUS
    center_x: Parameter = _COORDINATE
    center_y: Parameter = _COORDINATE
    deflection = as_method(physics.sis_deflection)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SIE:
    """Singular isothermal ellipsoid; parameters as in `physics.sie_deflection`."""

    lenstronomy: ClassVar[str] = "SIE"
    theta_E: Parameter = _EINSTEIN_RADIUS
    e1: Parameter = _ELLIPTICITY
    e2: Parameter = _ELLIPTICITY
    center_x: Parameter = _COORDINATE
    center_y: Parameter = _COORDINATE
    deflection = as_method(physics.sie_deflection)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EPL:
    """Elliptical power law; parameters as in `physics.epl_deflection`."""

    lenstronomy: ClassVar[str] = "EPL"
    theta_E: Parameter = _EINSTEIN_RADIUS
    gamma: Parameter = _SLOPE
    e1: Parameter = _ELLIPTICITY
    e2: Parameter = _ELLIPTICITY
    center_x: Parameter = _COORDINATE
    center_y: Parameter = _COORDINATE
    deflection = as_method(physics.epl_deflection)


MAIN_LENSES: dict[str, Any] = {"sis": SIS, "sie": SIE, "epl": EPL}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shear:
    """External shear about the center of the image; parameters as in `physics.external_shear_deflection`."""

    lenstronomy: ClassVar[str] = "SHEAR"
    gamma1: Parameter = _SHEAR
    gamma2: Parameter = _SHEAR
    deflection = as_method(physics.external_shear_deflection)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sersic:
    """Elliptical Sersic profile; parameters and `core` (arcsec) as in `physics.sersic`."""

    nonnegative: ClassVar[bool] = True
    size: ClassVar[int] = 1
    center_x: Parameter = _COORDINATE
    center_y: Parameter = _COORDINATE
    e1: Parameter = _ELLIPTICITY
    e2: Parameter = _ELLIPTICITY
    R_sersic: Parameter = _HALF_LIGHT_RADIUS
    n_sersic: Parameter = _SERSIC_INDEX
    core: float = 1e-3

    def columns(self, x: Array, y: Array, values: Values) -> Float[Array, "1 *grid"]:
        """Image of unit surface brightness at the half-light radius."""
        return physics.sersic(x, y, 1.0, **values, core=self.core)[None]

    def to_lenstronomy(self, values: Values, amplitudes: np.ndarray) -> list[tuple[str, dict[str, float]]]:
        """Names and arguments of lenstronomy's light profiles with the same light."""
        return [("SERSIC_ELLIPSE", to_floats({"amp": amplitudes[0], **values}))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiGaussian:
    """Sum of Gaussians with a common center and fixed widths (multi-Gaussian expansion).

    The ellipticity is a linear function of the logarithm of the width: (e1, e2) at the smallest width and
    (outer_e1, outer_e2) at the largest; with `outer_e1=None` and `outer_e2=None`, all have the same
    ellipticity.

    Attributes:
      smallest, largest: standard deviations of the narrowest and widest Gaussian, arcsec.
      number: number of Gaussians; their widths are in equal logarithmic steps.
      e1, e2: ellipticity of the narrowest Gaussian.
      outer_e1, outer_e2: ellipticity of the widest Gaussian, or None.
      center_x, center_y: position of the center, arcsec.

    Raises:
      UserError: if the widths are not positive and increasing, there are fewer than two, or only one of
        `outer_e1` and `outer_e2` is None.
    """

    nonnegative: ClassVar[bool] = True
    smallest: float = 0.02
    largest: float = 4.0
    number: int = 16
    e1: Parameter = _ELLIPTICITY
    e2: Parameter = _ELLIPTICITY
    outer_e1: Parameter | None = _ELLIPTICITY
    outer_e2: Parameter | None = _ELLIPTICITY
    center_x: Parameter = _COORDINATE
    center_y: Parameter = _COORDINATE

    def __post_init__(self) -> None:
        if not 0 < self.smallest < self.largest < math.inf or self.number < 2:
            raise UserError(
                f"a MultiGaussian has {self.number} widths from {self.smallest} to {self.largest} arcsec; "
                "expected at least 2, and 0 < smallest < largest"
            )
        if (self.outer_e1 is None) != (self.outer_e2 is None):
            raise UserError("give both outer_e1 and outer_e2 of a MultiGaussian, or None for both")

    @property
    def size(self) -> int:
        """Number of amplitudes."""
        return self.number

    @property
    def sigmas(self) -> np.ndarray:
        """Standard deviations of the Gaussians, arcsec."""
        return np.geomspace(self.smallest, self.largest, self.number)

    def _ellipticities(self, values: Values) -> tuple[Any, Any]:
        """Ellipticity of each Gaussian; a single one if all have the same."""
        if self.outer_e1 is None:
            return values["e1"], values["e2"]
        outer = np.linspace(0, 1, self.number)
        e1, e2 = (values[name] + outer * (values[f"outer_{name}"] - values[name]) for name in ("e1", "e2"))
        return e1, e2

    def columns(self, x: Array, y: Array, values: Values) -> Float[Array, "number *grid"]:
        """Images of Gaussians of peak brightness 1."""
        dx, dy = x - values["center_x"], y - values["center_y"]
        e1, e2 = (jnp.asarray(each, x.dtype).reshape(-1) for each in self._ellipticities(values))
        radius = jax.vmap(lambda e1, e2: physics.elliptical_radius(dx, dy, e1, e2))(e1, e2)
        widths = jnp.asarray(self.sigmas, x.dtype).reshape(-1, *(1,) * x.ndim)
        return jnp.exp(-jnp.minimum(radius**2 / (2 * widths**2), 80.0))

    def to_lenstronomy(self, values: Values, amplitudes: np.ndarray) -> list[tuple[str, dict[str, float]]]:
        """Names and arguments of lenstronomy's light profiles with the same light."""
        e1, e2 = (np.broadcast_to(each, self.number) for each in self._ellipticities(values))
        return [
            (
                "GAUSSIAN_ELLIPSE",
                to_floats(
                    {
                        "amp": amplitudes[index] * 2 * np.pi * sigma**2,
                        "sigma": sigma,
                        "e1": e1[index],
                        "e2": e2[index],
                        "center_x": values["center_x"],
                        "center_y": values["center_y"],
                    }
                ),
            )
            for index, sigma in enumerate(self.sigmas)
            if amplitudes[index] != 0
        ]


def to_floats(values: Mapping[str, Any]) -> dict[str, float]:
    """The values as Python numbers."""
    return {name: float(value) for name, value in values.items()}
