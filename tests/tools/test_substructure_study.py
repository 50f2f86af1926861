"""tools/studies/perturbed_lenses.py and substructure.py: positions of perturbers, and statistics."""

import numpy as np
import pytest
from helpers.studies import load_study

study = load_study("substructure")
perturbed_lenses = load_study("perturbed_lenses")


def test_perturbers_are_next_to_bright_arcs():
    arcs = np.zeros((120, 120))
    arcs[80, 30], arcs[20, 100], arcs[60, 60] = 12.0, 4.0, 2.9
    places = {"bright": (-1.475, 1.025), "faint": (2.025, -1.975)}  # arcsec; 2.9 is below the limit
    generator = np.random.default_rng(0)
    drawn = [perturbed_lenses.draw_perturber(generator, arcs) for _ in range(400)]
    near = {
        name: sum(np.hypot(each["x"] - x, each["y"] - y) <= 0.2 for each in drawn)
        for name, (x, y) in places.items()
    }
    assert near["bright"] + near["faint"] == 400
    assert near["bright"] == pytest.approx(300, abs=35)  # in proportion to the brightness; 4 deviations
    assert np.ptp([each["x"] for each in drawn if each["x"] < 0]) > 0.35


def test_mass_at_which_half_are_found_is_recovered():
    generator = np.random.default_rng(1)
    difference = generator.uniform(-1, 1, 2000)
    found = difference > generator.normal(0.3, 0.2, 2000)
    assert study.half_found(difference, found, np.arange(2000)) == pytest.approx(0.3, abs=0.05)


def test_threshold_is_exceeded_at_the_stated_rate():
    values = np.random.default_rng(2).exponential(size=400)
    threshold, low, high = study.threshold_of_rate(values, 0.1)
    assert (values > threshold).mean() == pytest.approx(0.1, abs=0.003)
    error = np.sqrt(0.1 * 0.9 / 400) / 0.1  # of the quantile of an exponential distribution
    assert (high - low) / 2 == pytest.approx(error, rel=0.5)
