"""Pixel grids and interpolation."""

import jax.numpy as jnp
import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("size", "pixel_scale", "options"),
    [
        (0, 0.1, {}),
        (2.5, 0.1, {}),
        ((3, 4, 5), 0.1, {}),
        (3, -0.1, {}),
        (3, np.nan, {}),
        (3, 0.1, {"subpixels": 0}),
    ],
)
def test_impossible_grid_raises_an_error(size, pixel_scale, options):
    # The runtime type checks of the tests raise a TypeError first for some.
    with pytest.raises((ValueError, TypeError), match=r" is .*; expected |Type-check"):
        physics.pixel_grid(size, pixel_scale, **options)


def test_sizes_may_be_numpy_integers_and_pixels_integers():
    x, _ = physics.pixel_grid(np.int64(4), 0.1, subpixels=np.int64(2))
    np.testing.assert_array_equal(x, physics.pixel_grid(4, 0.1, subpixels=2)[0])
    image = np.full((4, 4), 255, np.uint8)
    np.testing.assert_array_equal(physics.mean_over_subpixels(image, 2), np.full((2, 2), 255.0))
    half = physics.interpolate(np.asarray([[0, 1], [1, 0]]), jnp.zeros(1), jnp.zeros(1), 0.5)
    np.testing.assert_array_equal(half, [0.5])
    with pytest.raises(ValueError, match="not a multiple of subpixels=3"):
        physics.mean_over_subpixels(image, 3)


def test_interpolation_is_exact_for_bilinear_images():
    x, y = physics.pixel_grid((4, 6), 0.5)
    image = 2 + 0.3 * x - 0.7 * y + 0.2 * x * y
    points_x, points_y = np.random.default_rng(0).uniform((-1.25, -0.75), (1.25, 0.75), (50, 2)).T
    found = physics.interpolate(image, jnp.asarray(points_x), jnp.asarray(points_y), 0.5)
    expected = 2 + 0.3 * points_x - 0.7 * points_y + 0.2 * points_x * points_y
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    outside = jnp.asarray([2.0, -1e30]), jnp.asarray([0.0, 1e30])
    np.testing.assert_array_equal(physics.interpolate(image, *outside, 0.5), [0, 0])
