"""Outliers and constant borders of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import fitting, simulation


@pytest.fixture(scope="module")
def images():
    return simulation.simulate_split("common_test", seed=5, split="test", num_images=6).pixels.astype(
        np.float32
    )


@jax.jit
def find(image):
    return fitting.find_bad_pixels(image, jnp.isfinite(image))


def test_lens_images_have_no_bad_pixels(images):
    assert not any(find(image).any() for image in images)


@pytest.mark.parametrize("unit", [1.0, 1e-30])
@pytest.mark.parametrize("factor", [10.0, 1.5, -3.0])
def test_outliers_are_found_and_nothing_else(images, factor, unit):
    pairs = [(3, 5), (3, 6)], [(0, 149)], [(75, 20), (76, 21)]
    for image, pixels in zip(images, pairs, strict=False):
        changed = image.copy()
        expected = np.zeros(image.shape, bool)
        for pixel in pixels:
            changed[pixel], expected[pixel] = factor * image.max(), True
        np.testing.assert_array_equal(find(changed * np.float32(unit)), expected)


@pytest.mark.parametrize("sigma", [0.9, 1.7, 4.0])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_point_sources_are_not_outliers(sigma, offset):
    y, x = np.mgrid[:41, :41] - 20 + offset
    image = 1e4 * np.exp(-(x**2 + y**2) / (2 * sigma**2)) + np.random.default_rng(0).normal(0, 1, x.shape)
    assert not find(image.astype(np.float32)).any()


def test_constant_border_is_found(images):
    changed = np.full_like(images[0], images[0].min())
    changed[7:, 3:-2] = images[0][7:, 3:-2]
    inside = np.zeros(changed.shape, bool)
    inside[7:, 3:-2] = True
    np.testing.assert_array_equal(find(changed), ~inside)
    assert not find(np.ones((9, 9), np.float32)).any()


def test_fit_with_bad_pixels_equals_fit_with_mask(images):
    """The noise is unknown: a single hot pixel would dominate its estimate."""
    changed = images[:1, ..., None].copy()
    changed[:, 40, 60], changed[:, 100, 20] = 10 * images.max(), -3 * images.max()
    changed[:, :5] = 0
    mask = np.ones(changed.shape, bool)
    mask[:, 40, 60] = mask[:, 100, 20] = mask[:, :5] = False
    masked = np.where(mask, changed, images[:1, ..., None])
    fit = fitting.fit_lens(np.concatenate([changed, masked]), mask=np.concatenate([np.ones_like(mask), mask]))
    assert fit.converged.all()
    found, expected = fit.parameters["mass.0.theta_E"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    good, bad = fit.residual[:1][mask], fit.residual[:1][~mask]
    np.testing.assert_allclose(good, fit.residual[1:][mask], atol=2e-3)
    assert 0.95 < good.std() < 1.05
    assert (bad == 0).all()
