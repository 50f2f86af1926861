"""Fit of a lens model to pixels: linear amplitudes eliminated, the rest by Levenberg-Marquardt steps.

The columns and their derivatives are computed by one jitted function each, in float32 on the default device;
the small systems of equations are solved in float64 by NumPy.

Reference: Kaufman 1975, BIT 15, 49, "A variable projection method for solving separable nonlinear least
squares problems".
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from lensjax.modeling.design import compute_chi_square, compute_derivatives, compute_design
from lensjax.modeling.frame import Data, Frame, with_weight
from lensjax.modeling.internal import from_internal, prior_terms, to_internal
from lensjax.modeling.linear import LinearFit, solve_amplitudes
from lensjax.modeling.model import LensModel, Prior

# Penalty on nonnegative amplitudes, in units of the squared norm of a column; above float32 rounding error.
RIDGE = 1e-5
SHAPELET_RIDGE = 2e-5  # the same for amplitudes of any sign
MAX_STEP = 0.15  # largest change of a parameter, or of its logarithm, in a step


@dataclasses.dataclass
class Fit:
    """A fit of a model to the pixels of a frame.

    Attributes:
      free: values of the fitted parameters.
      amplitudes: linear amplitudes, in units of the data.
      active: False for amplitudes that are held at 0.
      cost: chi-square plus the penalties of the priors and of a regularized source.
      chi_square: sum of the squared weighted residuals.
      columns: weighted images of unit amplitudes, [columns, pixels].
      gram: scalar products of the columns, [columns, columns].
      projection: scalar products of the columns with the weighted image, [columns].
      penalty: matrix of the penalty on the amplitudes of a regularized source, [columns, columns].
      hessian: half the second derivative of the cost with respect to the fitted parameters (the logarithms of
        positive ones), with the amplitudes eliminated, in the Gauss-Newton approximation at the start of the
        last step; None if no step was tried.
    """

    free: np.ndarray
    amplitudes: np.ndarray
    active: np.ndarray
    cost: float
    chi_square: float
    columns: Array
    gram: np.ndarray
    projection: np.ndarray
    penalty: np.ndarray
    hessian: np.ndarray | None = None

    @functools.cached_property
    def amplitude_covariance(self) -> np.ndarray:
        """Covariance of the amplitudes at fixed parameters, for white noise; 0 for those held at 0."""
        unit, scale = _unit_gram(self)
        covariance = np.zeros_like(self.gram)
        covariance[np.ix_(self.active, self.active)] = np.linalg.inv(unit) * np.outer(scale, scale)
        return covariance

    @property
    def effective_amplitudes(self) -> float:
        """Number of active amplitudes; regularized ones count by the part that the data determine."""
        return float(self.active.sum() - np.sum(self.amplitude_covariance * self.penalty))


class Settings(NamedTuple):
    """Settings of a fit.

    Attributes:
      steps: largest number of steps.
      tolerance: a fit ends if a step decreases the cost by less than this; above a cost of 10,000, by less
        than this times 1e-4 of the cost.
      prior_weight: factor of the squared deviations from the priors.
    """

    steps: int = 30
    tolerance: float = 0.05
    prior_weight: float = 10.0


DEFAULTS = Settings()


def fit_model(
    model: LensModel,
    frame: Frame,
    data: Data,
    start: np.ndarray,
    settings: Settings = DEFAULTS,
    priors: tuple[Prior, ...] = (),
) -> Fit | None:
    """Fits a model from a starting point.

    Args:
      model: the model.
      frame, data: geometry and values of the pixels.
      start: starting values of the fitted parameters, in the order of `model.fitted`.
      settings: settings of the fit.
      priors: priors in addition to those of the model.

    Returns:
      The fit; None if the model is not finite at the start.
    """
    low, high = (to_internal(model, each) for each in model.bounds)
    position = np.clip(to_internal(model, start), low, high)
    priors = (*model.all_priors, *priors)
    data = jax.device_put(data)  # once for all steps
    current = _evaluate(model, frame, data, position, priors, settings)
    if current is None:
        return None
    damping = 1e-2
    for _ in range(settings.steps):
        _, *found_products = compute_derivatives(
            model, frame, data, _float32(position), _float32(current.amplitudes), current.columns
        )
        products, crossed, gradient = (np.asarray(each, np.float64) for each in found_products)
        residuals, rows = prior_terms(model, priors, position)
        hessian = _eliminate(products, crossed, current) + settings.prior_weight * rows.T @ rows
        gradient = gradient - settings.prior_weight * rows.T @ residuals
        hessian = (hessian + hessian.T) / 2
        current.hessian = hessian
        # A parameter at a bound moves only away from it.
        movable = ~(((position <= low) & (gradient < 0)) | ((position >= high) & (gradient > 0)))
        movable &= ~model.held
        found, damping = None, min(damping, 1e4)
        for _ in range(6):
            step = _damped_step(hessian, gradient, movable, damping)
            trial = np.clip(position + step, low, high)
            candidate = _evaluate(model, frame, data, trial, priors, settings)
            if candidate is not None and candidate.cost < current.cost:
                found = candidate
                break
            damping = max(damping * 5, 1e-3)
        if found is None:
            break
        decrease = current.cost - found.cost
        found.hessian, current, position = current.hessian, found, trial
        damping = max(damping / 5, 1e-6)
        if decrease < settings.tolerance * max(1.0, 1e-4 * current.cost):
            break
    return current


def evaluate_model(
    model: LensModel, frame: Frame, data: Data, free: np.ndarray, settings: Settings = DEFAULTS
) -> Fit | None:
    """Fits only the amplitudes, for given values of the parameters.

    Args:
      model: the model.
      frame, data: geometry and values of the pixels.
      free: values of the fitted parameters, in the order of `model.fitted`.
      settings: settings of the fit; only the weight of the priors is used.

    Returns:
      The fit; None if the model is not finite.
    """
    return _evaluate(model, frame, data, to_internal(model, free), model.all_priors, settings)


def chi_square_without_source(model: LensModel, data: Data, fit: Fit) -> float:
    """Chi-square of the foreground light and the sky alone.

    Args:
      model: the model.
      data: the pixels.
      fit: the fit, whose parameters are used; the amplitudes of light and sky are fitted again.

    Returns:
      The smallest chi-square for any amplitudes.
    """
    number = model.amplitudes["lens_light"] + model.amplitudes["sky"]
    gram, projection = fit.gram[:number, :number], fit.projection[:number]
    amplitudes = np.zeros(len(fit.amplitudes))
    amplitudes[:number] = _solve(model.nonnegative[:number], gram, projection, np.zeros_like(gram)).amplitudes
    return float(compute_chi_square(fit.columns, _float32(amplitudes), data))


def model_columns(model: LensModel, frame: Frame, data: Data, free: np.ndarray) -> np.ndarray:
    """Images of unit amplitude, blurred by the point-spread function.

    Args:
      model: the model.
      frame, data: geometry and values of the pixels.
      free: values of the fitted parameters, in the order of `model.fitted`.

    Returns:
      The images [amplitudes, rows, columns].
    """
    unweighted = with_weight(data, np.ones_like(data.weight))
    columns = compute_design(model, frame, unweighted, _float32(to_internal(model, free))).columns
    return np.asarray(columns).reshape(-1, frame.rows, frame.columns)


def model_images(
    model: LensModel, frame: Frame, data: Data, free: np.ndarray, amplitudes: np.ndarray
) -> dict[str, np.ndarray]:
    """Images of the foreground light, the sky and the lensed source, in units of the data.

    Args:
      model: the model.
      frame, data: geometry and values of the pixels.
      free: values of the fitted parameters, in the order of `model.fitted`.
      amplitudes: the linear amplitudes, in units of the data.

    Returns:
      The images "lens_light", "sky" and "source" [rows, columns].
    """
    columns = model_columns(model, frame, data, free)
    ends = np.cumsum([0, *model.amplitudes.values()])
    return {
        group: np.tensordot(amplitudes[first:last], columns[first:last], 1)
        for group, first, last in zip(model.amplitudes, ends, ends[1:], strict=False)
    }


def _evaluate(
    model: LensModel,
    frame: Frame,
    data: Data,
    position: np.ndarray,
    priors: tuple[Prior, ...],
    settings: Settings,
) -> Fit | None:
    columns, gram, projection = compute_design(model, frame, data, _float32(position))
    gram, projection = np.asarray(gram, np.float64), np.asarray(projection, np.float64)
    free = from_internal(model, position)
    penalty = model.penalty(model.values(free))
    try:
        amplitudes, active = _solve(model.nonnegative, gram, projection, penalty)
    except FloatingPointError:
        return None
    chi_square = float(compute_chi_square(columns, _float32(amplitudes), data))
    residuals, _ = prior_terms(model, priors, position)
    cost = chi_square + settings.prior_weight * float(residuals @ residuals)
    cost += float(amplitudes @ penalty @ amplitudes)
    return Fit(free, amplitudes, active, cost, chi_square, columns, gram, projection, penalty)


def _solve(
    nonnegative: np.ndarray, gram: np.ndarray, projection: np.ndarray, penalty: np.ndarray
) -> LinearFit:
    """The best amplitudes, with a small ridge on those without a penalty."""
    ridge = np.where(nonnegative, RIDGE, SHAPELET_RIDGE) * np.diag(gram) * (np.diag(penalty) == 0)
    return solve_amplitudes(gram, projection, nonnegative, penalty + np.diag(ridge))


def _float32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)


def _eliminate(products: np.ndarray, crossed: np.ndarray, fit: Fit) -> np.ndarray:
    """Normal matrix of the parameters once the active amplitudes are eliminated."""
    unit, scale = _unit_gram(fit)
    scaled = crossed[:, fit.active] * scale
    return products - scaled @ np.linalg.solve(unit, scaled.T)


def _unit_gram(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Normal matrix of the active amplitudes times factors that make its diagonal 1, and the factors."""
    total = (fit.gram + fit.penalty)[np.ix_(fit.active, fit.active)]
    scale = 1 / np.sqrt(np.diag(total))
    return total * np.outer(scale, scale) + 1e-8 * np.eye(len(total)), scale


def _damped_step(
    hessian: np.ndarray, gradient: np.ndarray, movable: np.ndarray, damping: float
) -> np.ndarray:
    diagonal = np.diag(hessian)
    diagonal = np.maximum(diagonal, 1e-6 * diagonal.max())
    step = np.zeros(len(gradient))
    system = (hessian + np.diag(damping * diagonal))[np.ix_(movable, movable)]
    step[movable] = np.linalg.solve(system, gradient[movable])
    return np.clip(step, -MAX_STEP, MAX_STEP)
