"""Physics losses: zero for physical lenses, positive for others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def sphere(theta_E):
    return lambda x, y: physics.sis_deflection(x, y, theta_E)


def light(x, y):
    return jnp.exp(-((x - 0.2) ** 2 + (y + 0.1) ** 2) / (2 * 0.25**2))


def test_same_source_loss_vanishes_at_true_einstein_radius():
    """For images at 1.5 and -0.9 arcsec, an error d in the radius shifts each source position by d."""
    x, y = jnp.asarray([1.5, -0.9]), jnp.zeros(2)

    def loss(theta_E):
        return physics.same_source_loss(sphere(theta_E), x, y)

    assert loss(1.2) == pytest.approx(0, abs=1e-15)
    assert loss(1.3) == pytest.approx(0.1**2, rel=1e-6)
    assert jax.grad(loss)(1.3) == pytest.approx(2 * 0.1, rel=1e-6)


def test_masked_images_do_not_contribute():
    x, y = jnp.asarray([1.5, -0.9, 0.3]), jnp.asarray([0.0, 0.0, 0.7])
    mask = jnp.asarray([True, True, False])
    value, gradient = jax.value_and_grad(lambda t: physics.same_source_loss(sphere(t), x, y, mask))(1.2)
    assert value == pytest.approx(0, abs=1e-15)
    assert np.isfinite(gradient)
    assert physics.same_source_loss(sphere(1.2), x, y) > 0.01
    padded = jnp.where(mask, x, jnp.nan), jnp.where(mask, y, jnp.inf)
    value, gradient = jax.value_and_grad(lambda t: physics.same_source_loss(sphere(t), *padded, mask))(1.3)
    assert value == pytest.approx(0.1**2, rel=1e-6)
    assert gradient == pytest.approx(2 * 0.1, rel=1e-6)
    assert physics.same_source_loss(sphere(1.2), x, y, jnp.zeros(3, bool)) == 0


def test_brightness_loss_is_smallest_at_true_einstein_radius():
    x, y = physics.pixel_grid(100, 0.05)
    image = physics.lensed_image(light, sphere(1.2), x, y)
    loss = jax.jit(jax.vmap(lambda theta_E: physics.sis_brightness_loss(image, 0.05, theta_E)))
    radii = jnp.linspace(0.9, 1.5, 13)
    found = np.asarray(loss(radii))
    assert radii[found.argmin()] == pytest.approx(1.2)
    assert found.min() < 1e-4
    assert np.delete(found, found.argmin()).min() > 50 * found.min()


def test_brightness_loss_of_dark_image_is_zero():
    def loss(theta_E):
        return physics.sis_brightness_loss(jnp.zeros((20, 20)), 0.1, theta_E, radii=3, angles=4)

    value, gradient = jax.jit(jax.value_and_grad(loss))(0.5)
    assert value == 0
    assert gradient == 0


def test_chi_square_loss_is_one_for_noise():
    x, y = physics.pixel_grid(60, 0.1)
    image = physics.lensed_image(light, sphere(1.2), x, y)
    assert physics.chi_square_loss(image, image, 0.01) == 0
    noise = np.random.default_rng(0).normal(0, 0.1, (60, 60))
    noisy = image + noise
    assert physics.chi_square_loss(noisy, image, 0.1**2) == pytest.approx(1, abs=0.1)
    other = physics.lensed_image(light, sphere(1.4), x, y)
    assert physics.chi_square_loss(noisy, other, 0.1**2) > 2
    variance = jnp.full((60, 60), 0.02)
    mask = x > 0
    expected = np.mean((np.asarray(noisy - other)[np.asarray(mask)]) ** 2) / 0.02
    found = physics.chi_square_loss(noisy, other, variance, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_curl_loss_detects_rotation_only():
    x, y = physics.pixel_grid((30, 40), 0.1)
    mass_sheet_and_shear = 0.3 * x + 0.1 * x - 0.2 * y, 0.3 * y - 0.2 * x - 0.1 * y
    assert physics.curl_loss(*mass_sheet_and_shear, 0.1) == pytest.approx(0, abs=1e-25)
    assert physics.curl_loss(-0.2 * y, 0.2 * x, 0.1) == pytest.approx(0.4**2, rel=1e-10)
    assert physics.curl_loss(0.4 * y, 0.0 * x, 0.1) == pytest.approx(0.4**2, rel=1e-10)


def test_curl_scales_as_pixel_to_fourth_power():
    @functools.partial(jax.jit, static_argnums=0)
    def curl(size):
        x, y = physics.pixel_grid(size, 2 / size)
        return physics.curl_loss(*physics.sis_deflection(x, y, 1.0, core=0.3), 2 / size)

    assert curl(64) / curl(128) == pytest.approx(16, rel=0.1)
    assert curl(128) < 1e-6


def test_sampled_convergence_matches_the_profile():
    x, y = physics.pixel_grid((80, 60), 0.05)

    @jax.jit
    def sampled(x, y):
        return physics.sampled_convergence(*physics.sis_deflection(x, y, 1.0, core=0.5), 0.05)

    found = sampled(x, y)
    middle_x, middle_y = ((part[:-1, :-1] + part[1:, 1:]) / 2 for part in physics.pixel_grid((80, 60), 0.05))
    expected = physics.sis_convergence(middle_x, middle_y, 1.0, core=0.5)
    np.testing.assert_allclose(found, expected, atol=6e-3)


def test_positivity_loss_penalizes_negative_mass_only():
    x, y = physics.pixel_grid(40, 0.1)
    alpha = physics.sis_deflection(x, y, 1.0)
    mass = physics.sampled_convergence(*alpha, 0.1)
    assert physics.positivity_loss(mass) == 0
    assert physics.positivity_loss(jnp.zeros((5, 5))) == 0
    hole = physics.sampled_convergence(-0.2 * x, -0.2 * y, 0.1)
    assert physics.positivity_loss(hole) == pytest.approx(0.2**2, rel=1e-10)
    assert (jax.grad(physics.positivity_loss)(hole) < 0).all()


def test_float32_losses_of_physical_lens_are_small():
    with jax.enable_x64(False):
        x, y = physics.pixel_grid(60, 0.1)
        alpha_x, alpha_y = 0.3 * x + 0.1 * y, 0.3 * y + 0.1 * x
        assert alpha_x.dtype == jnp.float32
        assert physics.curl_loss(alpha_x, alpha_y, 0.1) < 1e-10
        images = jnp.asarray([1.5, -0.9]), jnp.zeros(2)
        assert physics.same_source_loss(sphere(1.2), *images) < 1e-12


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_float32_brightness_loss_is_independent_of_unit(unit):
    with jax.enable_x64(False):
        generator = np.random.default_rng(8)
        image = jnp.asarray(generator.normal(5, 1, (20, 20)), jnp.float32)
        expected = physics.sis_brightness_loss(image, 0.2, 1.2)
        np.testing.assert_allclose(physics.sis_brightness_loss(image * unit, 0.2, 1.2), expected, rtol=1e-5)


def test_chi_square_accepts_unsigned_counts_and_masked_nan():
    image, model = np.full((4, 4), 3, np.uint8), np.full((4, 4), 5, np.uint8)
    assert physics.chi_square_loss(image, model, 4) == 1
    mask = jnp.arange(16).reshape(4, 4) > 0
    missing = jnp.where(mask, 3.0, jnp.nan)
    assert physics.chi_square_loss(missing, model, 4, mask) == 1
    variance = jnp.where(mask, 4.0, 0.0)
    value, gradient = jax.value_and_grad(lambda m: physics.chi_square_loss(missing, m, variance, mask))(
        jnp.full((4, 4), 5.0)
    )
    assert value == 1
    np.testing.assert_allclose(gradient, jnp.where(mask, 2 * 2 / 4 / 15, 0), rtol=1e-12)
    assert physics.chi_square_loss(missing, model, jnp.where(mask, 4.0, jnp.nan), mask) == 1


def test_brightness_loss_of_missing_pixels_is_nan():
    image = jnp.ones((20, 20)).at[10, 2].set(jnp.nan)
    assert np.isnan(physics.sis_brightness_loss(image, 0.1, 0.8, radii=16, angles=64))
