"""Fraction of dark matter in subhalos and slope of their mass function, from searches in many lenses.

Subhalos are a Poisson process: their number per area and mass is proportional to mass^-slope. A search finds
a subhalo with a probability that depends on its mass and position, which the maps of the sensitivity give.

Reference: Vegetti & Koopmans 2009, MNRAS 400, 1583.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp, ndtr

from lensjax.errors import UserError
from lensjax.substructure.search import PerturberMap

_STEPS = 4  # masses per step of a survey, for the integrals over the mass
_REACH = 5.0  # largest distance of a detection from the masses of its survey, standard errors


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """Selection function and detections of a search in one lens.

    Attributes:
      log10_mass: log10 of solar masses, in equal steps; subhalos outside are not found [masses].
      probability: probability that a subhalo of this mass is found, averaged over the area [masses].
      area: area of the search, arcsec^2.
      dark_mass: dark matter within the area, solar masses.
      detections: log10 of the mass, with its standard error, of each detection.
    """

    log10_mass: np.ndarray
    probability: np.ndarray
    area: float
    dark_mass: float
    detections: tuple[tuple[float, float], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class PopulationPosterior:
    """Posterior of the substructure fraction and the slope of the mass function on a grid.

    Attributes:
      fractions: fraction of the dark matter that is in subhalos [fractions].
      slopes: slope of the mass function [slopes].
      log_likelihood: [fractions, slopes].
      probability: posterior probability of each node [fractions, slopes], which sums to 1.
    """

    fractions: np.ndarray
    slopes: np.ndarray
    log_likelihood: np.ndarray
    probability: np.ndarray

    def level(self, fraction: float, slope: float) -> float:
        """Probability of the nodes that are more likely than the node nearest to a point.

        The point is within the smallest region of probability p if its level is less than p.

        Args:
          fraction, slope: the point.
        """
        row = int(np.abs(self.fractions - fraction).argmin())
        column = int(np.abs(self.slopes - slope).argmin())
        here = self.probability[row, column]
        return float(self.probability[self.probability > here].sum())

    def interval(self, name: str, probability: float = 0.68) -> tuple[float, float]:
        """Central interval of "fraction" or "slope".

        Args:
          name: the parameter.
          probability: probability within the interval.

        Raises:
          UserError: if there is no such parameter, or the probability is not between 0 and 1.
        """
        if name not in ("fraction", "slope"):
            raise UserError(f"parameter is {name!r}; expected 'fraction' or 'slope'")
        if not 0 < probability < 1:
            raise UserError(f"probability is {probability}; expected a number between 0 and 1")
        axis, values = (1, self.fractions) if name == "fraction" else (0, self.slopes)
        total = np.cumsum(self.probability.sum(axis))
        ends = (1 - probability) / 2, (1 + probability) / 2
        low, high = (float(np.interp(end, total, values)) for end in ends)
        return low, high


def survey(
    found: PerturberMap,
    threshold: float,
    *,
    convergence: float = 0.5,
    detections: tuple[tuple[float, float], ...] = (),
) -> Survey:
    """Selection function of a search.

    The logarithm of the likelihood ratio of a subhalo at its own position and mass is normally distributed
    with a mean of half the information and a variance equal to the information.

    Args:
      found: map of the search.
      threshold: logarithm of the likelihood ratio above which a subhalo counts as found.
      convergence: mean convergence of the dark matter in the area.
      detections: log10 of the mass, with its standard error, of each subhalo that was found.

    Returns:
      The selection function and the detections.
    """
    information = np.maximum(found.information[found.inside], 1e-12)
    probability = ndtr((information / 2 - threshold) / np.sqrt(information)).mean(0)
    area = float(found.inside.sum() * (found.x[1] - found.x[0]) * (found.y[1] - found.y[0]))
    dark_mass = convergence * found.halo.critical_mass() * area
    return Survey(found.log10_mass, probability, area, dark_mass, detections)


def population_posterior(
    surveys: Sequence[Survey],
    fractions: np.ndarray,
    slopes: np.ndarray,
    *,
    log_prior: np.ndarray | None = None,
    mass_range: tuple[float, float] = (4e6, 4e9),
) -> PopulationPosterior:
    """Posterior of the substructure fraction and the slope of the mass function.

    Args:
      surveys: results of the lenses.
      fractions: fractions of the dark matter in subhalos, positive, ascending [fractions].
      slopes: slopes of the mass function [slopes].
      log_prior: logarithm of the prior on the nodes [fractions, slopes]; None for equal probabilities.
      mass_range: masses of the subhalos to which the fraction refers, solar masses.

    Returns:
      The posterior.

    Raises:
      UserError: if there are no surveys, the fractions or slopes are not finite and ascending, a fraction is
        not positive, the prior has another shape, or a survey cannot have made one of its detections.
    """
    if not surveys:
        raise UserError("there are no surveys; give at least one")
    fractions, slopes = _ascending("fractions", fractions), _ascending("slopes", slopes)
    if fractions[0] <= 0:
        raise UserError("a substructure fraction is not positive; give positive ones")
    shape = fractions.size, slopes.size
    if log_prior is not None and np.shape(log_prior) != shape:
        raise UserError(f"log_prior has shape {np.shape(log_prior)}; expected (fractions, slopes), {shape}")
    total = np.zeros(shape)
    for each in surveys:
        fine, probability = _refine(each)
        # Expected number per unit of log10 mass for a fraction of 1 [slopes, masses].
        density = each.dark_mass * mass_function(fine, slopes, mass_range)
        weight = np.gradient(fine)
        weight[[0, -1]] /= 2  # trapezoidal rule
        total -= np.outer(fractions, (density * probability) @ weight)
        for log10_mass, error in each.detections:
            spread = max(error, float(weight.mean()))
            low, high = fine[0] - _REACH * spread, fine[-1] + _REACH * spread
            if not (low <= log10_mass <= high and 0 <= error < np.inf):
                raise UserError(
                    f"a survey of log10 masses from {fine[0]:g} to {fine[-1]:g} cannot have detected "
                    f"{log10_mass:g} with the error {error:g}; correct the detection"
                )
            close = np.exp(-0.5 * ((fine - log10_mass) / spread) ** 2) / spread
            total += np.log(fractions)[:, None] + np.log((density * probability * close) @ weight + 1e-300)
    log_posterior = total if log_prior is None else total + log_prior
    probability = np.exp(log_posterior - logsumexp(log_posterior))
    return PopulationPosterior(fractions, slopes, total, probability)


def mass_function(
    log10_mass: np.ndarray, slopes: np.ndarray, mass_range: tuple[float, float] = (4e6, 4e9)
) -> np.ndarray:
    """Number of subhalos per solar mass of dark matter and unit of log10 mass, if all of it is in subhalos.

    Args:
      log10_mass: [masses].
      slopes: slopes of the number per unit of mass [slopes].
      mass_range: masses of the subhalos that contain all dark matter, solar masses; the mass function
        continues beyond.

    Returns:
      The numbers [slopes, masses].
    """
    slopes = np.asarray(slopes, np.float64)[:, None]
    low, high = mass_range
    power = 2 - slopes
    near = np.abs(power) < 1e-6
    safe = np.where(near, 1.0, power)
    # The mass of subhalos per unit of the normalization, in units of high^(2 - slope).
    mass = np.where(near, np.log(high / low), (1 - (low / high) ** safe) / safe)
    return np.log(10) * (10.0**log10_mass / high) ** (1 - slopes) / (high * mass)


def _ascending(name: str, values: np.ndarray) -> np.ndarray:
    """Values as an array.

    Raises:
      UserError: if they are not finite numbers in ascending order.
    """
    array = np.atleast_1d(np.asarray(values, np.float64))
    if array.ndim != 1 or not array.size or not np.isfinite(array).all() or (np.diff(array) <= 0).any():
        raise UserError(f"{name} must be finite numbers in ascending order, without repetition")
    return array


def _refine(each: Survey) -> tuple[np.ndarray, np.ndarray]:
    """Masses in smaller steps, with the probability."""
    step = float(each.log10_mass[1] - each.log10_mass[0]) / _STEPS
    fine = np.arange(each.log10_mass[0], each.log10_mass[-1] + step / 2, step)
    return fine, np.interp(fine, each.log10_mass, each.probability)
