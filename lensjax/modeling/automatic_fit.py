"""Fit of a lens model to an observation, without starting values from the user."""

import dataclasses

import numpy as np

from lensjax.errors import UserError
from lensjax.modeling.arguments import positive_length
from lensjax.modeling.artifacts import find_artifacts
from lensjax.modeling.assess import assess
from lensjax.modeling.correlation import measure_correlation
from lensjax.modeling.foreground import (
    NOT_FINITE,
    Foreground,
    add_model_noise,
    fit_foreground,
    render_foreground,
)
from lensjax.modeling.frame import Data, Frame, Prepared, pixel_distances, prepare, with_weight
from lensjax.modeling.galaxy import GALAXY
from lensjax.modeling.model import LensModel, Prior, replace_source
from lensjax.modeling.observation import Observation
from lensjax.modeling.result import LensModelFit
from lensjax.modeling.search import Start, find_starts
from lensjax.modeling.sources import (
    POSITIVE_SOURCE,
    SAME_RADIUS,
    WORSE,
    Stage,
    distinct_stages,
    fit_source_chains,
    refine_modes,
)
from lensjax.modeling.variable_projection import Settings, fit_model
from lensjax.modeling.verdict import CLOSE_COST

LIGHT_ERROR = 0.03  # relative error of the model of the foreground light
STARTS = 4  # starting points of the search
MODES = 2  # solutions that are refined on the native pixels, besides those whose radius is held
# The source of the first fits is simple, so some fits leave the correct radius. If no solution has a radius
# near that of a starting point with at least this fraction of the largest gain, this point is fitted again,
# with its radius held until the source is flexible.
PROMISING = 0.4
HELD = 0.02  # relative standard deviation of a radius that is held
# Settings of the first fits, from all starting points, and of the fits that follow, from the remaining ones.
SHORT = Settings(steps=8, tolerance=0.05)
LONG = Settings(steps=22, tolerance=0.05)


def fit(observation: Observation, model: LensModel = GALAXY, *, radius: float = 3.0) -> LensModelFit:
    """Fits a lens model to an observation.

    The foreground light is fitted first. A search over Einstein radii and source positions then gives
    starting points, which are refined with a positive source on pixels of about 0.1 arcsec. The best
    solutions are refined on the native pixels, with sources of increasing complexity; a `PixelGrid` follows
    shapelets, which determine its position and width. The verdict compares the results of all these models.

    Args:
      observation: image, noise, point-spread function and mask. If its `correlation` is None, the correlation
        of the noise is measured from the blank sky.
      model: the model; its first mass component is the main lens.
      radius: distance from the lens beyond which pixels are not used, arcsec.

    Returns:
      The fit. Check its `verdict`.

    Raises:
      UserError: if the model has no mass, its Einstein radius may start at 0, the radius is not positive,
        too few pixels are valid, a pixel is too bright, or no model has finite values.
    """
    if not model.mass:
        raise UserError("the model has no mass; add a main lens (SIS, SIE or EPL) and a source")
    smallest = _search_range(model)[0]
    if smallest <= 0:
        raise UserError(f"mass.0.theta_E may start at {smallest:g} arcsec; give it a positive start")
    radius = positive_length("radius", radius)
    notes = list(observation.notes)
    if observation.correlation is None:
        correlation = measure_correlation(observation)
        observation = dataclasses.replace(observation, correlation=correlation)
        notes.append(
            "the correlation of the noise was measured from blank sky"
            if correlation
            else "too little blank sky to measure the correlation of the noise, which is assumed to be 0"
        )
    prepared = prepare(observation, radius=radius)
    frame, data = prepared.coarse
    foreground = fit_foreground(model, frame, data)
    data = weigh(frame, data, foreground, radius)
    starts = _find_starts(model, frame, data, foreground)
    beyond = 1.7 * max(start.theta_E for start in starts) + 0.3
    fine = render_foreground(foreground.model, foreground.fit, foreground.center, *prepared.fine)
    artifacts = find_artifacts(*prepared.fine, fine.image, center=fine.center, beyond=beyond)
    prepared = _mask(prepared, artifacts)
    data = weigh(frame, prepared.coarse[1], foreground, radius)
    modes = _fit_modes(model, frame, data, foreground, starts)
    frame = prepared.fine[0]
    data = weigh(frame, prepared.fine[1], fine, radius)
    modes = distinct_stages(refine_modes(modes, frame, data), CLOSE_COST)
    chains = fit_source_chains(model.source, modes, frame, data, observation.sky_variance)
    if not chains:
        raise UserError(NOT_FINITE)
    return assess(observation, model, prepared, data, chains, artifacts, tuple(notes))


def weigh(frame: Frame, data: Data, foreground: Foreground, radius: float) -> Data:
    """Adds the error of the foreground model to the noise, and sets the weight beyond a radius to 0.

    Args:
      frame, data: geometry and values of the pixels.
      foreground: the foreground light on these pixels.
      radius: distance from the center of the foreground light beyond which pixels are not used, arcsec.

    Returns:
      The data with the new weights.
    """
    outside = pixel_distances(frame, foreground.center) > radius
    weight = add_model_noise(data, foreground.light, LIGHT_ERROR)
    return with_weight(data, np.where(outside, 0, weight))


def _find_starts(model: LensModel, frame: Frame, data: Data, foreground: Foreground) -> list[Start]:
    e1, e2 = (foreground.values.get(f"lens_light.0.{name}", 0.0) for name in ("e1", "e2"))
    shrink = min(1.0, 0.3 / max(float(np.hypot(e1, e2)), 1e-6))
    radii = _search_range(model)
    return find_starts(frame, data, foreground, radii, (shrink * e1, shrink * e2), STARTS)


def _search_range(model: LensModel) -> tuple[float, float]:
    """Smallest and largest Einstein radius of the search, arcsec."""
    main = model.parameters["mass.0.theta_E"]
    return main.start if main.free else (main.value, main.value)


def _fit_modes(
    model: LensModel, frame: Frame, data: Data, foreground: Foreground, starts: list[Start]
) -> list[Stage]:
    """Distinct solutions with a positive source, the best first; then those whose radius is held."""
    first = replace_source(model, (POSITIVE_SOURCE,))
    positions = [first.start(foreground.values | _start_values(start, foreground.center)) for start in starts]
    # A few steps show which starting points lead to the same solution, or to a bad one.
    for settings, worse, same in ((SHORT, 3.0, SAME_RADIUS / 10), (LONG, WORSE, SAME_RADIUS)):
        fits = [fit_model(first, frame, data, position, settings) for position in positions]
        stages = distinct_stages([Stage(first, each) for each in fits if each is not None], worse, same)
        positions = [stage.fit.free for stage in stages]
    stages = stages[:MODES]
    for start in starts:
        distances = [abs(np.log(start.theta_E / stage.einstein_radius)) for stage in stages]
        if start.gain < PROMISING * starts[0].gain or min(distances, default=np.inf) < 2 * SAME_RADIUS:
            continue
        prior = Prior((("mass.0.theta_E", 1.0),), start.theta_E, HELD * start.theta_E)
        position = first.start(foreground.values | _start_values(start, foreground.center))
        fitted = fit_model(first, frame, data, position, LONG, (prior,))
        if fitted is not None:
            stages.append(Stage(first, fitted, (prior,)))
    return stages


def _start_values(start: Start, center: tuple[float, float]) -> dict[str, float]:
    return {
        "mass.0.theta_E": start.theta_E,
        "mass.0.e1": start.e1,
        "mass.0.e2": start.e2,
        "mass.0.center_x": center[0],
        "mass.0.center_y": center[1],
        "source.0.center_x": start.source_x,
        "source.0.center_y": start.source_y,
    }


def _mask(prepared: Prepared, artifacts: np.ndarray) -> Prepared:
    """The data with weight 0 in some native pixels and in the coarse pixels that contain them."""
    factor = prepared.fine[0].rows // prepared.coarse[0].rows
    rows, columns = artifacts.shape
    coarse = artifacts.reshape(rows // factor, factor, columns // factor, factor).any((1, 3))
    (fine_frame, fine), (coarse_frame, binned) = prepared.fine, prepared.coarse
    return prepared._replace(
        fine=(fine_frame, with_weight(fine, np.where(artifacts, 0, fine.weight))),
        coarse=(coarse_frame, with_weight(binned, np.where(coarse, 0, binned.weight))),
    )
