"""tools/studies/hidden_vortices.py: the significance agrees with fits by SciPy."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.studies import load_study
from scipy import optimize

from lensjax import simulation

STUDY = load_study("hidden_vortices")


@pytest.mark.parametrize("names", [STUDY.KNOWN_LENS, STUDY.UNKNOWN_LENS], ids=["known", "unknown"])
def test_significance_agrees_with_scipy_fit(names):
    scenes = simulation.draw_scenes("model_1", seed=3, split="test", num_images=3)
    vortex = jax.tree.map(lambda leaf: leaf[2], scenes)
    preset = simulation.preset("model_1")
    expected = np.asarray(vortex.exposure * simulation.expected_counts(vortex, preset))
    sigma = np.sqrt(2 * expected + (vortex.exposure * preset.noise.background_rms) ** 2)
    render = jax.jit(lambda scene: vortex.exposure * simulation.expected_counts(scene, STUDY.FREE))
    smooth = dataclasses.replace(vortex, masses=np.zeros_like(vortex.masses))

    def residual(parameters):
        values = dict(zip(names, np.float32(parameters), strict=True))
        return ((expected - np.asarray(render(dataclasses.replace(smooth, **values)))) / sigma).ravel()

    start = np.array([getattr(vortex, name) for name in names], float)
    scale = np.maximum(np.abs(start), 1e-2)
    best = optimize.least_squares(residual, start, diff_step=1e-3, x_scale=scale)
    found = STUDY.significance(jax.tree.map(lambda leaf: leaf[None], vortex), names)[0]
    np.testing.assert_allclose(found, np.sqrt(2 * best.cost), rtol=1e-2)
