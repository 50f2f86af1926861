"""The grid, the lens equation, distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from lensjax import physics


def test_the_grid_is_centred_with_x_along_columns_and_y_along_rows():
    x, y = physics.pixel_grid(4, 0.05)
    np.testing.assert_allclose(x[0], [-0.075, -0.025, 0.025, 0.075], rtol=1e-6)
    np.testing.assert_array_equal(x, y.T)
    np.testing.assert_allclose(physics.to_pixel(x[0], 4, 0.05), np.arange(4), atol=1e-6)


def test_subpixels_share_their_pixel_s_centre():
    fine_x, fine_y = physics.pixel_grid(5, 0.1, subpixels=3)
    x, y = physics.pixel_grid(5, 0.1)
    np.testing.assert_allclose(physics.bin_mean(fine_x, 3), x, atol=1e-7)
    np.testing.assert_allclose(physics.bin_mean(fine_y, 3), y, atol=1e-7)


def test_a_grid_may_have_more_columns_than_rows():
    x, y = physics.pixel_grid((3, 4), 0.5, subpixels=2)
    assert x.shape == y.shape == (6, 8)
    np.testing.assert_allclose(x[2], (np.arange(8) - 3.5) * 0.25)
    np.testing.assert_allclose(y[:, 2], (np.arange(6) - 2.5) * 0.25)


def test_interpolation_is_exact_for_a_bilinear_brightness_and_dark_outside():
    x, y = physics.pixel_grid((4, 6), 0.5)
    image = 2 + 0.3 * x - 0.7 * y + 0.2 * x * y
    at_x, at_y = np.random.default_rng(0).uniform((-1.25, -0.75), (1.25, 0.75), (50, 2)).T
    found = physics.interpolate(image, jnp.asarray(at_x), jnp.asarray(at_y), 0.5)
    np.testing.assert_allclose(found, 2 + 0.3 * at_x - 0.7 * at_y + 0.2 * at_x * at_y, rtol=1e-5)
    beyond = jnp.asarray([2.0, -1e30]), jnp.asarray([0.0, 1e30])
    np.testing.assert_array_equal(physics.interpolate(image, *beyond, 0.5), [0, 0])


def test_a_point_behind_an_isothermal_sphere_is_seen_twice():
    """At 0.3 arcsec from the axis, images lie at theta_E + 0.3 and theta_E - 0.3 on the other side."""
    theta = jnp.asarray([1.5, -0.9])
    beta_x, beta_y = physics.sis_lens_equation(theta, jnp.zeros(2), 1.2)
    np.testing.assert_allclose(beta_x, [0.3, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(beta_y, [0, 0])


def test_the_einstein_ring_comes_from_the_point_behind_the_lens():
    angle = np.linspace(0, 2 * np.pi, 20)
    x, y = 0.2 + 1.1 * np.cos(angle), -0.1 + 1.1 * np.sin(angle)
    beta = physics.sis_lens_equation(jnp.asarray(x), jnp.asarray(y), 1.1, 0.2, -0.1)
    np.testing.assert_allclose(beta[0], np.full(20, 0.2), atol=1e-6)
    np.testing.assert_allclose(beta[1], np.full(20, -0.1), atol=1e-6)


def test_lens_equation_is_compiled_once_and_differentiable():
    gradient = jax.grad(lambda e: physics.sis_lens_equation(jnp.ones(()), jnp.ones(()), e)[0])
    np.testing.assert_allclose(gradient(1.0), -1 / np.sqrt(2), rtol=1e-6)


@pytest.mark.parametrize("z", [0.1, 0.5, 1.0, 3.0, 10.0])
def test_comoving_distance_is_the_integral(z):
    expected, _ = quad(lambda t: 299_792.458 / 70 / np.sqrt(0.3 * (1 + t) ** 3 + 0.7), 0, z)
    with jax.enable_x64(True):
        np.testing.assert_allclose(physics.comoving_distance(z), expected, rtol=1e-10)


def test_einstein_radius_of_a_trillion_suns_in_both_conventions():
    with jax.enable_x64(True):
        right = physics.einstein_radius(1e12)
        published = physics.einstein_radius(1e12, convention="deeplensesim")
    assert float(right) == pytest.approx(1.6645, abs=5e-5)
    assert float(published) == pytest.approx(1.2815, abs=5e-5)


def test_einstein_radius_grows_with_the_root_of_the_mass():
    masses = jnp.asarray([0.0, 1e6, 4e6])
    radii = physics.einstein_radius(masses)
    assert radii[0] == 0
    np.testing.assert_allclose(radii[2], 2 * radii[1], rtol=1e-6)


def test_an_unknown_convention_is_refused():
    # Under the tests' shape checks the signature itself refuses it, with a TypeError.
    with pytest.raises((ValueError, TypeError), match="luminosity"):
        physics.lensing_distances(0.5, 1.0, convention="luminosity")
