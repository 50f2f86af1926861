"""Source reconstruction from lensed images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics

SCALE = 0.05
SOURCE = {"source_size": 40, "source_scale": 0.05}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def light(x, y):
    """Two round Gaussian blobs."""
    first = jnp.exp(-((x - 0.2) ** 2 + (y + 0.1) ** 2) / (2 * 0.2**2))
    return first + 0.6 * jnp.exp(-((x + 0.3) ** 2 + (y - 0.2) ** 2) / (2 * 0.15**2))


def sphere(x, y):
    return physics.sis_deflection(x, y, 1.2)


def sheared(x, y):
    shear = physics.external_shear_deflection(x, y, 0.08, -0.05)
    alpha = sphere(x, y)
    return alpha[0] + shear[0], alpha[1] + shear[1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def image_of(deflection, size=120):
    return physics.lensed_image(light, deflection, *physics.pixel_grid(size, SCALE))


def relative(found, expected):
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


def truth():
    return light(*physics.pixel_grid(SOURCE["source_size"], SOURCE["source_scale"]))


def test_both_images_of_pair_map_to_source():
    beta = np.random.default_rng(1).uniform(-0.7, 0.7, (2, 50))
    beta[:, 0] = 0.1, -0.2  # exactly behind the lens
    for image in physics.sis_image_pair(*map(jnp.asarray, beta), 1.2, center_x=0.1, center_y=-0.2):
        back = physics.sis_lens_equation(*image, 1.2, center_x=0.1, center_y=-0.2)
        np.testing.assert_allclose(back, beta, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_image_pair_has_finite_gradients_behind_the_lens(dtype):
    zero = jnp.zeros((), dtype)
    pair = jax.jit(jax.jacrev(lambda *lens: physics.sis_image_pair(*lens), argnums=(0, 1, 2)))
    gradients = pair(zero, zero, jnp.asarray(1.2, dtype))
    assert all(np.isfinite(part).all() for part in jax.tree.leaves(gradients))


def test_closed_form_reconstructs_source_behind_sphere():
    image = image_of(sphere)
    reconstruct = jax.jit(lambda theta_E: physics.sis_source_image(image, SCALE, theta_E, **SOURCE))
    assert relative(reconstruct(1.2), truth()) < 0.01
    assert relative(reconstruct(1.3), truth()) > 0.1


@pytest.mark.parametrize(("method", "tolerance"), [("fixed_point", 0.01), ("cloud_in_cell", 0.06)])
def test_source_behind_sheared_sphere_is_reconstructed(method, tolerance):
    image = image_of(sheared)
    found = jax.jit(lambda: physics.source_image(image, sheared, SCALE, method=method, **SOURCE))()
    assert np.isfinite(found).all()
    assert relative(found, truth()) < tolerance


def test_source_behind_the_center_is_reconstructed():
    """By symmetry, an iteration that starts at the center of a lens, or on an axis, would stay there."""

    def ellipsoid(x, y):
        lens = physics.sie_deflection(x, y, 1.2, e1=0.1, e2=0.0)
        shear = physics.external_shear_deflection(x, y, 0.05, 0.02)
        return lens[0] + shear[0], lens[1] + shear[1]

    def gaussian(x, y):
        return physics.gaussian_light(x, y, 1.0, sigma=0.15)

    image = physics.lensed_image(gaussian, ellipsoid, *physics.pixel_grid(200, 0.02))
    found = physics.source_image(image, ellipsoid, 0.02, source_size=41, source_scale=0.04)
    truth = gaussian(*physics.pixel_grid(41, 0.04))
    np.testing.assert_allclose(found, truth, atol=0.005 * truth.max())


def test_position_behind_center_has_image_with_gradient():
    def position(theta_E):
        zero = jnp.zeros(())
        return jnp.stack(
            physics.outer_image_position(lambda x, y: physics.sis_deflection(x, y, theta_E), zero, zero)
        )

    theta = position(1.2)
    np.testing.assert_allclose(jnp.linalg.norm(theta), 1.2, rtol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(position)(1.2), theta / 1.2, rtol=1e-6)


def test_diverging_iteration_gives_nan():
    """Behind a sheet of convergence 2, the iteration diverges."""
    theta = physics.outer_image_position(lambda x, y: (2 * x, 2 * y), jnp.ones(2), jnp.zeros(2))
    assert np.isnan(theta).all()


def test_images_may_be_integers_of_any_byte_order():
    image = np.random.default_rng(4).integers(0, 200, (12, 12)).astype(">u2")
    options = {"source_size": np.int64(6), "source_scale": 0.1}
    for method in ("fixed_point", "cloud_in_cell"):
        found, expected = (
            physics.source_image(pixels, sheared, 0.25, method=method, **options)
            for pixels in (image, jnp.asarray(image.astype(float)))
        )
        np.testing.assert_array_equal(found, expected)
    x, y = jnp.asarray([0.03, -0.2]), jnp.zeros(2)
    found, expected = (
        physics.lensed_image(pixels, sheared, x, y, source_scale=0.5)
        for pixels in (image, jnp.asarray(image.astype(float)))
    )
    np.testing.assert_array_equal(found, expected)


def test_image_sampled_at_beta_is_not_the_source():
    """A common mistake: sampling the image at theta - alpha(theta)."""
    beta = physics.ray_shooting(sheared, *physics.pixel_grid(120, SCALE))
    found = physics.interpolate(image_of(sheared), *beta, SCALE)
    assert relative(found, light(*physics.pixel_grid(120, SCALE))) > 0.3


def test_fixed_point_is_an_image_of_its_source():
    beta = jnp.asarray(np.random.default_rng(2).uniform(-0.6, 0.6, (2, 100)))
    theta = physics.outer_image_position(sheared, *beta, iterations=300)
    inverse = physics.inverse_magnification(sheared, *theta)
    assert (inverse > 0).all()
    converged = np.asarray(inverse > 0.05)  # away from critical curves, where convergence is slow
    assert converged.sum() > 80
    back = np.stack(physics.ray_shooting(sheared, *theta))
    np.testing.assert_allclose(back[:, converged], beta[:, converged], atol=1e-6)
    np.testing.assert_allclose(back, beta, atol=1e-3)


@pytest.mark.parametrize("method", ["fixed_point", "cloud_in_cell"])
def test_reconstructed_source_reproduces_the_image(method):
    image = image_of(sheared)
    source = physics.source_image(image, sheared, SCALE, method=method, **SOURCE)
    grid = physics.pixel_grid(120, SCALE)
    again = physics.lensed_image(source, sheared, *grid, source_scale=SOURCE["source_scale"])
    assert relative(again, image) < 0.05
    without_shear = physics.lensed_image(source, sphere, *grid, source_scale=SOURCE["source_scale"])
    assert relative(without_shear, image) > 0.2


def test_cloud_in_cell_conserves_light_and_transposes_interpolation():
    generator = np.random.default_rng(3)
    x, y = (jnp.asarray(part) for part in generator.uniform(-0.9, 0.9, (2, 200)))
    brightness = jnp.asarray(generator.uniform(0, 1, 200))
    options = {"source_size": (9, 12), "source_scale": 0.25}
    received, weight = jax.jit(functools.partial(physics.cloud_in_cell, **options))(brightness, x, y)
    np.testing.assert_allclose([received.sum(), weight.sum()], [brightness.sum(), 200], rtol=1e-12)
    plane = jnp.asarray(generator.normal(size=(9, 12)))
    expected = jnp.sum(brightness * jax.jit(lambda: physics.interpolate(plane, x, y, 0.25))())
    np.testing.assert_allclose(jnp.sum(received * plane), expected, rtol=1e-12)


def test_light_beyond_the_plane_is_dropped():
    x = jnp.asarray([1e30, -1e30, 0.0, -0.6])
    assign = jax.jit(functools.partial(physics.cloud_in_cell, source_size=5, source_scale=0.25))
    received, weight = assign(jnp.ones(4), x, jnp.zeros(4))
    # The last point is 0.4 pixels beyond the center of the outermost pixel.
    np.testing.assert_allclose(received.sum(), 1 + 0.6, rtol=1e-12)
    np.testing.assert_array_equal(received, weight)


@pytest.mark.parametrize("method", ["fixed_point", "cloud_in_cell"])
def test_reconstruction_is_differentiable_in_the_lens(method):
    image = image_of(sphere, 60)

    @jax.jit
    @jax.value_and_grad
    def difference(theta_E):
        def deflection(x, y):
            return physics.sis_deflection(x, y, theta_E)

        found = physics.source_image(
            image, deflection, 2 * SCALE, source_size=10, source_scale=0.1, method=method, iterations=20
        )
        return jnp.sum(jnp.sin(3 * found))

    value, found = difference(1.21)
    expected = (difference(1.21 + 1e-7)[0] - difference(1.21 - 1e-7)[0]) / 2e-7
    assert np.isfinite(value)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_unknown_reconstruction_method_is_rejected():
    # The runtime type checks of the tests raise a TypeError first.
    with pytest.raises((ValueError, TypeError), match="nearest"):
        physics.source_image(jnp.zeros((4, 4)), sphere, 0.1, method="nearest", **SOURCE)
