"""Internal parameters of a fit: logarithms of positive parameters, and the others unchanged."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lensjax.modeling.model import LensModel, Prior


def logarithmic(model: LensModel) -> np.ndarray:
    """True for parameters with a positive lower bound, whose logarithms are fitted."""
    return model.bounds[0] > 0


def to_internal(model: LensModel, values: np.ndarray) -> np.ndarray:
    """Internal parameters of the values of the fitted parameters, in float64."""
    positive, values = logarithmic(model), np.asarray(values, np.float64)
    return np.where(positive, np.log(np.where(positive, values, 1.0)), values)


def from_internal(model: LensModel, position: np.ndarray) -> np.ndarray:
    """Values of the fitted parameters, in float64; the inverse of `to_internal`."""
    positive = logarithmic(model)
    return np.where(positive, np.exp(np.where(positive, position, 0)), position)


def traced_values(model: LensModel, position: Iterable[Array]) -> dict[str, Any]:
    """All parameters by name, as functions of the internal parameters that JAX can differentiate."""
    free = zip(position, logarithmic(model), strict=True)
    return model.values([jnp.exp(each) if positive else each for each, positive in free])


def prior_terms(
    model: LensModel, priors: tuple[Prior, ...], position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Deviations from priors.

    Args:
      model: the model.
      priors: the priors.
      position: internal parameters.

    Returns:
      The deviations in standard deviations [priors], and their derivatives [priors, fitted].
    """
    free = from_internal(model, position)
    slope = np.where(logarithmic(model), free, 1.0)
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
