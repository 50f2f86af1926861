"""A lens that is guessed: drawn right, differentiable, refined to the truth, and learnt from."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.numpy_lens import render

from lensjax import fitting
from lensjax.fitting.level import Level
from lensjax.fitting.render import brightness
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
PARAMETERS = np.stack([TRUTH[name] for name in MODEL.nonlinear], axis=1).astype(np.float32)
SIZE = 64


@pytest.fixture(scope="module")
def images():
    """Photon counts of NumPy's own rendering of the middle 64 pixels, scaled from 0 to 1."""
    rng = np.random.default_rng(0)
    cut = slice(75 - SIZE // 2, 75 + SIZE // 2)
    drawn = []
    for row in range(2):
        scene = types.SimpleNamespace(masses=[], **{name: TRUTH[name][row] for name in TRUTH})
        counts = rng.poisson(render(scene, COMMON_TEST)[cut, cut]).astype(float)
        drawn.append((counts - counts.min()) / np.ptp(counts))
    return jnp.asarray(np.stack(drawn)[..., None], jnp.float32)


def test_a_network_s_numbers_become_parameters_within_their_bounds():
    size = len(MODEL.nonlinear)
    raw = jnp.stack([jnp.zeros(size), jnp.full(size, -1e3), jnp.full(size, 1e3)])
    middle, low, high = np.asarray(rendered_lens.within_bounds(MODEL, raw))
    for index, name in enumerate(MODEL.nonlinear):
        parameter = getattr(MODEL, name)
        expected = parameter.value, *parameter.bounds
        np.testing.assert_allclose((middle[index], low[index], high[index]), expected, atol=1e-5)


def test_the_true_lens_leaves_noise_and_steps_lead_to_it(images):
    residuals = jax.jit(functools.partial(rendered_lens.standardised_residuals, MODEL))
    true = np.square(residuals(images, PARAMETERS)).mean((1, 2, 3))
    np.testing.assert_allclose(true, 1, atol=0.1)
    start = PARAMETERS + np.float32(0.03)
    assert (np.square(residuals(images, start)).mean((1, 2, 3)) > 1.5 * true).all()
    refined = jax.jit(rendered_lens.refined, static_argnums=(0, 3))
    found = refined(MODEL, images, start, 5)
    best = np.square(residuals(images, found)).mean((1, 2, 3))
    assert (best < true).all()
    np.testing.assert_allclose(found, PARAMETERS, atol=0.02)
    assert refined(MODEL, images, start, 0) is not None
    np.testing.assert_array_equal(refined(MODEL, images, start, 0), start)


def test_derivatives_of_the_residual_are_those_of_finite_differences_at_constant_noise(images):
    with jax.enable_x64(True):
        small = dataclasses.replace(MODEL, subpixels=1)
        image = np.asarray(images[0, 16:48, 16:48, 0], np.float64)
        direction = np.random.default_rng(1).normal(size=image.shape)
        free = PARAMETERS[0].astype(np.float64) + 0.02

        def along(free):
            given = jnp.asarray(image)[None, ..., None]
            residual = rendered_lens.standardised_residuals(small, given, free[None])
            return (direction * residual[0, ..., 0]).sum()

        gradient = np.asarray(jax.jit(jax.grad(along))(jnp.asarray(free)))
        draw = jax.jit(functools.partial(brightness, small, Level(image.shape, 1, 1)))
        weight = np.asarray(rendered_lens._weight(jnp.asarray(image), draw(free)))

        def by_numpy(free):
            columns = np.stack([np.asarray(draw(free)), np.ones_like(image)], -1).reshape(-1, 2)
            root = np.sqrt(weight).ravel()
            linear = np.linalg.lstsq(columns * root[:, None], image.ravel() * root, rcond=None)[0]
            return (direction.ravel() * root * (image.ravel() - columns @ linear)).sum()

        for index, found in enumerate(gradient):
            step = np.zeros_like(free)
            step[index] = 1e-6
            difference = (by_numpy(free + step) - by_numpy(free - step)) / 2e-6
            np.testing.assert_allclose(found, difference, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("steps", "term"), [(0, "class"), (1, "class"), (1, "physics")])
def test_the_encoder_learns_from_the_classes_unless_steps_lie_between(images, steps, term):
    model = LensEncoderNet(width=4, num_blocks=0, gauss_newton_steps=steps)
    few = images[:1, 16:48, 16:48]
    variables = jax.jit(lambda key: model.init(key, few, train=False))(jax.random.key(0))

    @jax.jit
    def gradient(params):
        def loss(params):
            answer = model.apply(
                variables | {"params": params}, few, train=False, with_physics_loss=True
            )
            return (answer.logits[:, 0] if term == "class" else answer.physics_loss).sum()

        return jax.grad(loss)(params)["encoder"]

    leaves = jax.tree.leaves(gradient(variables["params"]))
    length = sum(float(jnp.abs(leaf).sum()) for leaf in leaves)
    assert np.isfinite(length)
    assert (length > 0) == (steps == 0 or term == "physics")
