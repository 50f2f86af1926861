"""Lens equation, ray shooting and lensed images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def test_sphere_forms_two_images_of_a_point():
    """A source 0.3 arcsec off axis has images at theta_E + 0.3 and, on the other side, theta_E - 0.3."""
    theta = jnp.asarray([1.5, -0.9])
    beta_x, beta_y = physics.sis_lens_equation(theta, jnp.zeros(2), 1.2)
    np.testing.assert_allclose(beta_x, [0.3, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(beta_y, [0, 0])


def test_einstein_ring_maps_to_the_lens_position():
    angle = np.linspace(0, 2 * np.pi, 20)
    x, y = 0.2 + 1.1 * np.cos(angle), -0.1 + 1.1 * np.sin(angle)
    center = {"center_x": 0.2, "center_y": -0.1}
    beta = physics.sis_lens_equation(jnp.asarray(x), jnp.asarray(y), 1.1, **center)
    np.testing.assert_allclose(beta[0], np.full(20, 0.2), atol=1e-6)
    np.testing.assert_allclose(beta[1], np.full(20, -0.1), atol=1e-6)


def test_lens_equation_is_differentiable():
    gradient = jax.grad(lambda e: physics.sis_lens_equation(jnp.ones(()), jnp.ones(()), e)[0])
    np.testing.assert_allclose(gradient(1.0), -1 / np.sqrt(2), rtol=1e-6)


def test_rays_reach_theta_minus_alpha():
    def sheared(x, y):
        alpha = physics.sis_deflection(x, y, 1.2)
        shear = physics.external_shear_deflection(x, y, 0.08, -0.05)
        return alpha[0] + shear[0], alpha[1] + shear[1]

    x, y = np.random.default_rng(0).uniform(-2, 2, (2, 30))
    stretch = 1 - 1.2 / np.hypot(x, y)
    expected = stretch * x - 0.08 * x + 0.05 * y, stretch * y + 0.05 * x + 0.08 * y
    np.testing.assert_allclose(
        physics.ray_shooting(sheared, jnp.asarray(x), jnp.asarray(y)), expected, rtol=1e-14, atol=1e-14
    )


def test_sampled_source_requires_its_pixel_size():
    def sphere(x, y):
        return physics.sis_deflection(x, y, 1.2)

    with pytest.raises(ValueError, match="source_scale"):
        physics.lensed_image(jnp.zeros((4, 4)), sphere, jnp.zeros(1), jnp.zeros(1))
