"""The reference's intensity-space lens equation compared with NumPy and PyTorch."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax.physics import reference


def images(seed=0):
    values = np.random.default_rng(seed).uniform(0, 1, (2, 5, 5, 1)).astype(np.float32)
    values[0, 0, 0] = 0
    return values


def test_intensity_lens_equation_matches_published_formula():
    theta_I, theta_E = images(), np.array([0.3, -0.2], np.float32)
    shift = theta_E[:, None, None, None] * theta_I / (np.abs(theta_I) + 1e-6)
    expected = np.clip(theta_I - shift, 0, 149)
    found = reference.intensity_lens_equation(jnp.asarray(theta_I), jnp.asarray(theta_E))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_intensity_lens_equation_does_not_deflect_light():
    """The result at a pixel depends only on that pixel: shuffling the pixels shuffles the result."""
    theta_I, theta_E = images(), jnp.asarray([0.3, -0.2])
    order = np.random.default_rng(1).permutation(25)
    shuffled = theta_I.reshape(2, 25, 1)[:, order].reshape(2, 5, 5, 1)
    one = reference.intensity_lens_equation(jnp.asarray(theta_I), theta_E).reshape(2, 25)[:, order]
    other = reference.intensity_lens_equation(jnp.asarray(shuffled), theta_E).reshape(2, 25)
    np.testing.assert_array_equal(one, other)


def test_physics_loss_is_mean_square_per_image():
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


@pytest.mark.parametrize("theta_E", [0.1, -0.1])
def test_gradient_at_bound_matches_torch_clamp(theta_E):
    """A dark pixel is at the lower bound; its gradient is 1 - theta_E / 1e-6, not half of that."""
    theta_I = jnp.zeros((1, 1, 1, 1))
    _, pull_back = jax.vjp(
        lambda image: reference.intensity_lens_equation(image, jnp.asarray([theta_E])), theta_I
    )
    (found,) = pull_back(jnp.ones_like(theta_I))
    np.testing.assert_allclose(found, 1 - theta_E / 1e-6, rtol=1e-5)


def dark_images():
    """Rectangular images: two with a dark pixel, and two of constant brightness."""
    x = np.random.default_rng(3).uniform(0, 1, (4, 9, 7, 1))
    x[0, 4, 3], x[1, 0, 0], x[2], x[3] = 0, 0, 0, 0.3
    return x


@pytest.mark.parametrize("form", reference.GRADIENT_FORMS)
def test_gradient_input_matches_torch_in_float64(form):
    torch = pytest.importorskip("torch")
    from oracles import torch_models

    with jax.enable_x64(True):
        x = dark_images()
        found = reference.gradient_input(jnp.asarray(x), form=form)
        assert found.dtype == jnp.float64
        expected = torch_models.gradient_input(torch.tensor(np.moveaxis(x, -1, 1)), form)[:, 0]
        np.testing.assert_allclose(found[..., 0], expected, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(found[2:], 0)


def test_gradient_input_is_exact_for_plane_and_saddle():
    """Central and one-sided differences of a linear L are exact, and so are mixed differences of L = x y."""
    with jax.enable_x64(True):
        y, x = np.meshgrid(np.arange(6.0), np.arange(8.0), indexing="ij")
        plane, saddle = 0.3 * x + 0.7 * y, 0.2 * x * y
        # The brightness is 1 where L = 0, because L depends on (1 + 1e-6) / (brightness + 1e-6).
        image = (1 + 1e-6) * np.exp(-np.sqrt([plane, saddle])) - 1e-6
        image = jnp.asarray(image[..., None])
        product = reference.gradient_input(image)[..., 0]
        mixed = reference.gradient_input(image, form="mixed_derivative")[..., 0]
        np.testing.assert_allclose(product[0], np.tanh(0.3 * 0.7), rtol=1e-9)
        np.testing.assert_allclose(mixed[0], 0, atol=1e-9)
        np.testing.assert_allclose(product[1], np.tanh(0.2**2 * x * y), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(mixed[1], np.tanh(0.2), rtol=1e-9)


@pytest.mark.parametrize("form", reference.GRADIENT_FORMS)
def test_gradient_input_has_finite_gradients(form):
    def total(x):
        return reference.gradient_input(x, form=form).sum()

    assert np.isfinite(jax.grad(total)(jnp.asarray(dark_images(), jnp.float32))).all()


def test_unknown_gradient_input_form_is_rejected():
    with pytest.raises(ValueError, match="'laplacian' is not one of gradient_product, mixed_der"):
        reference.gradient_input(jnp.ones((1, 4, 4, 1)), form="laplacian")


def test_gradient_inputs_of_two_exposures_are_uncorrelated():
    """The counts are like those of the published images: a ring of several hundred on a sky of 11."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[-74.5:75, -74.5:75]
    mean = 11 + 700 * np.exp(-((np.hypot(x - 3, y) - 25) ** 2) / 50)
    counts = generator.poisson(mean, (2, 150, 150)).astype(np.float32)
    counts -= counts.min((1, 2), keepdims=True)
    x = (counts / counts.max((1, 2), keepdims=True))[..., None]

    def correlation(pair):
        return np.corrcoef(np.reshape(pair, (2, -1)))[0, 1]

    assert correlation(x) > 0.95
    assert abs(correlation(reference.gradient_input(jnp.asarray(x)))) < 0.05


def test_physics_imports_neither_flax_nor_data_nor_config():
    code = (
        "import sys; from lensjax import physics; "
        "print([m for m in sys.modules if m.split('.')[0] in ('flax', 'optax', 'ml_collections') "
        "or m.startswith(('lensjax.data', 'lensjax.config', 'lensjax.models'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
