"""Lens fits: recovered parameters, uncertainties, noise estimates and derivatives."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest
from helpers.lenses import FITTED
from oracles.numpy_lens import render

from lensjax import fitting
from lensjax.errors import UserError
from lensjax.fitting.inputs import convert_inputs
from lensjax.modeling import MultiGaussian, PixelGrid, Prior, Sersic, Shapelets
from lensjax.simulation.presets import COMMON_TEST


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
        scene = types.SimpleNamespace(masses=[], **{name: truth[name][row] for name in FITTED})
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
    deviation = fit.standard_errors
    pulls = [
        (fit.parameters[full] - truth[name]) / deviation[:, i]
        for i, (name, full) in enumerate(FITTED.items())
    ]
    pulls.append((fit.parameters["source.0.amp"] - 100 / scale) / deviation[:, -2])
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
    radius, expected = fit.parameters["mass.0.theta_E"], known.parameters["mass.0.theta_E"][:8]
    np.testing.assert_allclose(radius, expected, rtol=2e-3)


@pytest.mark.parametrize("known", [True, False])
def test_fit_is_the_same_in_any_unit(counts, known):
    """In float32, whose range does not include the squares of 1e-30 and 1e30."""
    units = np.repeat([1.0, 1e-17, 1e-30, 1e30], 2)
    images = (np.tile(counts[:2], (4, 1, 1)) * units[:, None, None]).astype(">f4")[..., None]
    noise = None
    if known:
        noise = fitting.Noise(gain=units, background_rms=10**0.5 * units, from_counts=False)
    fit = fitting.fit_lens(images, noise=noise)
    assert np.asarray(fit.converged).all()
    for name, values in fit.parameters.items():
        values = np.asarray(values, np.float64) / (units if name in ("source.0.amp", "sky") else 1)
        np.testing.assert_allclose(values, np.tile(values[:2], 4), rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(fit.reduced_chi_square, np.tile(fit.reduced_chi_square[:2], 4), rtol=1e-4)
    for name, power in (("gain", 1), ("background_rms", 1), ("background_variance", 2)):
        values = np.asarray(getattr(fit, name), np.float64) / units**power
        np.testing.assert_allclose(values, np.tile(values[:2], 4), rtol=1e-3, err_msg=name)
    errors = fit.standard_errors[:, -2] / units
    np.testing.assert_allclose(errors, np.tile(errors[:2], 4), rtol=1e-3)
    np.testing.assert_allclose(fit.covariance[:, -2, -2] / units**2, errors**2, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fit))


def test_lens_residual_is_the_same_in_any_unit(counts, fitted):
    fit, _ = fitted
    free = np.stack([fit.parameters[name][0] for name in FITTED.values()])
    residual = jax.jit(functools.partial(fitting.standardized_residual, fitting.COMMON_TEST))
    image = counts[0].astype(np.float32)
    expected = residual(image, free)
    assert np.std(expected) == pytest.approx(1, abs=0.05)
    for unit in (1e-30, 1e30):
        np.testing.assert_allclose(residual(image * np.float32(unit), free), expected, atol=0.01)


def test_ray_through_the_center_represents_its_surroundings():
    """With odd numbers of pixels and of rays per pixel, one ray is at the singular center of the lens."""

    def image(subpixels):
        model = dataclasses.replace(fitting.COMMON_TEST, subpixels=subpixels, psf_sigma=0.0, psf_size=1)
        free = np.array([1.27, 0.1, 0.0, 0.3, -0.1, 0.1, 0.0])
        with jax.enable_x64(True):
            resolution = fitting.Resolution.native(model, (5, 5))
            return [np.asarray(part) for part in fitting.render_with_jacobian(model, resolution, free)]

    (found, by_found), (truth, by_truth) = image(1), image(16)
    np.testing.assert_allclose(found[0, 2, 2], truth[0, 2, 2], rtol=0.01)
    np.testing.assert_allclose(by_found[:, 2, 2], by_truth[:, 2, 2], rtol=0.03, atol=1e-3)


def test_masked_values_of_an_array_are_masked():
    """A masked array still contains the values of its masked pixels."""
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    hidden = np.zeros(image.shape, bool)
    hidden[0, 2, 3] = True
    for dtype in (np.float32, np.int16):
        images, _, valid = convert_inputs(np.ma.array(image.astype(dtype), mask=hidden), None, None)
        np.testing.assert_array_equal(np.isnan(images), hidden)
        assert valid.all()  # pixels that are not finite are masked later
    _, _, valid = convert_inputs(image, None, np.ma.array(np.ones(image.shape, bool), mask=hidden))
    np.testing.assert_array_equal(valid, ~hidden)


def test_empty_batch_has_an_empty_fit():
    for images in (np.zeros((0, 150, 150, 1), np.float32), np.zeros((0, 150, 150, 1), np.float16)):
        fit = fitting.fit_in_batches(images)
        assert fit.model_image.shape == (0, 150, 150, 1)
        assert fit.covariance.shape == (0, 9, 9)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 1, 150, 1), {}, "images have 1 x 150 pixels; a fit needs 3 x 3 or more"),
        ((2, 9, 9), {}, r"images have shape \(2, 9, 9\); expected"),
        ((2, 9, 9, 1), {"mask": np.ones((3, 9, 9, 1))}, r"mask has shape \(3, 9, 9, 1\); expected"),
        ((2, 9, 9, 1), {"noise": fitting.photon_noise(np.ones(3))}, r"noise.gain has shape \(3,\); expected"),
        ((2, 9, 9, 1), {"noise": fitting.photon_noise(-5)}, "noise.gain is -0.2 for image 0; expected a pos"),
        ((2, 9, 9, 1), {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_invalid_input_raises_an_error(shape, options, message):
    with pytest.raises(UserError, match=message):
        fitting.fit_in_batches(np.ones(shape, np.float32), **options)


def test_whole_numbers_are_a_scale():
    noise = fitting.photon_noise(np.array([893]))
    np.testing.assert_allclose(noise.gain, 1 / 893, rtol=1e-6)
    assert np.isnan(noise.background_rms).all()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("pixel_scale", 0.0), ("psf_sigma", np.nan), ("subpixels", 0), ("subpixels", np.nan), ("psf_size", 4)],
)
def test_invalid_model_raises_an_error(setting, value):
    with pytest.raises(UserError, match=f"{setting} is .*; expected"):
        dataclasses.replace(fitting.COMMON_TEST, **{setting: value})


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
    shift = (fit.parameters["mass.0.theta_E"] - known.parameters["mass.0.theta_E"][:8]) / deviation
    assert np.abs(shift).max() < 2
    assert (np.asarray(fit.residual)[:, 100:112, 60:80] == 0).all()


@pytest.mark.parametrize("noise", [None, fitting.photon_noise(1.0)], ids=["unknown", "photons"])
def test_fit_without_lens_does_not_converge(counts, noise):
    rng = np.random.default_rng(0)
    image = counts[0, 25:-25, 25:-25].astype(np.float32)
    bad = np.stack(
        [
            np.full_like(image, 7),
            np.full_like(image, np.nan),
            rng.poisson(10, image.shape).astype(np.float32),
            np.full_like(image, np.inf),
            rng.normal(size=image.shape).astype(np.float32) * 1e-20,
            image + np.roll(image[:, ::-1], (40, 30), (0, 1)),
            np.minimum(image, 0.3 * image.max()),
            np.where(np.arange(100) == 40, 1e6, 0 * image).astype(np.float32),
        ]
    )[..., None]
    fit = fitting.fit_lens(bad, noise=noise)
    assert not np.asarray(fit.converged).any(), (fit.converged, fit.reduced_chi_square)
    for leaf in jax.tree.leaves(fit):
        assert np.isfinite(leaf).all(), leaf.shape


def test_bright_source_of_unknown_profile_is_detected():
    """Its amplitude is uncertain, because radius and index are fitted."""
    instrument = dataclasses.replace(COMMON_TEST.instrument, image_size=80, sky=300.0)
    source = dataclasses.replace(COMMON_TEST.source, R_sersic=0.6, n_sersic=4.0, amp=30.0)
    preset = dataclasses.replace(COMMON_TEST, source=source, instrument=instrument)
    rng = np.random.default_rng(8)
    scene = types.SimpleNamespace(
        **{"masses": [], "theta_E": 1.2, "gamma1": 0.1, "gamma2": 0.0, "source_x": 0.2, "source_y": 0.1},
        **{"source_e1": 0.1, "source_e2": -0.05},
    )
    images = rng.poisson(np.stack([render(scene, preset), np.full((80, 80), 300.0)])).astype(np.float32)
    profile = {
        "source.0.R_sersic": fitting.Parameter.fitted((0.2, 0.8), (0.02, 3.0)),
        "source.0.n_sersic": fitting.Parameter.fitted((0.8, 2.5), (0.3, 10.0)),
    }
    model = fitting.COMMON_TEST.with_parameters(profile)
    fit = fitting.fit_lens(images[..., None], model, noise=fitting.photon_noise(np.ones(2, np.float32)))
    sigma = fit.standard_errors[:, model.names.index("source.0.amp")]
    assert fit.parameters["source.0.amp"][0] < 20 * sigma[0]
    np.testing.assert_array_equal(fit.converged, [True, False])


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
        noise = fitting.Noise(
            gain=np.ones(1), background_rms=np.full(1, 10.0**0.5), from_counts=np.zeros(1, bool)
        )

        @jax.jit
        @functools.partial(jax.jacrev, has_aux=True)
        def derivative_and_value(step):
            fit = fitting.fit_lens((image + step * direction)[None, ..., None], small, noise=noise)
            parameters = [fit.parameters[name][0] for name in small.names]
            every = jax.numpy.stack([*parameters, (weights * fit.residual[0, ..., 0]).sum()])
            return every, every

        difference = derivative_and_value(0.5)[1] - derivative_and_value(-0.5)[1]
        np.testing.assert_allclose(derivative_and_value(0.0)[0], difference, rtol=0.01, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": (Sersic(), Sersic())}, "its source is not a single Sersic component; fitting.fit can"),
        ({"source": (Shapelets(order=0),)}, "its source is not a single Sersic component"),
        ({"source": (PixelGrid(),)}, "its source is not a single Sersic component"),
        ({"lens_light": (MultiGaussian(),)}, "its lens light has components other than Sersic"),
        ({"lens_light": (Sersic(),) * 4}, "it has more than 3 components of lens light"),
        ({"mass": (), "source": ()}, "it has no mass"),
        ({"sky": 1}, "its sky is a plane; set sky=0"),
        ({"priors": (Prior((("mass.0.theta_E", 1.0),), 1.0, 0.1),)}, "it has priors on combinations"),
    ],
)
def test_model_beyond_a_batch_fit_is_refused(changes, message):
    with pytest.raises(UserError, match=f"a batch fit cannot fit this lens model: {message}"):
        dataclasses.replace(
            fitting.COMMON_TEST, lens=dataclasses.replace(fitting.COMMON_TEST.lens, **changes)
        )


def test_model_without_the_parameter_is_refused():
    with pytest.raises(UserError, match=r"no parameter 'mass.0.e1'; expected one of mass.0.theta_E, "):
        fitting.COMMON_TEST.with_parameters({"mass.0.e1": fitting.Parameter.fixed(0.0)})
    fixed = dict.fromkeys(fitting.COMMON_TEST.nonlinear, fitting.Parameter.fixed(0.1))
    with pytest.raises(UserError, match="no parameter is fitted"):
        fitting.COMMON_TEST.with_parameters(fixed)
