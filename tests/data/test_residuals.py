"""Residuals of smooth lens fits to sets of images."""

import dataclasses
import logging
import types

import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import fitting
from lensjax.config import default_config
from lensjax.data.images import ImageSet
from lensjax.data.residuals import FIT_VALUES, add_residuals, counts_per_unit, fit_splits
from lensjax.data.simulated import fresh_images, simulated_images
from lensjax.data.source import load_splits
from lensjax.data.splits import Splits
from lensjax.errors import UserError
from lensjax.runtime import user_cache


def lenses():
    """The center of a simulated image of each class, and an image that is only noise."""
    images = simulated_images("common_test", split="train", num_images=3, seed=0, image_size=150).subset(
        np.array([0, 1, 2, 0])
    )
    pixels = images.pixels[:, 25:-25, 25:-25]
    pixels = pixels - pixels.min((1, 2), keepdims=True)
    images = dataclasses.replace(images, pixels=pixels, scale=pixels.max((1, 2)).astype(np.float32))
    noise = np.random.default_rng(0).poisson(300, (100, 100))
    noise -= noise.min()
    images.pixels[3], images.scale[3] = noise, noise.max()
    return images


def as_float(images):
    """The same images stored as float32."""
    return dataclasses.replace(images, pixels=images.images()[..., 0], scale=np.ones(len(images), np.float32))


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Replaces the fit and sets an empty cache; returns the number of images of each call."""
    numbers = []

    def fit_in_batches(images, model, *, noise, report):
        number = len(images)
        numbers.append(number)
        report(number)
        values = images.mean((1, 2, 3))
        return types.SimpleNamespace(
            parameters=dict.fromkeys(model.lens.parameters, values),
            standard_errors=np.ones((number, len(model.names))),
            background_rms=values,
            reduced_chi_square=values,
            converged=np.ones(number, bool),
            residual=images,
        )

    def assumption_tests(fit, model):
        return dict.fromkeys(fitting.ASSUMPTIONS, fit.background_rms)

    monkeypatch.setattr(fitting, "fit_in_batches", fit_in_batches)
    monkeypatch.setattr(fitting, "assumption_tests", assumption_tests)
    monkeypatch.setenv("LENSJAX_CACHE", str(tmp_path / "cache"))
    return numbers


def small(number=5, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 900, (number, 8, 8)).astype(np.uint16)
    return ImageSet(
        pixels, np.full(number, 900, np.float32), np.zeros(number, np.int32), tuple(map(str, range(number)))
    )


def assert_same(one, other):
    np.testing.assert_array_equal(one.residuals, other.residuals)
    assert one.residuals.dtype == other.residuals.dtype == np.float16
    assert tuple(one.fit) == tuple(other.fit) == FIT_VALUES + fitting.ASSUMPTIONS
    for name in one.fit:
        np.testing.assert_array_equal(one.fit[name], other.fit[name])


def test_residuals_of_smooth_lenses_are_unit_noise(caplog):
    images = lenses()
    with caplog.at_level(logging.INFO, "lensjax"):
        fitted = add_residuals(images, "common_test", name="train")
    widths = fitted.residuals.astype(np.float64).std((1, 2))
    np.testing.assert_allclose(widths[0], 1, atol=0.02)
    assert (widths[1:3] > 1).all()
    np.testing.assert_array_equal(fitted.fit["fit_converged"], [1, 1, 1, 0])
    np.testing.assert_array_equal(fitted.residuals[3], 0)
    np.testing.assert_allclose(widths[:3] ** 2, fitted.fit["reduced_chi_square"][:3], rtol=2e-3)
    assert (fitted.fit["theta_E"][:3] > 0.7).all()
    assert (fitted.fit["theta_E_sigma"][:3] < 0.002).all()
    assert "1 not converged (their residuals are 0)" in caplog.text

    # Files contain brightness, from which the counts are recovered.
    from_files = add_residuals(as_float(images), "common_test", keep=False)
    assert_same(fitted, from_files)


def test_counts_per_unit_are_nan_without_counts():
    images = as_float(lenses().subset(np.array([0, 1])))
    images.pixels[1, 3, 3] = 0.123456
    np.testing.assert_array_equal(counts_per_unit(images), [lenses().scale[0], np.nan])


def test_second_fit_is_read_from_cache(calls):
    first = add_residuals(small(), "common_test")
    second = add_residuals(small(), "common_test")
    assert calls == [5]
    assert_same(first, second)
    np.testing.assert_array_equal(first.residuals, small().images()[..., 0].astype(np.float16))
    assert_same(add_residuals(small(), "common_test", keep=False), first)
    assert calls == [5, 5]


def test_other_pixels_scales_or_models_are_not_cached(calls):
    add_residuals(small(), "common_test")
    add_residuals(small(seed=1), "common_test")
    add_residuals(dataclasses.replace(small(), scale=np.full(5, 901, np.float32)), "common_test")
    add_residuals(small(), "general")
    assert len(calls) == 4


def test_finished_chunks_of_interrupted_run_are_kept(calls):
    many = small(2500)
    add_residuals(many.subset(np.arange(1024)), "common_test")
    fitted = add_residuals(many, "common_test")
    assert calls == [1024, 1024, 452]
    np.testing.assert_array_equal(fitted.residuals, many.images()[..., 0].astype(np.float16))


def test_damaged_cache_file_is_replaced(calls, caplog):
    first = add_residuals(small(), "common_test")
    (file,) = user_cache.folder("fits").iterdir()
    file.write_bytes(file.read_bytes()[:300])
    with caplog.at_level(logging.WARNING, "lensjax"):
        assert_same(add_residuals(small(), "common_test"), first)
    assert calls == [5, 5]
    assert str(file) in caplog.text


def test_subset_keeps_its_residuals(calls):
    fitted = add_residuals(small(), "common_test")
    some = fitted.subset(np.array([3, 1]))
    np.testing.assert_array_equal(some.residuals, fitted.residuals[[3, 1]])
    np.testing.assert_array_equal(some.fit["theta_E"], fitted.fit["theta_E"][[3, 1]])
    assert add_residuals(some, "common_test") is some


def test_model_none_fits_nothing(calls):
    images = small()
    assert add_residuals(images, "none") is images
    splits = Splits(images, images, images)
    assert fit_splits(splits, "none") is splits
    assert calls == []


def test_identical_validation_and_test_images_are_fitted_once(calls):
    train, other = small(), small(seed=1)
    splits = fit_splits(Splits(train, validation=other, test=other), "common_test")
    assert splits.test is splits.validation
    assert len(calls) == 2


def test_fresh_images_are_fitted_in_each_batch(calls, monkeypatch):
    def fit_lens(images, model, *, noise):
        assert model == fitting.COMMON_TEST
        converged = jnp.arange(len(images)) != 1
        return types.SimpleNamespace(converged=converged, residual=images / noise.gain[:, None, None, None])

    fresh = fresh_images("common_test?fresh", num_images=9, seed=0, image_size=150)
    monkeypatch.setattr(fitting, "fit_lens", fit_lens)
    train = fit_splits(Splits(fresh, small(), small(seed=1)), "common_test").train
    assert calls == [5, 5]  # only validation and test images
    batch = train.batch(0, 3)
    # The replacement returns an image's counts as its residual.
    converged = np.array([1, 0, 1])[:, None, None]
    np.testing.assert_allclose(batch["residuals"], batch["pixels"] * converged, rtol=1e-3)
    for name, plain in fresh.batch(0, 3).items():
        np.testing.assert_array_equal(batch[name], plain)


def test_unknown_lens_model_is_reported(calls):
    config = default_config().data
    config.fit = "comon_test"
    with pytest.raises(UserError, match=r"config\.data\.fit='comon_test'.* mean 'common_test'"):
        load_splits(config)
    assert calls == []
