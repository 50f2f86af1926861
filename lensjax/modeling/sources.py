"""Fits with sources of increasing complexity, each started from the previous one."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from lensjax.modeling.components import MultiGaussian, Shapelets, component_parameters
from lensjax.modeling.frame import Data, Frame
from lensjax.modeling.model import LensModel, Prior, replace_source
from lensjax.modeling.parameter import Parameter
from lensjax.modeling.pixel_fit import choose_grid, fit_pixel_grid
from lensjax.modeling.pixel_source import PixelGrid
from lensjax.modeling.variable_projection import Fit, Settings, fit_model

_WIDE = Parameter.fitted((0.0, 0.0), (-2.0, 2.0), prior=(0.0, 0.5))
_ELLIPTICITY = Parameter.fitted((0.01, 0.01), (-0.6, 0.6), prior=(0.0, 0.25))
# The first source: positive everywhere, so that it cannot imitate the image of a wrong lens.
POSITIVE_SOURCE = MultiGaussian(
    smallest=0.025,
    largest=0.5,
    number=7,
    e1=_ELLIPTICITY,
    e2=_ELLIPTICITY,
    outer_e1=None,
    outer_e2=None,
    center_x=_WIDE,
    center_y=_WIDE,
)
FIRST = Settings(steps=12, tolerance=0.5)  # for the positive source
LATER = Settings(steps=15, tolerance=0.5)  # for the more complex sources
ORDERS = (4, 6)  # of the shapelets that precede the source of the model


@dataclasses.dataclass
class Stage:
    """A model with one of the sources, and its fit.

    Attributes:
      model: the model.
      fit: the fit.
      priors: priors in addition to those of the model.
    """

    model: LensModel
    fit: Fit
    priors: tuple[Prior, ...] = ()

    @property
    def values(self) -> dict[str, float]:
        """All parameters by name."""
        return {name: float(value) for name, value in self.model.values(jnp.asarray(self.fit.free)).items()}

    @property
    def einstein_radius(self) -> float:
        """Einstein radius of the main lens, arcsec."""
        return self.values["mass.0.theta_E"]


def refine_modes(stages: list[Stage], frame: Frame, data: Data) -> list[Stage]:
    """Refits models with `POSITIVE_SOURCE` on other pixels.

    Args:
      stages: the fits that give the starting values.
      frame, data: the other pixels.

    Returns:
      The new fits, without those of models that are not finite.
    """
    fits = [(stage.model, fit_model(stage.model, frame, data, stage.fit.free, FIRST)) for stage in stages]
    return [Stage(model, fitted) for model, fitted in fits if fitted is not None]


def fit_source_chain(source: tuple[Any, ...], start: Stage, frame: Frame, data: Data) -> list[Stage]:
    """Continues a fit with a positive source, using sources of increasing complexity.

    Args:
      source: components of the model's source.
      start: a fit with `POSITIVE_SOURCE`.
      frame, data: the pixels of that fit.

    Returns:
      The stages, `start` first. They end before the first model that is not finite.
    """
    chain = [start]
    scale = _source_scale(start)
    for components in _source_chain(source):
        model = replace_source(start.model, components)
        values = chain[-1].values | _source_values(model, chain[-1].values, scale)
        if model.pixel_grid:
            values |= choose_grid(model, chain[-1].model, chain[-1].fit, frame, data)
        priors = tuple(
            Prior(((f"source.{number}.beta", 1.0),), scale, 0.4 * scale)
            for number, component in enumerate(components)
            if isinstance(component, Shapelets) and component.beta.free and component.beta.prior is None
        )
        fit_stage = fit_pixel_grid if model.pixel_grid else fit_model
        fitted = fit_stage(model, frame, data, model.start(values), LATER, priors)
        if fitted is None:
            break
        chain.append(Stage(model, fitted, priors))
    return chain


def _source_scale(stage: Stage) -> float:
    """Standard deviation of the positive source along one axis, limited to 0.05 to 0.2, arcsec."""
    source = stage.model.source[0]
    flux = stage.fit.amplitudes[-source.size :] * source.sigmas**2
    scale = np.sqrt((flux * source.sigmas**2).sum() / max(flux.sum(), 1e-30))
    return float(np.clip(scale, 0.05, 0.2))


def _source_chain(source: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Sources of increasing complexity, the last one that of the model."""
    flexible = [_order(component) for component in source if isinstance(component, Shapelets | PixelGrid)]
    smaller = [
        tuple(_simplify(component, order) for component in source)
        for order in ORDERS
        if order < max(flexible, default=0)
    ]
    return [*smaller, source]


def _order(component: Shapelets | PixelGrid) -> int:
    """Order of shapelets; a grid of pixels counts as more flexible than all `ORDERS`."""
    return component.order if isinstance(component, Shapelets) else max(ORDERS) + 1


def _simplify(component: Any, order: int) -> Any:
    """Limits shapelets to an order, and replaces a grid of pixels by shapelets."""
    if isinstance(component, Shapelets):
        return dataclasses.replace(component, order=min(order, component.order))
    return Shapelets(order=order) if isinstance(component, PixelGrid) else component


def _source_values(model: LensModel, previous: dict[str, float], scale: float) -> dict[str, float]:
    """Starting values of the source: from the previous stage, else from its first component or `scale`."""
    sizes = {"beta": scale, "R_sersic": scale, "n_sersic": 1.0, "width": 6 * scale, "strength": 1.0}
    values = {}
    for number, component in enumerate(model.source):
        for name in component_parameters(component):
            full = f"source.{number}.{name}"
            default = sizes[name] if name in sizes else previous.get(f"source.0.{name}", 0.0)
            values[full] = previous.get(full, default)
    return values
