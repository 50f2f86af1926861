"""A lens model: components, priors, and the layout of its parameters and amplitudes."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax import physics
from lensjax.errors import UserError
from lensjax.modeling.components import (
    MAIN_LENSES,
    DirectImage,
    LightComponent,
    Mass,
    check_parameters,
    component_parameters,
)
from lensjax.modeling.parameter import Parameter
from lensjax.modeling.pixel_source import PixelGrid

GROUPS = ("mass", "lens_light", "source")


@dataclasses.dataclass(frozen=True)
class Prior:
    """Normal prior on a linear combination of parameters.

    Attributes:
      terms: pairs of a parameter's name and its coefficient.
      mean: expected value of the linear combination.
      deviation: standard deviation.

    Raises:
      UserError: if the standard deviation is not positive.
    """

    terms: tuple[tuple[str, float], ...]
    mean: float
    deviation: float

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise UserError(f"the standard deviation of a prior is {self.deviation}; it must be positive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LensModel:
    """Components of a lens model; they can be combined freely.

    Parameters are named GROUP.NUMBER.PARAMETER, such as "mass.0.theta_E" or "source.0.beta".

    Attributes:
      mass: mass components; the first one is the main lens, an SIS, SIE or EPL.
      source: light components in the source plane. A model without mass and source describes only the
        foreground light.
      lens_light: light components in the image plane: the lens galaxy and other foreground galaxies.
      sky: order of the polynomial that describes the sky: 0 for a constant, 1 for a plane.
      priors: normal priors in addition to those on single parameters.

    Raises:
      UserError: if components are in the wrong group, have a number in place of a parameter or do not form a
        model, `sky` is not 0 or 1, or a prior names an unknown parameter.
    """

    mass: tuple[Any, ...] = ()
    source: tuple[Any, ...] = ()
    lens_light: tuple[Any, ...] = ()
    sky: int = 1
    priors: tuple[Prior, ...] = ()

    def __post_init__(self) -> None:
        for group, kind in zip(GROUPS, (Mass, LightComponent, LightComponent), strict=True):
            for component in getattr(self, group):
                if not isinstance(component, kind):
                    profile = "mass" if kind is Mass else "light"
                    raise UserError(f"{component!r} is not a component for {group}; give a {profile} profile")
                check_parameters(component)
        if bool(self.mass) != bool(self.source):
            raise UserError("a lens model needs mass and source, or neither to fit the foreground light only")
        if self.mass and not isinstance(self.mass[0], tuple(MAIN_LENSES.values())):
            first = type(self.mass[0]).__name__
            raise UserError(f"the first mass component is {first}; it must be the main lens: SIS, SIE or EPL")
        if any(isinstance(each, PixelGrid) for each in self.lens_light):
            raise UserError("a PixelGrid describes a source, not the lens light; use MultiGaussian or Sersic")
        if sum(isinstance(each, PixelGrid) for each in self.source) > 1:
            raise UserError("a source has at most one PixelGrid")
        if self.sky not in (0, 1):
            raise UserError(f"sky is {self.sky}; expected 0 (constant) or 1 (plane)")
        for prior in self.priors:
            for name, _ in prior.terms:
                if name not in self.parameters:
                    raise UserError(f"a prior names {name}; the parameters are {', '.join(self.parameters)}")

    @functools.cached_property
    def parameters(self) -> dict[str, Parameter]:
        """All parameters by name."""
        return {
            f"{group}.{number}.{name}": parameter
            for group in GROUPS
            for number, component in enumerate(getattr(self, group))
            for name, parameter in component_parameters(component).items()
        }

    @functools.cached_property
    def fitted(self) -> tuple[str, ...]:
        """Names of the fitted and chosen parameters."""
        return tuple(name for name, parameter in self.parameters.items() if parameter.free)

    @functools.cached_property
    def held(self) -> np.ndarray:
        """True for the chosen parameters among `fitted`; they have no standard errors."""
        return np.array([self.parameters[name].held for name in self.fitted], bool)

    @functools.cached_property
    def all_priors(self) -> tuple[Prior, ...]:
        """Priors on single parameters, then on combinations."""
        single = (
            Prior(((name, 1.0),), *parameter.prior)
            for name, parameter in self.parameters.items()
            if parameter.free and parameter.prior is not None
        )
        return (*single, *self.priors)

    def values(self, free: Array | np.ndarray | Sequence[Array]) -> dict[str, Any]:
        """All parameter values by name.

        Args:
          free: values of the fitted parameters, in the order of `fitted`.
        """
        positions = {name: index for index, name in enumerate(self.fitted)}
        return {
            name: free[positions[name]] if name in positions else parameter.value
            for name, parameter in self.parameters.items()
        }

    def start(self, values: Mapping[str, float]) -> np.ndarray:
        """Starting values of the fitted parameters, in the order of `fitted`, within their bounds.

        Args:
          values: starting values by name; other parameters start at the center of their starting range.
        """
        parameters = self.parameters
        start = [values.get(name, parameters[name].value) for name in self.fitted]
        low, high = self.bounds
        return np.clip(np.array(start, np.float64), low, high)

    @functools.cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest value of each fitted parameter."""
        bounds = np.array([self.parameters[name].bounds for name in self.fitted], np.float64).reshape(-1, 2)
        return bounds[:, 0], bounds[:, 1]

    def deflection(self, x: Array, y: Array, values: Mapping[str, Any]) -> tuple[Array, Array]:
        """Deflection of all mass components at x and y, arcsec."""
        parts = [each.deflection(x, y, own) for each, own in self._components("mass", values)]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    def light_columns(self, x: Array, y: Array, values: Mapping[str, Any]) -> Float[Array, "n *grid"]:
        """Images of the foreground light with unit amplitudes, at x and y, arcsec."""
        parts = [each.columns(x, y, own) for each, own in self._components("lens_light", values)]
        return jnp.concatenate(parts) if parts else jnp.zeros((0, *x.shape), x.dtype)

    def source_columns(self, x: Array, y: Array, values: Mapping[str, Any]) -> Float[Array, "n *grid"]:
        """Lensed images of the source with unit amplitudes; x and y are in the image plane, arcsec."""
        if not self.source:
            return jnp.zeros((0, *x.shape), x.dtype)
        beta_x, beta_y = physics.lens_equation(x, y, *self.deflection(x, y, values))
        return self.unlensed_columns(beta_x, beta_y, values)

    def unlensed_columns(
        self, beta_x: Array, beta_y: Array, values: Mapping[str, Any]
    ) -> Float[Array, "n *grid"]:
        """Images of the source with unit amplitudes, at positions in the source plane, arcsec."""
        parts = [each.columns(beta_x, beta_y, own) for each, own in self._components("source", values)]
        return jnp.concatenate(parts)

    def image(self, x: Array, y: Array, values: Mapping[str, Any], amplitudes: Array) -> Array:
        """Image without the sky: the sum of `light_columns` and `source_columns` times their amplitudes.

        Args:
          x, y: positions in the image plane, arcsec.
          values: all parameters by name.
          amplitudes: the amplitudes, in the order of the attribute `amplitudes`.
        """
        light, sky, _ = self.amplitudes.values()
        image = _sum_images(self._components("lens_light", values), x, y, amplitudes[:light])
        if self.source:
            beta_x, beta_y = physics.lens_equation(x, y, *self.deflection(x, y, values))
            source = self._components("source", values)
            image += _sum_images(source, beta_x, beta_y, amplitudes[light + sky :])
        return image

    @functools.cached_property
    def pixel_grid(self) -> tuple[PixelGrid, str, slice] | None:
        """The source's grid, its parameters' prefix and its amplitudes' slice; None without a grid."""
        first = self.amplitudes["lens_light"] + self.amplitudes["sky"]
        for number, component in enumerate(self.source):
            if isinstance(component, PixelGrid):
                return component, f"source.{number}.", slice(first, first + component.size)
            first += component.size
        return None

    def penalty(self, values: Mapping[str, float]) -> np.ndarray:
        """Matrix P of the penalty c^T P c on the amplitudes c; 0 without a grid of pixels."""
        size = sum(self.amplitudes.values())
        penalty = np.zeros((size, size))
        if self.pixel_grid:
            grid, prefix, where = self.pixel_grid
            penalty[where, where] = float(values[prefix + "strength"]) * grid.regularization
        return penalty

    @functools.cached_property
    def amplitudes(self) -> dict[str, int]:
        """Number of amplitudes of the foreground light, the sky and the source, in this order."""
        return {
            "lens_light": sum(component.size for component in self.lens_light),
            "sky": 1 if self.sky == 0 else 3,
            "source": sum(component.size for component in self.source),
        }

    @functools.cached_property
    def nonnegative(self) -> np.ndarray:
        """True for each amplitude that must not be negative."""
        light, source = (
            [component.nonnegative for component in group for _ in range(component.size)]
            for group in (self.lens_light, self.source)
        )
        return np.array([*light, *[False] * self.amplitudes["sky"], *source], bool)

    def _components(self, group: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yields each component of a group with the values of its own parameters."""
        for number, component in enumerate(getattr(self, group)):
            names = component_parameters(component)
            yield component, {name: values[f"{group}.{number}.{name}"] for name in names}

    def to_lenstronomy(
        self, values: Mapping[str, float], amplitudes: np.ndarray
    ) -> dict[str, list[str] | list[dict[str, float]]]:
        """The model as lenstronomy's lists of profiles and their arguments.

        Args:
          values: all parameters by name.
          amplitudes: linear amplitudes, in the order of the attribute `amplitudes`; lenstronomy expects those
            of the brightness per square arcsec.

        Returns:
          Lists of profiles and of their keyword arguments, by the names that lenstronomy gives these lists.
        """
        masses = list(self._components("mass", values))
        result: dict[str, Any] = {
            "lens_model_list": [component.lenstronomy for component, _ in masses],
            "kwargs_lens": [{name: float(value) for name, value in own.items()} for _, own in masses],
        }
        first = {"lens_light": 0, "source": self.amplitudes["lens_light"] + self.amplitudes["sky"]}
        for group, prefix in (("source", "source_light"), ("lens_light", "lens_light")):
            profiles, position = [], first[group]
            for component, own in self._components(group, values):
                size = component.size
                profiles += component.to_lenstronomy(own, amplitudes[position : position + size])
                position += size
            result[f"{prefix}_model_list"] = [name for name, _ in profiles]
            result[f"kwargs_{group}"] = [arguments for _, arguments in profiles]
        return result


def _sum_images(
    components: Iterable[tuple[Any, dict[str, Any]]], x: Array, y: Array, amplitudes: Array
) -> Array:
    """The sum of the columns of light components times amplitudes."""
    total, position = jnp.zeros_like(x), 0
    for component, values in components:
        part = amplitudes[position : position + component.size]
        if isinstance(component, DirectImage):
            total += component.image(x, y, values, part)
        else:
            total += jnp.tensordot(part, component.columns(x, y, values), 1)
        position += component.size
    return total


def replace_source(model: LensModel, source: tuple[Any, ...]) -> LensModel:
    """The model with another source; priors on parameters of the old source are removed."""
    kept = tuple(p for p in model.priors if not any(name.startswith("source.") for name, _ in p.terms))
    return dataclasses.replace(model, source=source, priors=kept)


def light_only(model: LensModel) -> LensModel:
    """The foreground light and sky of a model, with the priors that involve no other parameters."""
    priors = tuple(p for p in model.priors if all(name.startswith("lens_light.") for name, _ in p.terms))
    return dataclasses.replace(model, mass=(), source=(), priors=priors)
