"""Fits with sources of increasing complexity, each started from the previous one."""

import dataclasses
from typing import Any

import numpy as np

from lensjax.modeling.components import MultiGaussian, component_parameters
from lensjax.modeling.frame import Data, Frame, pixel_distances
from lensjax.modeling.model import LensModel, Prior, replace_source
from lensjax.modeling.parameter import Parameter
from lensjax.modeling.pixel_fit import choose_grid, fit_pixel_grid
from lensjax.modeling.pixel_source import PixelGrid
from lensjax.modeling.shapelets import Shapelets
from lensjax.modeling.variable_projection import Fit, Settings, fit_model, model_images
from lensjax.modeling.verdict import RESIDUAL

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
SAME_RADIUS = 0.03  # relative difference of the radii below which two fits are one solution
WORSE = 1.3  # cost relative to the best, beyond which a solution is dropped
ORDERS = (4, 6)  # of the shapelets that precede the source of the model
ADDED_ORDERS = 4  # orders of each step from `Shapelets.order` to `Shapelets.max_order`
ARC_WIDTH = 0.5  # arcsec, on either side of the Einstein radius


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
        return {name: float(value) for name, value in self.model.values(self.fit.free).items()}

    @property
    def einstein_radius(self) -> float:
        """Einstein radius of the main lens, arcsec."""
        return self.values["mass.0.theta_E"]


def refine_modes(stages: list[Stage], frame: Frame, data: Data) -> list[Stage]:
    """Refits models with `POSITIVE_SOURCE` on other pixels, with the same priors.

    Args:
      stages: the fits that give the starting values.
      frame, data: the other pixels.

    Returns:
      The new fits, without those of models that are not finite.
    """
    fits = [fit_model(stage.model, frame, data, stage.fit.free, FIRST, stage.priors) for stage in stages]
    return [
        dataclasses.replace(stage, fit=fitted)
        for stage, fitted in zip(stages, fits, strict=True)
        if fitted is not None
    ]


def distinct_stages(stages: list[Stage], worse: float = WORSE, same: float = SAME_RADIUS) -> list[Stage]:
    """The best fit at each Einstein radius; those that are much worse than the best are dropped.

    Args:
      stages: the fits.
      worse: largest cost relative to that of the best; an excess of 50 is always allowed.
      same: relative difference of the radii below which two fits are one solution.
    """
    kept: list[Stage] = []
    for stage in sorted(stages, key=lambda stage: stage.fit.cost):
        best = kept[0] if kept else stage
        good_enough = stage.fit.cost < worse * best.fit.cost + 50
        ratios = [stage.einstein_radius / other.einstein_radius for other in kept]
        if good_enough and all(abs(np.log(ratio)) > same for ratio in ratios):
            kept.append(stage)
    return kept


def fit_source_chains(
    source: tuple[Any, ...], starts: list[Stage], frame: Frame, data: Data, sky_variance: float
) -> list[list[Stage]]:
    """Continues fits with a positive source, using sources of increasing complexity.

    Of solutions that become the same, only the best is continued. Solutions that become much worse than the
    best, or not finite, are dropped.

    Args:
      source: components of the model's source.
      starts: fits with `POSITIVE_SOURCE`.
      frame, data: the pixels of these fits.
      sky_variance: variance of the blank sky relative to that of the noise map.

    Returns:
      The stages of each remaining solution, its start first; the best solution first. They end before the
      first source with which no solution is finite.
    """
    chains = [[start] for start in starts]
    for components in source_chain(source):
        longer = _add_stage(chains, components, frame, data)
        if not longer:
            return sort_chains(chains)
        chains = longer
    for components in _larger_sources(source):
        chains = sort_chains(chains)
        if not chains or arc_residual(chains[0][-1], frame, data) <= RESIDUAL * sky_variance:
            break
        longer = _add_stage(chains, components, frame, data)
        if not any(chain[0] is chains[0][0] for chain in longer):  # the best solution has no such fit
            break
        chains = longer
    return sort_chains(chains)


def _add_stage(
    chains: list[list[Stage]], components: tuple[Any, ...], frame: Frame, data: Data
) -> list[list[Stage]]:
    """The solutions with another source, without those that are dropped."""
    longer = [[*chain, stage] for chain in chains for stage in _next_stage(components, chain, frame, data)]
    kept = distinct_stages([chain[-1] for chain in longer])
    return [chain for chain in longer if any(chain[-1] is stage for stage in kept)]


def sort_chains(chains: list[list[Stage]]) -> list[list[Stage]]:
    """Sorts solutions by their cost with the positive source; flexible sources can also fit a wrong lens."""
    return sorted(chains, key=lambda chain: chain[0].fit.cost)


def arc_residual(stage: Stage, frame: Frame, data: Data) -> float:
    """Mean squared residual near the Einstein radius, in units of the noise; inf without pixels."""
    images = model_images(stage.model, frame, data, stage.fit.free, stage.fit.amplitudes)
    residual = (data.image - sum(images.values())) * data.weight
    center = stage.values.get("mass.0.center_x", 0.0), stage.values.get("mass.0.center_y", 0.0)
    near = np.abs(pixel_distances(frame, center) - stage.einstein_radius) < ARC_WIDTH
    near &= data.weight > 0
    return float(np.mean(residual[near] ** 2)) if near.any() else np.inf


def _next_stage(components: tuple[Any, ...], chain: list[Stage], frame: Frame, data: Data) -> list[Stage]:
    """The fit with the next source, in a list that is empty if the model is not finite."""
    scale, previous = _source_scale(chain[0]), chain[-1]
    model = replace_source(previous.model, components)
    values = previous.values | _source_values(model, previous.values, scale)
    if model.pixel_grid:
        values |= choose_grid(model, previous.model, previous.fit, frame, data)
    priors = tuple(
        Prior(((f"source.{number}.beta", 1.0),), scale, 0.4 * scale)
        for number, component in enumerate(components)
        if isinstance(component, Shapelets) and component.beta.free and component.beta.prior is None
    )
    fit_stage = fit_pixel_grid if model.pixel_grid else fit_model
    fitted = fit_stage(model, frame, data, model.start(values), LATER, priors)
    return [] if fitted is None else [Stage(model, fitted, priors)]


def _source_scale(stage: Stage) -> float:
    """Standard deviation of the positive source along one axis, clipped to 0.05 to 0.2 arcsec."""
    source = stage.model.source[0]
    flux = stage.fit.amplitudes[-source.size :] * source.sigmas**2
    scale = np.sqrt((flux * source.sigmas**2).sum() / max(flux.sum(), 1e-30))
    return float(np.clip(scale, 0.05, 0.2))


def source_chain(source: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Sources of increasing complexity, the last one that of the model."""
    flexible = [_order(component) for component in source if isinstance(component, Shapelets | PixelGrid)]
    smaller = [
        tuple(_simplify(component, order) for component in source)
        for order in ORDERS
        if order < max(flexible, default=0)
    ]
    return [*smaller, source]


def _larger_sources(source: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Sources with higher orders of shapelets, up to `Shapelets.max_order`."""
    steps = range(1, 1 + -(-max(map(_orders_left, source), default=0) // ADDED_ORDERS))
    return [tuple(_enlarge(component, ADDED_ORDERS * step) for component in source) for step in steps]


def _orders_left(component: Any) -> int:
    if not isinstance(component, Shapelets) or component.max_order is None:
        return 0
    return component.max_order - component.order


def _enlarge(component: Any, orders: int) -> Any:
    added = min(orders, _orders_left(component))
    return dataclasses.replace(component, order=component.order + added) if added else component


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
