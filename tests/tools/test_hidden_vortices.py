"""tools/studies/hidden_vortices.py: the significance agrees with a fit by SciPy."""

import dataclasses

import jax
import numpy as np
from helpers.studies import load_study
from scipy import optimize

from lensjax import simulation


def test_significance_is_the_chi_square_of_the_best_smooth_fit():
    study = load_study("hidden_vortices")
    scenes = simulation.draw_scenes("model_1", seed=3, split="test", num_images=3)
    vortex = jax.tree.map(lambda leaf: leaf[2], scenes)
    preset = simulation.preset("model_1")
    render = jax.jit(lambda scene: vortex.exposure * simulation.expected_counts(scene, preset))
    expected = np.asarray(render(vortex))
    sigma = np.sqrt(2 * expected + (vortex.exposure * preset.noise.background_rms) ** 2)

    def residual(parameters):
        x, y, factor, sky = parameters
        smooth = dataclasses.replace(
            vortex, source_x=np.float32(x), source_y=np.float32(y), masses=np.zeros_like(vortex.masses)
        )
        return ((expected - factor * np.asarray(render(smooth)) - sky) / sigma).ravel()

    start = [vortex.source_x, vortex.source_y, 1.0, 0.0]
    best = optimize.least_squares(residual, start, diff_step=1e-3, x_scale=[0.1, 0.1, 1.0, 1.0])
    known, unknown = (
        float(study.significance(jax.tree.map(lambda leaf: leaf[None], vortex), names)[0])
        for names in (study.KNOWN_LENS, study.UNKNOWN_LENS)
    )
    np.testing.assert_allclose(known, np.sqrt(2 * best.cost), rtol=2e-3)
    assert unknown < known
