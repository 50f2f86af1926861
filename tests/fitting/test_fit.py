"""Lens fits: recovered parameters, uncertainties, noise estimates and derivatives."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest
from oracles.numpy_lens import render

from lensjax import fitting
from lensjax.errors import UserError
from lensjax.simulation.presets import COMMON_TEST

NAMES = ("theta_E", "gamma1", "gamma2", "source_x", "source_y", "source_e1", "source_e2")


def scenes(number, seed):
    """Parameters of smooth lenses, drawn from the Common Test priors with NumPy."""
    rng = np.random.default_rng(seed)
    shear, axis_ratio = rng.uniform(0, 0.3, number), rng.uniform(0.4, 1, number)
    angle, source_angle = -rng.uniform(0, 0.1097, (2, number))
    offset, direction = rng.uniform(0, 0.5, number), rng.uniform(0, 2 * np.pi, number)
    ellipticity = (1 - axis_ratio) / (1 + axis_ratio)
    return {
        "theta_E": np.clip(rng.normal(1.27, 0.1675, number), 0.8, 1.7),
        "gamma1": shear * np.cos(2 * angle),
        "gamma2": shear * np.sin(2 * angle),
        "source_x": offset * np.cos(direction),
        "source_y": offset * np.sin(direction),
        "source_e1": ellipticity * np.cos(2 * source_angle),
        "source_e2": ellipticity * np.sin(2 * source_angle),
    }


@pytest.fixture(scope="module")
def truth():
    return scenes(16, seed=5)


@pytest.fixture(scope="module")
def counts(truth):
    """Photon counts of images rendered with NumPy."""
    rng = np.random.default_rng(6)
    images = []
    for row in range(16):
        scene = types.SimpleNamespace(masses=[], **{name: truth[name][row] for name in NAMES})
        images.append(rng.poisson(render(scene, COMMON_TEST)))
    return np.stack(images)


@pytest.fixture(scope="module")
def fitted(counts):
    lowest = counts.min((1, 2), keepdims=True)
    scale = (counts - lowest).max((1, 2)).astype(np.float32)
    images = ((counts - lowest) / scale[:, None, None])[..., None].astype(np.float32)
    noise = fitting.photon_noise(scale)
    # Two devices and two batches; the second batch is only partly filled.
    fits = fitting.fit_in_batches(images, noise=noise, devices=jax.devices()[:2], batch_size=5)
    return fits, scale


def test_fit_recovers_lens_within_uncertainties(fitted, truth):
    fit, scale = fitted
    deviation = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
    pulls = [(fit.parameters[n] - truth[n]) / deviation[:, i] for i, n in enumerate(NAMES)]
    pulls.append((fit.parameters["amp"] - 100 / scale) / deviation[:, -2])
    pulls = np.stack(pulls)
    assert fit.converged.all()
    assert np.abs(pulls).max() < 4
    assert 0.8 < np.sqrt((pulls**2).mean()) < 1.2


def test_smooth_lens_residuals_are_white_noise(fitted):
    fit, _ = fitted
    np.testing.assert_allclose(fit.reduced_chi_square, 1, atol=0.04)
    residual = fit.residual[..., 0]
    neighbors = (residual[:, 1:] * residual[:, :-1]).mean((1, 2))
    np.testing.assert_allclose(neighbors, 0, atol=0.035)


def test_unknown_noise_is_estimated_from_image(fitted, counts):
    known, _scale = fitted
    image = 3.0 + 0.01 * counts[:8, ..., None].astype(np.float32)
    fit = fitting.fit_lens(image)
    np.testing.assert_allclose(fit.gain, 0.01, rtol=0.15)
    np.testing.assert_allclose(fit.background_variance, 10e-4, rtol=0.06)
    np.testing.assert_allclose(fit.parameters["theta_E"], known.parameters["theta_E"][:8], rtol=2e-3)


def test_masked_and_missing_pixels_do_not_bias_fit(fitted, counts):
    known, _ = fitted
    image = counts[:8, ..., None].astype(np.float32)
    mask = np.ones_like(image)
    image[:, 100:112, 60:80] += 5_000
    mask[:, 100:112, 60:80] = 0
    image[:, 30:34] = np.nan
    fit = fitting.fit_lens(image, noise=fitting.photon_noise(1.0), mask=mask)
    assert np.asarray(fit.converged).all()
    np.testing.assert_allclose(fit.reduced_chi_square, 1, atol=0.04)
    deviation = np.sqrt(fit.covariance[:, 0, 0])
    shift = (fit.parameters["theta_E"] - known.parameters["theta_E"][:8]) / deviation
    assert np.abs(shift).max() < 2
    assert (np.asarray(fit.residual)[:, 100:112, 60:80] == 0).all()


@pytest.mark.parametrize("noise", [None, fitting.photon_noise(1.0)], ids=["unknown", "photons"])
def test_fit_without_lens_does_not_converge(counts, noise):
    rng = np.random.default_rng(0)
    image = counts[0].astype(np.float32)
    bad = np.stack(
        [
            np.full_like(image, 7),
            np.full_like(image, np.nan),
            rng.poisson(10, image.shape).astype(np.float32),
            np.full_like(image, np.inf),
            rng.normal(size=image.shape).astype(np.float32) * 1e-20,
            image + np.roll(image[:, ::-1], (55, 40), (0, 1)),
            np.minimum(image, 0.3 * image.max()),
            np.where(np.arange(150) == 40, 1e6, 0 * image).astype(np.float32),
        ]
    )[..., None]
    fit = fitting.fit_lens(bad, noise=noise)
    assert not np.asarray(fit.converged).any(), (fit.converged, fit.reduced_chi_square)
    for leaf in jax.tree.leaves(fit):
        assert np.isfinite(leaf).all(), leaf.shape


def test_fit_gradients_match_finite_differences():
    small = dataclasses.replace(fitting.COMMON_TEST, pixel_scale=0.15, subpixels=1, psf_size=5)
    instrument = dataclasses.replace(
        COMMON_TEST.instrument, image_size=40, pixel_scale=0.15, subpixels=1, psf_size=5
    )
    truth = {name: column[3] for name, column in scenes(4, seed=5).items()}
    scene = types.SimpleNamespace(masses=[], **truth)
    expected = render(scene, dataclasses.replace(COMMON_TEST, instrument=instrument))
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        image = expected + np.sqrt(expected) * rng.normal(size=expected.shape)
        direction = np.sqrt(expected) * rng.normal(size=expected.shape)
        weights = rng.normal(size=expected.shape)
        noise = fitting.Noise(np.ones(1), np.full(1, 10.0), np.zeros(1, bool))

        @jax.jit
        @functools.partial(jax.jacrev, has_aux=True)
        def derivative_and_value(step):
            fit = fitting.fit_lens((image + step * direction)[None, ..., None], small, noise=noise)
            parameters = [fit.parameters[name][0] for name in (*NAMES, "amp", "sky")]
            every = jax.numpy.stack([*parameters, (weights * fit.residual[0, ..., 0]).sum()])
            return every, every

        difference = derivative_and_value(0.5)[1] - derivative_and_value(-0.5)[1]
        np.testing.assert_allclose(derivative_and_value(0.0)[0], difference, rtol=0.01, atol=1e-5)


def test_smooth_model_defaults_to_fixed_optional_parameters():
    center = fitting.Parameter.fitted((-0.5, 0.5), (-2.0, 2.0))
    model = fitting.SmoothModel(
        main_lens="sis",
        pixel_scale=0.05,
        psf_sigma=0.08675,
        psf_size=11,
        theta_E=fitting.Parameter.fitted((0.8, 1.75), (0.05, 3.5)),
        source_x=center,
        source_y=center,
        R_sersic=fitting.Parameter.fixed(0.5),
        n_sersic=fitting.Parameter.fixed(1.5),
    )
    assert model.names == ("theta_E", "source_x", "source_y", "amp", "sky")


def test_fitting_unused_parameter_raises_an_error():
    ellipticity = fitting.Parameter.fitted((-0.1, 0.1), (-0.5, 0.5))
    with pytest.raises(UserError, match="lens_e1 is fitted, but main_lens='sis' does not use it"):
        dataclasses.replace(fitting.COMMON_TEST, lens_e1=ellipticity)
