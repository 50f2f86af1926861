"""Fit of a lens model to an observation, without a human guess."""

import dataclasses
from typing import Any

import numpy as np

from lensjax.errors import UserError
from lensjax.modeling.components import MultiGaussian, Shapelets, component_parameters
from lensjax.modeling.foreground import add_model_noise, fit_foreground
from lensjax.modeling.frame import Data, Frame, pixel_positions, prepare, with_weight
from lensjax.modeling.model import GALAXY, LensModel, Prior, replace_source
from lensjax.modeling.parameter import Parameter
from lensjax.modeling.search import Start, find_starts
from lensjax.modeling.variable_projection import Fit, Settings, fit_model

LIGHT_ERROR = 0.03  # relative error of the model of the foreground light
STARTS = 4
MODES = 2
_WIDE = Parameter.fitted((0.0, 0.0), (-2.0, 2.0), prior=(0.0, 0.5))
_ROUNDISH = Parameter.fitted((0.01, 0.01), (-0.6, 0.6), prior=(0.0, 0.25))
# The first source: positive everywhere, so that it cannot imitate a wrong lens.
POSITIVE_SOURCE = MultiGaussian(
    smallest=0.025,
    largest=0.5,
    number=7,
    e1=_ROUNDISH,
    e2=_ROUNDISH,
    outer_e1=None,
    outer_e2=None,
    center_x=_WIDE,
    center_y=_WIDE,
)


@dataclasses.dataclass
class Stage:
    """Result of one model of the source.

    Attributes:
      model: the model.
      fit: its fit.
    """

    model: LensModel
    fit: Fit

    @property
    def values(self) -> dict[str, float]:
        """All parameters by name."""
        return {name: float(value) for name, value in self.model.values(self.fit.free).items()}

    @property
    def theta_E(self) -> float:
        """Einstein radius of the main lens, arcsec."""
        return self.values["mass.0.theta_E"]


def fit_stages(observation: Any, model: LensModel = GALAXY, *, radius: float = 3.0) -> dict[str, Any]:
    prepared = prepare(observation, radius=radius)
    frame, data = prepared.coarse
    foreground = fit_foreground(model, frame, data)
    data = _weigh(frame, data, foreground.image, foreground.center, radius)
    first = replace_source(model, (POSITIVE_SOURCE,))
    start_range = model.parameters["mass.0.theta_E"].start
    e1, e2 = (foreground.values.get(f"lens_light.0.{name}", 0.0) for name in ("e1", "e2"))
    size = max(np.hypot(e1, e2), 1e-6)
    shrink = min(1.0, 0.3 / size)
    starts = find_starts(frame, data, foreground, start_range, (shrink * e1, shrink * e2), STARTS)
    coarse = []
    for start in starts:
        values = foreground.values | _start_values(first, start, foreground.center)
        fit = fit_model(first, frame, data, first.start(values), Settings(steps=30, tolerance=0.05))
        if fit is not None:
            coarse.append(Stage(first, fit))
    coarse.sort(key=lambda stage: stage.fit.cost)
    modes: list[Stage] = []
    for stage in coarse:
        if stage.fit.cost < 1.3 * coarse[0].fit.cost + 50 and all(
            abs(np.log(stage.theta_E / other.theta_E)) > 0.015 for other in modes
        ):
            modes.append(stage)
    frame, data = prepared.fine
    factor = prepared.fine[0].rows // prepared.coarse[0].rows
    image = np.kron(foreground.image, np.ones((factor, factor)))
    data = _weigh(frame, data, image, foreground.center, radius)
    chains = []
    for mode in modes[:MODES]:
        fit = fit_model(first, frame, data, mode.fit.free, Settings(steps=12, tolerance=0.5))
        if fit is None:
            continue
        chain = [Stage(first, fit)]
        beta = _source_scale(chain[0])
        for source in _source_chain(model.source):
            larger = replace_source(model, source)
            values = chain[-1].values | _source_values(larger, chain[-1].values, beta)
            priors = tuple(
                Prior(((f"source.{number}.beta", 1.0),), beta, 0.4 * beta)
                for number, component in enumerate(source)
                if isinstance(component, Shapelets)
            )
            fit = fit_model(
                larger, frame, data, larger.start(values), Settings(steps=15, tolerance=0.5), priors
            )
            if fit is None:
                break
            chain.append(Stage(larger, fit))
        chains.append(chain)
    if not chains:
        raise UserError("no starting point gives a finite model")
    return dict(
        prepared=prepared, foreground=foreground, starts=starts, coarse=coarse, chains=chains, data=data, frame=frame
    )


def _weigh(
    frame: Frame, data: Data, light: np.ndarray, center: tuple[float, float], radius: float
) -> Data:
    """The data with the error of the light's model in the noise, and without pixels beyond the radius."""
    x, y = pixel_positions(frame)
    outside = np.hypot(x - center[0], y - center[1]) > radius
    return with_weight(data, np.where(outside, 0, add_model_noise(data, light, LIGHT_ERROR)))


def _start_values(model: LensModel, start: Start, center: tuple[float, float]) -> dict[str, float]:
    values = {
        "mass.0.theta_E": start.theta_E,
        "mass.0.e1": start.e1,
        "mass.0.e2": start.e2,
        "mass.0.center_x": center[0],
        "mass.0.center_y": center[1],
        "source.0.center_x": start.source_x,
        "source.0.center_y": start.source_y,
    }
    return {name: value for name, value in values.items() if name in model.parameters}


def _source_scale(stage: Stage) -> float:
    """Root mean square radius of the positive source, limited to a range that suits shapelets, arcsec."""
    source = stage.model.source[0]
    amplitudes = stage.fit.amplitudes[-source.size :]
    flux = amplitudes * source.sigmas**2
    scale = np.sqrt((flux * source.sigmas**2).sum() / max(flux.sum(), 1e-30))
    return float(np.clip(scale, 0.05, 0.2))


def _source_chain(source: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Sources of increasing complexity, the last one that of the model."""
    orders = [component.order for component in source if isinstance(component, Shapelets)]
    smaller = [order for order in (4, 6) if orders and order < max(orders)]
    chain = [
        tuple(
            dataclasses.replace(component, order=min(order, component.order))
            if isinstance(component, Shapelets)
            else component
            for component in source
        )
        for order in smaller
    ]
    return [*chain, source]


def _source_values(model: LensModel, previous: dict[str, float], scale: float) -> dict[str, float]:
    """Starting values of the parameters of the source, for those that the previous stage did not have."""
    sizes = {"beta": scale, "R_sersic": scale, "n_sersic": 1.0}
    values = {}
    for number, component in enumerate(model.source):
        for name in component_parameters(component):
            full = f"source.{number}.{name}"
            if name in sizes:
                values[full] = previous.get(full, sizes[name])
            else:
                values[full] = previous.get(full, previous.get(f"source.0.{name}", 0.0))
    return values
