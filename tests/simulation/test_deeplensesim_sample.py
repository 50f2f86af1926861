"""Images of Models I to III compared with images made by DeepLenseSim, whose true parameters are known.

The environment variable LENSJAX_DEEPLENSESIM_SAMPLES names a folder of these images: model_1/, model_2/ and
model_3/, each with the folders no/, cdm/ and axion/. Each of these contains `.npy` files and a `truth.json`,
which lists for each file the position of the source, the axion mass, and the Einstein radius, x and y of each
point mass.
"""

import dataclasses
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from lensjax import simulation

STATISTICS = runpy.run_path(
    str(pathlib.Path(__file__).parents[2] / "tools" / "studies" / "compare_simulated.py")
)["statistics"]
CLASSES = ("no", "cdm", "axion")
NUM_MASSES = 100
# Multiplies the deflections of each model.
SCALE = {
    "model_1": 1.0,
    "model_2": simulation.DEEPLENSESIM_DEFLECTION_SCALE,
    "model_3": simulation.DEEPLENSESIM_DEFLECTION_SCALE,
}


# The other statistics depend on the exposure time in model_1, and on the noise, which model_3 does not have.
# The priors of model_2 are those of model_3.
STATISTICS_OF = {
    "model_1": ("noise", "mean", "ring_radius", "elongation", "correlation"),
    "model_3": ("largest", "mean", "ring_radius", "elongation"),
}


def read(folder, model):
    """Images of a model, with their true parameters."""
    images, truth = [], []
    for label, name in enumerate(CLASSES):
        for row in json.loads((folder / model / name / "truth.json").read_text()):
            images.append(np.load(folder / model / name / row["file"]).astype(np.float64))
            truth.append(row | {"label": label})
    return np.array(images), truth


def to_scenes(model, truth):
    """Scenes with DeepLenseSim's parameters. The squares of the Einstein radii scale with the deflection."""
    masses = np.zeros((len(truth), NUM_MASSES, 3), np.float32)
    for padded, row in zip(masses, truth, strict=True):
        padded[: len(row["substructure"])] = np.reshape(row["substructure"], (-1, 3))
    masses[..., 0] *= SCALE[model] ** 0.5
    one = simulation.draw_scene(jax.random.key(0), simulation.preset(model), "no")
    scenes = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(truth), *leaf.shape)), one)
    return dataclasses.replace(
        scenes,
        label=jnp.asarray([row["label"] for row in truth], jnp.int32),
        source_x=jnp.asarray([row["source_x"] for row in truth], jnp.float32),
        source_y=jnp.asarray([row["source_y"] for row in truth], jnp.float32),
        masses=jnp.asarray(masses),
        axion_mass=jnp.asarray([row["axion_mass"] or 0.0 for row in truth], jnp.float32),
    )


def render(model, truth):
    preset = simulation.preset(model)
    compiled = jax.jit(jax.vmap(lambda scene: simulation.expected_counts(scene, preset)))
    return np.asarray(compiled(to_scenes(model, truth)), np.float64)


def statistics_of(images, model):
    scale = simulation.preset(model).instrument.pixel_scale
    rows = [STATISTICS(image - image.min(), scale) for image in images]
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return found | {"noise": np.sqrt(found["background_variance"]) / found["largest"]}


@pytest.mark.parametrize("model", ["model_2", "model_3"])
def test_noise_free_images_match_deeplensesim(deeplensesim_samples, model):
    """The images agree, in absolute brightness, to 4e-6 of the peak.

    The outermost pixels agree only to 7e-6: DeepLenseSim blurs the image as if they continued outward.
    """
    images, truth = read(deeplensesim_samples, model)
    assert images.shape == (60, 64, 64)
    difference = np.abs(render(model, truth) - images) / images.max((1, 2), keepdims=True)
    assert difference.max() < 7e-6
    edge = simulation.preset(model).instrument.psf_size // 2
    assert difference[:, edge:-edge, edge:-edge].max() < 4e-6


def test_model_1_images_match_deeplensesim_within_noise(deeplensesim_samples):
    """Standardized residuals of the counts have mean 0, variance 1 and no correlation."""
    images, truth = read(deeplensesim_samples, "model_1")
    assert images.shape == (60, 150, 150)
    expected = render("model_1", truth)
    exposure = estimate_exposure(images, expected)
    assert stats.kstest(np.log10(exposure), stats.uniform(3, 0.5).cdf).pvalue > 1e-4
    residual = standardized_residual(images, expected, exposure)
    assert np.abs(residual.mean((1, 2))).max() < 0.02
    assert np.abs((residual**2).mean((1, 2)) - 1).max() < 0.03
    assert (residual**2).mean() == pytest.approx(1, abs=0.005)
    bright = expected > 0.1 * expected.max()
    assert (residual**2)[bright].mean() == pytest.approx(1, abs=0.01)
    for first, second in ((residual[:, 1:], residual[:, :-1]), (residual[:, :, 1:], residual[:, :, :-1])):
        assert (first * second).mean() == pytest.approx(0, abs=0.005)


def estimate_exposure(images, expected):
    """Estimates exposure times from bright pixels; refines them with a parabola in the log-likelihood."""
    bright = expected > 0.1 * expected.max((1, 2), keepdims=True)
    exposure = (images * bright).sum((1, 2)) / (expected * bright).sum((1, 2))
    step = 0.01

    def misfit(exposure):
        mean, variance = exposure_noise_moments(expected, exposure[:, None, None])
        return ((images - mean) ** 2 / variance + np.log(variance)).sum((1, 2))

    below, middle, above = (misfit(exposure * np.exp(shift)) for shift in (-step, 0, step))
    return exposure * np.exp(0.5 * step * (below - above) / (below - 2 * middle + above))


def standardized_residual(images, expected, exposure):
    mean, variance = exposure_noise_moments(expected, exposure[:, None, None])
    return (images - mean) / np.sqrt(variance)


def exposure_noise_moments(expected, exposure):
    """Mean and variance of Poisson counts whose rate is a Gaussian variable clipped at 0."""
    rms = simulation.preset("model_1").noise.background_rms
    rate = exposure * expected
    sigma = np.sqrt(rate + (exposure * rms) ** 2)
    above = special.ndtr(rate / sigma)
    density = sigma * np.exp(-0.5 * (rate / sigma) ** 2) / np.sqrt(2 * np.pi)
    mean = rate * above + density
    square = (rate**2 + sigma**2) * above + rate * density
    return mean, square - mean**2 + mean


@pytest.mark.parametrize("model", list(STATISTICS_OF))
def test_statistics_match_deeplensesim(deeplensesim_samples, model):
    """Summary statistics of images with random parameters follow the same distributions."""
    found = statistics_of(read(deeplensesim_samples, model)[0], model)
    drawn = simulation.simulate_split(model, seed=2, split="test", num_images=160).pixels
    simulated = statistics_of(drawn, model)
    for name in STATISTICS_OF[model]:
        low, high = simulated[name].min(), simulated[name].max()
        margin = 0.1 * (high - low)
        assert low - margin < found[name].min() < found[name].max() < high + margin, name
        assert stats.ks_2samp(found[name], simulated[name]).pvalue > 1e-3, name
