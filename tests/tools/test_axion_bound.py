"""tools/studies/axion_bound.py: parameters of a vortex, and the bound for two correlated parameters."""

import pathlib
import runpy

import jax
import numpy as np
import pytest

from lensjax import simulation

TOOL = runpy.run_path(str(pathlib.Path(__file__).parents[2] / "tools" / "studies" / "axion_bound.py"))


def test_true_parameters_reproduce_the_image():
    preset = simulation.preset("model_1")
    scenes = simulation.draw_scenes("model_1", seed=3, split="test", num_images=3)
    vortex = jax.tree.map(lambda leaf: leaf[2], scenes)
    expected = vortex.exposure * simulation.expected_counts(vortex, preset)
    found = TOOL["expected_image"](vortex, TOOL["true_parameters"](vortex))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3 * float(expected.max()))


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.9])
def test_bound_accounts_for_an_unknown_parameter(correlation):
    covariance = np.array([[0.04, 0.2 * 3 * correlation], [0.2 * 3 * correlation, 9.0]])
    np.testing.assert_allclose(TOOL["bounds"](np.linalg.inv(covariance)[None]), 0.2, rtol=1e-6)
