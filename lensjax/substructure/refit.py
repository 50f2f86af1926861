"""Complete refits with a perturber as a mass component, which check and refine the first-order results."""

import dataclasses
from typing import NamedTuple

import numpy as np

from lensjax.errors import UserError
from lensjax.modeling.covariance import parameter_covariance
from lensjax.modeling.variable_projection import Fit, Settings, fit_model
from lensjax.substructure.halos import Halo
from lensjax.substructure.nuisances import LinearModel

STEPS = 25
_TOLERANCE = 0.02  # a step that decreases the cost by less than this is the last


class Refit(NamedTuple):
    """A complete fit with a perturber.

    Attributes:
      x, y: position, arcsec.
      log10_mass: log10 of the mass, solar masses.
      errors: standard errors of x and y (arcsec) and of log10_mass, which account for the correlation of the
        noise; 0 if these are held.
      likelihood_ratio: logarithm of the likelihood ratio relative to the complete fit without a perturber.
      values: all parameters of the model by name; the perturber is the last mass component.
    """

    x: float
    y: float
    log10_mass: float
    errors: tuple[float, float, float]
    likelihood_ratio: float
    values: dict[str, float]


def refit_without(linear: LinearModel) -> Fit:
    """Fits the model with its nuisances but no perturber.

    Priors have their own standard deviations, and not the larger weight that they have in a fit of the lens.
    The width of the point-spread function is not fitted.

    Args:
      linear: the first-order model of the fit.

    Raises:
      UserError: if the model is not finite.
    """
    wide = linear.wide
    fit = fit_model(wide.model, wide.frame, wide.data, wide.free, _settings(linear), wide.priors)
    if fit is None:
        raise UserError("the fit without a perturber is not finite; check the verdict of the lens fit")
    return fit


def refit_with(
    linear: LinearModel,
    without: Fit,
    halo: Halo,
    x: float,
    y: float,
    log10_mass: float,
    *,
    variance: float,
    free: bool = True,
) -> Refit:
    """Fits the model with a perturber.

    Args:
      linear: the first-order model of the fit.
      without: result of `refit_without`.
      halo: kind of perturber; its size remains that of `log10_mass`.
      x, y: position at the start, arcsec.
      log10_mass: log10 of the mass at the start, solar masses.
      variance: variance of the noise in the direction of the change of the image, relative to that of the
        noise map, by which chi-square is divided.
      free: whether position and mass are fitted, too.

    Raises:
      UserError: if the model is not finite.
    """
    wide, number = linear.wide, len(linear.wide.model.mass)
    model = dataclasses.replace(wide.model, mass=(*wide.model.mass, halo.component(free=free)))
    prefix = f"mass.{number}."
    own = {name: float(value) for name, value in halo.parameters(10**log10_mass, wide.theta_E).items()}
    own |= {"center_x": x, "center_y": y}
    values = dict(zip(wide.model.fitted, without.free, strict=True))
    values |= {prefix + name: value for name, value in own.items()}
    start = np.array([values[name] for name in model.fitted])
    fit = fit_model(model, wide.frame, wide.data, start, _settings(linear), wide.priors)
    if fit is None:
        raise UserError("the fit with a perturber is not finite; check the verdict of the lens fit")
    found = dict(zip(model.fitted, map(float, fit.free), strict=True))
    strength = found[prefix + halo.strength] / own[halo.strength]
    errors = (0.0, 0.0, 0.0)
    if free:
        covariance = parameter_covariance(
            model,
            wide.frame,
            wide.data,
            fit,
            prior_weight=linear.correlation.variance_factor,
            correlate=linear.correlation.apply,
            priors=wide.priors,
        )
        names = [name for name in model.fitted if not model.parameters[name].held]
        deviations = dict(zip(names, np.sqrt(np.maximum(np.diag(covariance), 0)), strict=True))
        relative = deviations[prefix + halo.strength] / max(found[prefix + halo.strength], 1e-30)
        power = halo.mass(1.0, 10.0)  # 10, or 100 for a point mass
        errors = (
            float(deviations[f"{prefix}center_x"]),
            float(deviations[f"{prefix}center_y"]),
            float(relative * np.log10(power) / np.log(10)),
        )
    return Refit(
        found[f"{prefix}center_x"],
        found[f"{prefix}center_y"],
        float(np.log10(halo.mass(10**log10_mass, strength))),
        errors,
        (without.cost - fit.cost) / 2 / variance,
        wide.values | found,
    )


def _settings(linear: LinearModel) -> Settings:
    return Settings(STEPS, _TOLERANCE, linear.correlation.variance_factor)
