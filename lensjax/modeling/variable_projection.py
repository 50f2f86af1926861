"""Fit of a lens model to pixels: linear amplitudes eliminated, the rest by Levenberg-Marquardt steps.

The columns and their derivatives are computed by one jitted function each, in float32 on the default device;
the small systems of equations are solved in float64 by NumPy.

Reference: Kaufman 1975, BIT 15, 49, "A variable projection method for solving separable nonlinear least
squares problems".
"""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax.modeling.frame import Data, Frame, convolve_columns, pixel_positions, ray_positions
from lensjax.modeling.linear import solve_amplitudes
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
    logarithmic = _logarithmic(model)
    low, high = (_to_internal(each, logarithmic) for each in model.bounds)
    position = np.clip(_to_internal(start, logarithmic), low, high)
    priors = (*model.all_priors, *priors)
    current = _evaluate(model, frame, data, position, logarithmic, priors, settings)
    if current is None:
        return None
    damping = 1e-2
    for _ in range(settings.steps):
        products, crossed, gradient = (
            np.asarray(part, np.float64)
            for part in _derivatives(
                model,
                frame,
                data,
                jnp.asarray(position, jnp.float32),
                _float32(current.amplitudes),
                current.columns,
            )
        )
        residuals, rows = _prior_terms(model, priors, position, logarithmic)
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
            candidate = _evaluate(model, frame, data, trial, logarithmic, priors, settings)
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
    logarithmic = _logarithmic(model)
    return _evaluate(
        model, frame, data, _to_internal(free, logarithmic), logarithmic, model.all_priors, settings
    )


def model_columns(model: LensModel, frame: Frame, data: Data, free: np.ndarray) -> np.ndarray:
    """Images of unit amplitude, blurred by the point-spread function.

    Args:
      model: the model.
      frame, data: geometry and values of the pixels.
      free: values of the fitted parameters, in the order of `model.fitted`.

    Returns:
      The images [amplitudes, rows, columns].
    """
    position = _float32(_to_internal(free, _logarithmic(model)))
    return np.asarray(_unweighted_columns(model, frame, position, jnp.asarray(data.psf)))


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


def parameter_covariance(
    model: LensModel,
    frame: Frame,
    data: Data,
    fit: Fit,
    *,
    prior_weight: float,
    correlate: Callable[[np.ndarray], np.ndarray],
    priors: tuple[Prior, ...] = (),
) -> np.ndarray:
    """Covariance of the fitted parameters, for correlated noise and with the amplitudes marginalized.

    Let J be the derivatives of the model divided by the noise, with the active columns projected out, P the
    normal matrix of the priors, w their weight and H = J^T J + w P. The covariance is then
    H^-1 (J^T C J + w^2 P) H^-1: regardless of the weight, the true values are assumed to deviate from the
    priors by the standard deviations of the priors. The penalty of a regularized source is a prior on its
    amplitudes, with weight 1.

    Args:
      model, frame, data: the model, and geometry and values of the pixels.
      fit: the best fit.
      prior_weight: factor of the squared deviations from the priors.
      correlate: function that multiplies images [n, rows, columns] by the covariance C of the noise, which is
        the identity for white noise as in the noise map.
      priors: priors in addition to those of the model.

    Returns:
      The covariance in the order of `model.fitted`, without held parameters; infinite if it is singular.
    """
    logarithmic = _logarithmic(model)
    position = _to_internal(fit.free, logarithmic)
    jacobian = np.asarray(
        _jacobian(model, frame, data, _float32(position), _float32(fit.amplitudes)), np.float64
    )[~model.held]
    columns, smoothed = np.asarray(fit.columns, np.float64), np.diag(fit.penalty) > 0
    others, smoothed = fit.active & ~smoothed, fit.active & smoothed
    norms = np.linalg.norm(columns[others], axis=1, keepdims=True)
    basis = np.linalg.qr((columns[others] / norms).T)[0]
    jacobian = jacobian - (jacobian @ basis) @ basis.T
    # The amplitudes of a regularized source follow the parameters only as far as their penalty permits.
    penalty, overlap = fit.penalty[np.ix_(smoothed, smoothed)], columns[smoothed] @ basis
    gram = fit.gram[np.ix_(smoothed, smoothed)] - overlap @ overlap.T
    response = np.linalg.lstsq(gram + penalty, columns[smoothed] @ jacobian.T, rcond=None)[0].T
    jacobian = jacobian - response @ columns[smoothed] + (response @ overlap) @ basis.T
    _, rows = _prior_terms(model, (*model.all_priors, *priors), position, logarithmic)
    prior = prior_weight * (rows.T @ rows)[np.ix_(~model.held, ~model.held)]
    smoothness = response @ penalty @ response.T
    correlated = correlate(jacobian.reshape(len(jacobian), frame.rows, frame.columns)).reshape(jacobian.shape)
    try:
        inverse = np.linalg.inv(jacobian @ jacobian.T + prior + smoothness)
    except np.linalg.LinAlgError:
        return np.full((len(jacobian), len(jacobian)), np.inf)
    covariance = inverse @ (jacobian @ correlated.T + prior_weight * prior + smoothness) @ inverse
    slope = np.where(logarithmic, fit.free, 1.0)[~model.held]
    return (covariance + covariance.T) / 2 * np.outer(slope, slope)


def _logarithmic(model: LensModel) -> np.ndarray:
    """True for parameters with a positive lower bound, whose logarithms are fitted."""
    return model.bounds[0] > 0


def _to_internal(values: np.ndarray, logarithmic: np.ndarray) -> np.ndarray:
    """Internal parameters: logarithms of the positive ones, the other ones unchanged."""
    values = np.asarray(values, np.float64)
    return np.where(logarithmic, np.log(np.where(logarithmic, values, 1.0)), values)


def _to_parameters(position: np.ndarray, logarithmic: np.ndarray) -> np.ndarray:
    """Values of the fitted parameters, in float64."""
    return np.where(logarithmic, np.exp(np.where(logarithmic, position, 0)), position)


def _from_internal(position: Any, logarithmic: np.ndarray) -> Any:
    """The same as `_to_parameters` in JAX, with derivatives."""
    return jnp.where(logarithmic, jnp.exp(jnp.where(logarithmic, position, 0.0)), position)


def _prior_terms(
    model: LensModel, priors: tuple[Prior, ...], position: np.ndarray, logarithmic: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Deviations from the priors, in standard deviations, and their derivatives.

    The derivatives are with respect to the internal parameters.
    """
    free = _to_parameters(position, logarithmic)
    slope = np.where(logarithmic, free, 1.0)
    index = {name: number for number, name in enumerate(model.fitted)}
    parameters = model.parameters
    residuals, rows = np.zeros(len(priors)), np.zeros((len(priors), len(free)))
    for number, prior in enumerate(priors):
        total = -prior.mean
        for name, coefficient in prior.terms:
            if name in index:
                total += coefficient * free[index[name]]
                rows[number, index[name]] = coefficient * slope[index[name]] / prior.deviation
            else:
                total += coefficient * parameters[name].value
        residuals[number] = total / prior.deviation
    return residuals, rows


def _float32(values: np.ndarray) -> Array:
    return jnp.asarray(values, jnp.float32)


def _raw_columns(model: LensModel, frame: Frame, position: Array) -> tuple[Array, Array]:
    """Images of the foreground light and of the source, before the convolution."""
    x, y = ray_positions(frame)
    values = model.values(_from_internal(position, _logarithmic(model)))
    return model.light_columns(x, y, values), model.source_columns(x, y, values)


def _sky_columns(model: LensModel, frame: Frame) -> Array:
    x, y = pixel_positions(frame)
    ones = np.ones_like(x)
    width = frame.pixel_scale * frame.columns / 2
    parts = [ones] if model.sky == 0 else [ones, x / width, y / width]
    return _float32(np.stack(parts))


@partial(jax.jit, static_argnums=(0, 1))
def _unweighted_columns(model: LensModel, frame: Frame, position: Array, psf: Array) -> Array:
    light, source = _raw_columns(model, frame, position)
    blurred = convolve_columns(jnp.concatenate([light, source]), psf, frame)
    number = light.shape[0]
    return jnp.concatenate([blurred[:number], _sky_columns(model, frame), blurred[number:]])


@partial(jax.jit, static_argnums=(0, 1))
def _design(model: LensModel, frame: Frame, data: Data, position: Array) -> tuple[Array, Array, Array]:
    """Weighted columns, their scalar products with each other and with the image."""
    columns = _unweighted_columns(model, frame, position, data.psf)
    weighted = columns.reshape(columns.shape[0], -1) * data.weight.reshape(1, -1)
    target = (data.image * data.weight).reshape(-1)
    return weighted, weighted @ weighted.T, weighted @ target


@jax.jit
def _chi_square(columns: Array, amplitudes: Array, data: Data) -> Array:
    residual = (data.image * data.weight).reshape(-1) - amplitudes @ columns
    return jnp.sum(residual**2)


@partial(jax.jit, static_argnums=(0, 1))
def _jacobian(
    model: LensModel, frame: Frame, data: Data, position: Array, amplitudes: Array
) -> Float[Array, "fitted pixels"]:
    """Weighted derivatives of the model image with respect to internal parameters, at fixed amplitudes."""
    light_end, sky_end, _ = np.cumsum(list(model.amplitudes.values()))
    of_light = np.array([name.startswith("lens_light.") for name in model.fitted], bool)

    def light(at: Array) -> Array:
        return jnp.tensordot(amplitudes[:light_end], _raw_columns(model, frame, at)[0], 1)

    def source(at: Array) -> Array:
        values = model.values(_from_internal(at, _logarithmic(model)))
        return model.source_image(x, y, values, amplitudes[sky_end:])

    x, y = ray_positions(frame)
    unit = np.eye(len(of_light), dtype=np.float32)
    slopes = jnp.zeros((len(of_light), *x.shape), position.dtype)
    # Light and source have no parameters in common. Held parameters need no derivatives.
    for image, selected in ((light, of_light), (source, ~of_light & ~model.held)):
        if selected.any():
            _, slope = jax.linearize(image, position)
            slopes = slopes.at[np.flatnonzero(selected)].set(jax.vmap(slope)(unit[selected]))
    blurred = convolve_columns(slopes, jnp.asarray(data.psf), frame)
    return blurred.reshape(len(of_light), -1) * data.weight.reshape(1, -1)


@partial(jax.jit, static_argnums=(0, 1))
def _derivatives(
    model: LensModel, frame: Frame, data: Data, position: Array, amplitudes: Array, columns: Array
) -> tuple[Array, Array, Array]:
    """Scalar products of the derivatives with each other, with the columns and with the residual."""
    jacobian = _jacobian(model, frame, data, position, amplitudes)
    residual = (data.image * data.weight).reshape(-1) - amplitudes @ columns
    return jacobian @ jacobian.T, jacobian @ columns.T, jacobian @ residual


def _evaluate(
    model: LensModel,
    frame: Frame,
    data: Data,
    position: np.ndarray,
    logarithmic: np.ndarray,
    priors: tuple[Prior, ...],
    settings: Settings,
) -> Fit | None:
    columns, gram, projection = _design(model, frame, data, _float32(position))
    gram, projection = np.asarray(gram, np.float64), np.asarray(projection, np.float64)
    free = _to_parameters(position, logarithmic)
    penalty = model.penalty(model.values(free))
    nonnegative, regularized = model.nonnegative, np.diag(penalty) > 0
    ridge = np.where(nonnegative, RIDGE, SHAPELET_RIDGE) * np.diag(gram) * ~regularized
    try:
        amplitudes, active = solve_amplitudes(gram, projection, nonnegative, penalty + np.diag(ridge))
    except FloatingPointError:
        return None
    chi_square = float(_chi_square(columns, _float32(amplitudes), data))
    residuals, _ = _prior_terms(model, priors, position, logarithmic)
    cost = chi_square + settings.prior_weight * float(residuals @ residuals)
    cost += float(amplitudes @ penalty @ amplitudes)
    return Fit(free, amplitudes, active, cost, chi_square, columns, gram, projection, penalty)


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
