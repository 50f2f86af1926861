"""tools/studies/compare_simulated.py: summary statistics of simulated and real images."""

import pathlib
import runpy

import numpy as np
import pytest

TOOL = runpy.run_path(str(pathlib.Path(__file__).parents[2] / "tools" / "studies" / "compare_simulated.py"))


@pytest.fixture(scope="module")
def pair(published_samples):
    simulated = TOOL["simulated_statistics"]("common_test", 300)
    return simulated, TOOL["published_statistics"](published_samples)


def test_published_statistics_are_within_simulated_range(pair):
    """Every statistic of every real image is within the range of 300 simulated images."""
    simulated, real = pair
    for name, values in real.items():
        assert simulated[name].min() < values.min(), name
        assert values.max() < simulated[name].max(), name


def test_mean_published_statistics_match_simulated_ones(pair):
    """Means over the real images are within four standard errors of the simulated mean."""
    simulated, real = pair
    for name, values in real.items():
        error = simulated[name].std() / np.sqrt(len(values))
        assert abs(values.mean() - simulated[name].mean()) < 4 * error, name


def test_statistics_recover_known_values():
    """An elongated Gaussian of known widths on a constant background, with Poisson noise."""
    axis = (np.arange(150) - 74.5) * 0.05
    x, y = np.meshgrid(axis, axis)
    rate = 20 + 900 * np.exp(-(x**2) / (2 * 1.0**2) - y**2 / (2 * 0.5**2))
    counts = np.random.default_rng(0).poisson(rate)
    found = TOOL["statistics"](counts - counts.min())
    assert found["background_variance"] == pytest.approx(20, rel=0.1)
    assert found["background_mean"] == pytest.approx(20 - counts.min(), rel=0.02)
    assert found["elongation"] == pytest.approx(2, rel=0.05)
    assert found["noise_slope"] == pytest.approx(1, rel=0.15)
    assert abs(found["correlation"]) < 0.1
    smooth = (counts[1:, 1:] + counts[:-1, 1:] + counts[1:, :-1] + counts[:-1, :-1]) / 4
    assert TOOL["statistics"](smooth)["correlation"] > 0.3
    assert TOOL["statistics"](smooth)["noise_slope"] < 0.5
