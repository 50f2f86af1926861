"""Covariance of the fitted parameters of a lens model."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from lensjax.modeling.design import compute_derivatives
from lensjax.modeling.frame import Data, Frame
from lensjax.modeling.internal import logarithmic, prior_terms, to_internal
from lensjax.modeling.model import LensModel, Prior
from lensjax.modeling.variable_projection import Fit


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
    position = to_internal(model, fit.free)
    at, amplitudes = (jnp.asarray(each, jnp.float32) for each in (position, fit.amplitudes))
    jacobian = compute_derivatives(model, frame, data, at, amplitudes, fit.columns).jacobian
    jacobian = np.asarray(jacobian, np.float64)[~model.held]
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
    _, rows = prior_terms(model, (*model.all_priors, *priors), position)
    prior = prior_weight * (rows.T @ rows)[np.ix_(~model.held, ~model.held)]
    smoothness = response @ penalty @ response.T
    correlated = correlate(jacobian.reshape(len(jacobian), frame.rows, frame.columns)).reshape(jacobian.shape)
    try:
        inverse = np.linalg.inv(jacobian @ jacobian.T + prior + smoothness)
    except np.linalg.LinAlgError:
        return np.full((len(jacobian), len(jacobian)), np.inf)
    covariance = inverse @ (jacobian @ correlated.T + prior_weight * prior + smoothness) @ inverse
    slope = np.where(logarithmic(model), fit.free, 1.0)[~model.held]
    return (covariance + covariance.T) / 2 * np.outer(slope, slope)
