"""Pixel grids and interpolation."""

import jax.numpy as jnp
import numpy as np

from lensjax import physics


def test_grid_is_centered_with_x_along_columns():
    x, y = physics.pixel_grid(4, 0.05)
    np.testing.assert_allclose(x[0], [-0.075, -0.025, 0.025, 0.075], rtol=1e-6)
    np.testing.assert_array_equal(x, y.T)
    np.testing.assert_allclose(physics.pixel_coordinate(x[0], 4, 0.05), np.arange(4), atol=1e-6)


def test_mean_over_subpixels_of_coordinates_is_pixel_center():
    fine_x, fine_y = physics.pixel_grid(5, 0.1, subpixels=3)
    x, y = physics.pixel_grid(5, 0.1)
    np.testing.assert_allclose(physics.mean_over_subpixels(fine_x, 3), x, atol=1e-7)
    np.testing.assert_allclose(physics.mean_over_subpixels(fine_y, 3), y, atol=1e-7)


def test_grid_may_be_rectangular():
    x, y = physics.pixel_grid((3, 4), 0.5, subpixels=2)
    assert x.shape == y.shape == (6, 8)
    np.testing.assert_allclose(x[2], (np.arange(8) - 3.5) * 0.25)
    np.testing.assert_allclose(y[:, 2], (np.arange(6) - 2.5) * 0.25)


def test_interpolation_is_exact_for_bilinear_images():
    x, y = physics.pixel_grid((4, 6), 0.5)
    image = 2 + 0.3 * x - 0.7 * y + 0.2 * x * y
    points_x, points_y = np.random.default_rng(0).uniform((-1.25, -0.75), (1.25, 0.75), (50, 2)).T
    found = physics.interpolate(image, jnp.asarray(points_x), jnp.asarray(points_y), 0.5)
    expected = 2 + 0.3 * points_x - 0.7 * points_y + 0.2 * points_x * points_y
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    outside = jnp.asarray([2.0, -1e30]), jnp.asarray([0.0, 1e30])
    np.testing.assert_array_equal(physics.interpolate(image, *outside, 0.5), [0, 0])
