"""tools/studies/likelihood_ratio.py: priors and AUC."""

import importlib.util
import pathlib

import numpy as np

from lensjax import simulation

TOOLS = pathlib.Path(__file__).parents[2] / "tools" / "studies"


def tool(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_prior_matches_simulated_scenes():
    prior = tool("likelihood_ratio").prior(simulation.preset("common_test"))
    scenes = simulation.draw_scenes("common_test", seed=4, split="test", num_images=3_000)
    squared = scenes.masses[..., 0] ** 2
    masses = squared[scenes.label == 1]
    assert masses.shape[1] == prior.masses.number
    low, high = prior.masses.theta_E_squared
    assert low <= masses.min() < 2 * low
    assert 0.98 * high < masses.max() <= high
    np.testing.assert_allclose([masses.mean(), (masses**2).mean()], prior.masses.moments(), rtol=0.05)
    lines = scenes.masses[scenes.label == 2]
    total = (lines[..., 0] ** 2).sum(1)
    length = np.hypot(*(lines[:, -1] - lines[:, 0])[:, 1:].T)
    for drawn, limits in ((total, prior.line.theta_E_squared), (length, prior.line.length)):
        assert limits[0] * 0.999 <= drawn.min() < limits[0] * 1.05
        assert limits[1] * 0.95 < drawn.max() <= limits[1] * 1.001
    np.testing.assert_allclose(lines[..., 1:].mean(1).std(), prior.line.center_sigma, rtol=0.05)


def test_auc_is_fraction_of_ordered_pairs():
    rng = np.random.default_rng(0)
    labels, ratios = rng.integers(0, 3, 60), rng.normal(0, 900, (60, 3))
    areas = tool("likelihood_ratio").aucs(labels, ratios, np.ones((1, 60)))[0]
    for label in range(3):
        others = np.delete(ratios, label, axis=1)
        odds = ratios[:, label] - others.max(1) - np.log1p(np.exp(others.min(1) - others.max(1)))
        inside, outside = odds[labels == label], odds[labels != label]
        np.testing.assert_allclose(areas[label], (inside[:, None] > outside[None]).mean())
    np.testing.assert_allclose(areas[3], areas[:3].mean())
