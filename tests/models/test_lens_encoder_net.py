"""Lenses that `LensEncoderNet` predicts: residuals, derivatives and refinement."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.lenses import FITTED
from oracles.numpy_lens import render

from lensjax import fitting
from lensjax.fitting.noise import noise_from_high_frequencies, variance
from lensjax.models import LensEncoderNet, rendered_lens
from lensjax.simulation.presets import COMMON_TEST

MODEL = fitting.COMMON_TEST
TRUTH = {
    "theta_E": (1.2, 1.0),
    "gamma1": (0.1, 0.05),
    "gamma2": (-0.02, 0.0),
    "source_x": (0.1, -0.2),
    "source_y": (-0.15, 0.1),
    "source_e1": (0.2, 0.1),
    "source_e2": (-0.05, 0.02),
}
PARAMETERS = np.stack([TRUTH[name] for name in FITTED], axis=1).astype(np.float32)
SIZE = 64


@pytest.fixture(scope="module")
def images():
    """Photon counts of the central 64 x 64 pixels of NumPy renderings, scaled to [0, 1]."""
    rng = np.random.default_rng(0)
    center = slice(75 - SIZE // 2, 75 + SIZE // 2)
    drawn = []
    for row in range(2):
        scene = types.SimpleNamespace(masses=[], **{name: TRUTH[name][row] for name in TRUTH})
        counts = rng.poisson(render(scene, COMMON_TEST)[center, center]).astype(float)
        drawn.append((counts - counts.min()) / np.ptp(counts))
    return jnp.asarray(np.stack(drawn)[..., None], jnp.float32)


def test_constrained_parameters_are_within_their_bounds():
    size = len(MODEL.nonlinear)
    raw = jnp.stack([jnp.zeros(size), jnp.full(size, -1e3), jnp.full(size, 1e3)])
    middle, low, high = np.asarray(rendered_lens.constrain(MODEL, raw))
    for index, name in enumerate(MODEL.nonlinear):
        parameter = MODEL.lens.parameters[name]
        expected = parameter.value, *parameter.bounds
        np.testing.assert_allclose((middle[index], low[index], high[index]), expected, atol=1e-5)


def test_gauss_newton_steps_recover_the_true_lens(images):
    residuals = jax.jit(functools.partial(rendered_lens.standardized_residuals, MODEL))
    true = np.square(residuals(images, PARAMETERS)).mean((1, 2, 3))
    np.testing.assert_allclose(true, 1, atol=0.1)
    start = PARAMETERS + np.float32(0.03)
    refined = jax.jit(rendered_lens.refine, static_argnums=(0, 3))
    each = [refined(MODEL, images, start, steps) for steps in (0, 1, 2)]
    before, one, two = (np.square(residuals(images, free)).mean((1, 2, 3)) for free in each)
    assert (before > 1.5 * true).all()
    assert (one < 0.5 * (before + true)).all()
    assert (two < one).all()
    found = refined(MODEL, images, start, 5)
    best = np.square(residuals(images, found)).mean((1, 2, 3))
    assert (best < true).all()
    np.testing.assert_allclose(found, PARAMETERS, atol=0.02)


def test_refinement_without_steps_returns_its_start(images):
    np.testing.assert_array_equal(rendered_lens.refine(MODEL, images, PARAMETERS, 0), PARAMETERS)


def test_residuals_and_derivatives_match_numpy_at_constant_noise(images):
    """The reference renders the lens in NumPy, fits amplitude and sky, and takes finite differences."""
    instrument = dataclasses.replace(COMMON_TEST.instrument, image_size=32, subpixels=1)
    preset = dataclasses.replace(COMMON_TEST, instrument=instrument)
    with jax.enable_x64(True):
        small = dataclasses.replace(MODEL, subpixels=1)
        image = np.asarray(images[0, 16:48, 16:48, 0], np.float64)
        direction = np.random.default_rng(1).normal(size=image.shape)
        free = PARAMETERS[0].astype(np.float64) + 0.02

        @jax.jit
        @functools.partial(jax.grad, has_aux=True)
        def gradient_and_residual(free):
            batch = jnp.asarray(image)[None, ..., None]
            residual = rendered_lens.standardized_residuals(small, batch, free[None])[0, ..., 0]
            return (direction * residual).sum(), residual

        def numpy_residual(free, root):
            """Image minus lens with the best amplitude and sky, and the flux of the lens."""
            values = dict(zip(FITTED, free, strict=True))
            source = render(types.SimpleNamespace(masses=[], **values), preset) - instrument.sky
            columns = np.stack([source, np.ones_like(image)], -1)
            rows = (columns * root[..., None]).reshape(-1, 2)
            linear = np.linalg.lstsq(rows, (image * root).ravel(), rcond=None)[0]
            return image - columns @ linear, linear[0] * source

        everywhere = np.ones_like(image)
        rough, flux = numpy_residual(free, everywhere)
        noise = noise_from_high_frequencies(*map(jnp.asarray, (rough, flux, everywhere)), jnp.asarray(np.nan))
        root = 1 / np.sqrt(np.asarray(variance(jnp.asarray(flux), *noise)))

        def numpy_slope(free):
            return (direction * root * numpy_residual(free, root)[0]).sum()

        steps = 1e-6 * np.eye(len(free))
        expected = [(numpy_slope(free + step) - numpy_slope(free - step)) / 2e-6 for step in steps]
        gradient, residual = gradient_and_residual(jnp.asarray(free))
        expected_residual = root * numpy_residual(free, root)[0]
        np.testing.assert_allclose(residual, expected_residual, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("steps", "term"), [(0, "class"), (1, "class"), (1, "physics")])
def test_gauss_newton_steps_block_the_classification_gradient(images, steps, term):
    model = LensEncoderNet(width=4, num_blocks=0, gauss_newton_steps=steps)
    few = images[:1, 16:48, 16:48]
    variables = jax.jit(lambda key: model.init(key, few, train=False))(jax.random.key(0))

    @jax.jit
    def gradient(params):
        def loss(params):
            outputs = model.apply(variables | {"params": params}, few, train=False, with_physics_loss=True)
            return (outputs.logits[:, 0] if term == "class" else outputs.physics_loss).sum()

        return jax.grad(loss)(params)["encoder"]

    leaves = jax.tree.leaves(gradient(variables["params"]))
    length = sum(float(jnp.abs(leaf).sum()) for leaf in leaves)
    assert np.isfinite(length)
    assert (length > 0) == (steps == 0 or term == "physics")
