"""Posterior of the substructure fraction and slope for simulated surveys."""

import dataclasses

import numpy as np
import pytest
from scipy.special import ndtr

from lensjax.errors import UserError
from lensjax.substructure import Survey, population_posterior
from lensjax.substructure.population import mass_function

FRACTIONS = np.linspace(0.002, 0.1, 50)
SLOPES = np.linspace(1.5, 2.5, 41)
MASSES = np.linspace(8, 10.5, 26)
ERROR = 0.2


def simulate(generator, fraction, slope, number=40):
    """Surveys by inverse transform sampling of the power law, independent of the code under test."""
    result = []
    for _ in range(number):
        middle, area, dark_mass = generator.uniform(8.8, 9.8), 20.0, generator.uniform(2e11, 6e11)
        low, high = 4e6, 4e9
        norm = (
            fraction
            * dark_mass
            / (
                np.log(high / low)
                if np.isclose(slope, 2)
                else (high ** (2 - slope) - low ** (2 - slope)) / (2 - slope)
            )
        )
        ends = np.array([1e8, 10**10.5]) ** (1 - slope)
        count = generator.poisson(norm * (ends[1] - ends[0]) / (1 - slope))
        masses = np.log10((ends[0] + generator.random(count) * (ends[1] - ends[0])) ** (1 / (1 - slope)))
        seen = masses[generator.random(count) < ndtr((masses - middle) / 0.2)]
        detections = tuple((float(mass + generator.normal(0, ERROR)), ERROR) for mass in seen)
        result.append(Survey(MASSES, ndtr((MASSES - middle) / 0.2), area, dark_mass, detections))
    return result


def test_mass_function_contains_all_dark_matter():
    mass = np.linspace(np.log10(4e6), np.log10(4e9), 4001)
    for slope in (1.7, 2.0, 2.3):
        per_mass = mass_function(mass, np.array([slope]))[0]
        assert np.trapezoid(per_mass * 10**mass, mass) == pytest.approx(1, rel=1e-3)


def test_credible_regions_have_their_stated_coverage():
    generator = np.random.default_rng(0)
    levels = []
    for _ in range(100):
        fraction = generator.uniform(FRACTIONS[0], FRACTIONS[-1])
        slope = generator.uniform(SLOPES[0], SLOPES[-1])
        posterior = population_posterior(simulate(generator, fraction, slope), FRACTIONS, SLOPES)
        levels.append(posterior.level(fraction, slope))
    assert 57 <= np.sum(np.array(levels) < 0.68) <= 79  # within 2.4 standard deviations of 68
    assert np.mean(levels) == pytest.approx(0.5, abs=0.08)


def test_no_detections_give_an_upper_limit():
    lens = Survey(MASSES, np.ones(MASSES.size), 20.0, 4e11)
    posterior = population_posterior([lens] * 30, FRACTIONS, np.array([1.9, 1.95]))
    assert posterior.fractions[posterior.probability.sum(1).argmax()] == FRACTIONS[0]
    expected = 30 * 4e11 * np.trapezoid(mass_function(MASSES, np.array([1.9]))[0], MASSES)
    slope = np.polyfit(FRACTIONS, posterior.log_likelihood[:, 0], 1)[0]
    assert slope == pytest.approx(-expected, rel=0.02)


def test_unusable_input_is_rejected():
    with pytest.raises(UserError, match="no surveys"):
        population_posterior([], FRACTIONS, SLOPES)
    with pytest.raises(UserError, match="not positive"):
        population_posterior(simulate(np.random.default_rng(0), 0.01, 1.9, 1), np.array([0.0]), SLOPES)
    lens = Survey(MASSES, np.ones(MASSES.size), 20.0, 4e11, ((9.0, 0.1),))
    for wrong in (FRACTIONS[::-1], np.array([0.01, np.nan]), np.zeros((2, 2)), np.array([])):
        with pytest.raises(UserError, match="fractions must be"):
            population_posterior([lens], wrong, SLOPES)
    with pytest.raises(UserError, match=r"expected \(fractions, slopes\)"):
        population_posterior([lens], FRACTIONS, SLOPES, log_prior=np.zeros(SLOPES.size))
    for detection in ((5.0, 0.1), (9.0, -0.1), (np.nan, 0.1), (9.0, np.inf)):
        with pytest.raises(UserError, match="cannot have detected"):
            population_posterior([dataclasses.replace(lens, detections=(detection,))], FRACTIONS, SLOPES)
    posterior = population_posterior([lens], FRACTIONS, SLOPES)
    with pytest.raises(UserError, match="'fraction' or 'slope'"):
        posterior.interval("fractions")
    with pytest.raises(UserError, match="between 0 and 1"):
        posterior.interval("slope", 68)
