"""Fit with a source on a grid of pixels: position of the grid, strength of its regularization, and lens."""

import jax.numpy as jnp
import numpy as np

from lensjax import physics
from lensjax.modeling.evidence import best_strength
from lensjax.modeling.frame import Data, Frame, pixel_positions
from lensjax.modeling.model import LensModel, Prior
from lensjax.modeling.variable_projection import Fit, Settings, evaluate_model, fit_model, model_images
from lensjax.modeling.verdict import SOURCE_BORDER

ROUNDS = 2  # each chooses the strength and makes a fit at this strength
STEPS = 3  # of the fit in each round
OUTER = 0.01  # fraction of the flux beyond each side of the grid, before the margin is added
MARGIN = 1.4  # width of the grid relative to the range of the remaining flux


def choose_grid(model: LensModel, simpler: LensModel, fit: Fit, frame: Frame, data: Data) -> dict[str, float]:
    """Chooses position and width of a grid of pixels from the arcs of a fit with a simpler source.

    Pixels in which the fitted arcs exceed the noise and 2 % of their peak are traced to the source plane.

    Args:
      model: a model with a grid of pixels.
      simpler: the same model with another source.
      fit: the fit of `simpler`.
      frame, data: geometry and values of the pixels.

    Returns:
      Values of the grid's parameters by name; empty if no arcs are visible.
    """
    assert model.pixel_grid is not None
    prefix = model.pixel_grid[1]
    arcs = model_images(simpler, frame, data, fit.free, fit.amplitudes)["source"]
    x, y = (jnp.asarray(each, jnp.float32) for each in pixel_positions(frame))
    traced = physics.lens_equation(x, y, *simpler.deflection(x, y, simpler.values(fit.free)))
    visible = (arcs * data.weight > 1) & (arcs > 0.02 * arcs.max())
    if not visible.any():
        return {}
    low, high = np.transpose([_inner_range(np.asarray(each)[visible], arcs[visible]) for each in traced])
    center = (low + high) / 2
    width = MARGIN * float((high - low).max())
    return {f"{prefix}center_x": center[0], f"{prefix}center_y": center[1], f"{prefix}width": width}


def _inner_range(positions: np.ndarray, flux: np.ndarray) -> tuple[float, float]:
    """Range of the positions without the fraction `OUTER` of the flux on either side."""
    order = np.argsort(positions)
    total = np.cumsum(flux[order])
    first, last = np.searchsorted(total, total[-1] * np.array([OUTER, 1 - OUTER]))
    return float(positions[order][first]), float(positions[order][last])


def fit_pixel_grid(
    model: LensModel,
    frame: Frame,
    data: Data,
    start: np.ndarray,
    settings: Settings,
    priors: tuple[Prior, ...] = (),
) -> Fit | None:
    """Fits a model with a grid of pixels.

    Each of two rounds chooses the strength of the regularization and takes a few steps. A grid that does not
    cover the source is widened after the first round, unless its width is fixed.

    Args:
      model: the model.
      frame, data: geometry and values of the pixels.
      start: starting values of the fitted parameters.
      settings: settings of the fit; `STEPS` replaces the number of steps.
      priors: priors in addition to those of the model.

    Returns:
      The fit; None if the model is not finite.
    """
    settings = settings._replace(steps=STEPS)
    fit = evaluate_model(model, frame, data, start, settings)
    for round_number in range(ROUNDS):
        if fit is None:
            return None
        fit = fit_model(model, frame, data, _with_best_strength(model, fit), settings, priors)
        if round_number == 0 and fit is not None and border_brightness(model, fit) > SOURCE_BORDER:
            fit = evaluate_model(model, frame, data, _widened(model, fit.free), settings)
    return fit


def border_brightness(model: LensModel, fit: Fit) -> float:
    """Brightness at the border of the source's grid.

    Args:
      model: the model.
      fit: its fit.

    Returns:
      Largest brightness of an outer node minus three standard errors, relative to the peak; 0 if it is
      negative or the model has no grid.
    """
    if not model.pixel_grid:
        return 0.0
    grid, _, where = model.pixel_grid
    errors = np.sqrt(np.diag(fit.amplitude_covariance)[where])
    brightness = fit.amplitudes[where]
    significant = (brightness - 3 * errors)[grid.border].max()
    return float(max(significant, 0.0) / max(brightness.max(), 1e-30))


def _with_best_strength(model: LensModel, fit: Fit) -> np.ndarray:
    """Fitted parameters with the strength that maximizes the evidence, with other amplitudes eliminated."""
    assert model.pixel_grid is not None
    grid, prefix, where = model.pixel_grid
    free = fit.free.copy()
    if f"{prefix}strength" not in model.fitted:
        return free
    others = fit.active.copy()
    others[where] = False
    scale = 1 / np.sqrt(np.diag(fit.gram)[others])
    unit = fit.gram[np.ix_(others, others)] * np.outer(scale, scale) + 1e-8 * np.eye(len(scale))
    cross = fit.gram[where][:, others] * scale
    explained = np.linalg.solve(unit, np.column_stack([cross.T, fit.projection[others] * scale]))
    gram = fit.gram[where, where] - cross @ explained[:, :-1]
    projection = fit.projection[where] - cross @ explained[:, -1]
    free[model.fitted.index(f"{prefix}strength")] = best_strength(gram, projection, grid.regularization)
    return free


def _widened(model: LensModel, free: np.ndarray) -> np.ndarray:
    """Fitted parameters with a grid that is `MARGIN` times as wide, if its width is not fixed."""
    assert model.pixel_grid is not None
    name = f"{model.pixel_grid[1]}width"
    values = dict(zip(model.fitted, free, strict=True))
    return model.start(values | {name: MARGIN * values[name]} if name in values else values)
