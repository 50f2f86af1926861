"""The reference's intensity-space form against NumPy, and what is wrong with it as physics."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from lensjax.physics import reference


def images(seed=0):
    values = np.random.default_rng(seed).uniform(0, 1, (2, 5, 5, 1)).astype(np.float32)
    values[0, 0, 0] = 0
    return values


def test_intensity_lens_equation_is_the_published_formula():
    theta_I, theta_E = images(), np.array([0.3, -0.2], np.float32)
    shift = theta_E[:, None, None, None] * theta_I / (np.abs(theta_I) + 1e-6)
    expected = np.clip(theta_I - shift, 0, 149)
    found = reference.intensity_lens_equation(jnp.asarray(theta_I), jnp.asarray(theta_E))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_intensity_lens_equation_bends_no_ray():
    """Its result at a pixel depends on that pixel alone: shuffled pixels give a shuffled result."""
    theta_I, theta_E = images(), jnp.asarray([0.3, -0.2])
    order = np.random.default_rng(1).permutation(25)
    shuffled = theta_I.reshape(2, 25, 1)[:, order].reshape(2, 5, 5, 1)
    one = reference.intensity_lens_equation(jnp.asarray(theta_I), theta_E).reshape(2, 25)[:, order]
    other = reference.intensity_lens_equation(jnp.asarray(shuffled), theta_E).reshape(2, 25)
    np.testing.assert_array_equal(one, other)


def test_physics_loss_is_each_image_s_mean_square():
    theta_I, theta_S, alpha = images(0), images(1), images(2)
    expected = ((theta_S - theta_I + alpha) ** 2).reshape(2, -1).mean(1)
    found = reference.physics_loss(jnp.asarray(theta_I), jnp.asarray(theta_S), jnp.asarray(alpha))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_gradients_are_finite_for_dark_pixels():
    def loss(theta_I, theta_E):
        theta_S = reference.intensity_lens_equation(theta_I, theta_E)
        return reference.physics_loss(theta_I, theta_S, jnp.zeros_like(theta_I)).sum()

    for gradient in jax.grad(loss, (0, 1))(jnp.zeros((1, 4, 4, 1)), jnp.asarray([0.1])):
        assert np.isfinite(gradient).all()


def test_gradient_passes_in_full_on_the_bounds_as_through_torch_s_clamp():
    """A dark pixel lies on the lower bound: 1 - theta_E / 1e-6 there, not half of it."""
    theta_I = jnp.zeros((1, 1, 1, 1))
    for theta_E in (0.1, -0.1):
        _, pull_back = jax.vjp(
            lambda image, e=theta_E: reference.intensity_lens_equation(image, jnp.asarray([e])),
            theta_I,
        )
        (found,) = pull_back(jnp.ones_like(theta_I))
        np.testing.assert_allclose(found, 1 - theta_E / 1e-6, rtol=1e-5)


def test_physics_needs_neither_flax_nor_data_nor_config():
    code = (
        "import sys; from lensjax import physics; "
        "print([m for m in sys.modules if m.split('.')[0] in ('flax', 'optax', 'ml_collections') "
        "or m.startswith(('lensjax.data', 'lensjax.config', 'lensjax.models'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
