"""Fits of a small lens against lenstronomy's images and SciPy's least squares over all parameters."""

import numpy as np
import pytest
from helpers.small_lens import AMPLITUDES, FIXED, FRAME, FREE, MODEL, TRUTH, observe, simulate
from scipy import optimize

from lensjax.modeling import SIE, LensModel, NoiseCorrelation, Parameter
from lensjax.modeling.covariance import parameter_covariance
from lensjax.modeling.variable_projection import Settings, evaluate_model, fit_model

SETTINGS = Settings(steps=60, tolerance=1e-4, prior_weight=1.0)


def residuals(parameters, data):
    """Standardized residuals, and the deviation from the prior."""
    pixels = (simulate(parameters) - data.image) * data.weight
    prior = (parameters[1] - 0.8 * parameters[3]) / 0.004
    return np.append(pixels.ravel(), np.sqrt(SETTINGS.prior_weight) * prior)


@pytest.fixture(scope="module")
def reference():
    """Noisy data and SciPy's best fit from the truth."""
    data = observe(seed=1)
    start = np.append(FREE, AMPLITUDES)
    return data, optimize.least_squares(residuals, start, args=(data,), x_scale="jac", jac="3-point")


@pytest.fixture(scope="module")
def fitted(reference):
    """The fit of the noisy data from a start that is wrong by 8 to 27 %."""
    return fit_model(MODEL, FRAME, reference[0], np.array(MODEL.start(wrong_start())), SETTINGS)


def wrong_start():
    return {name: 1.06 * value + 0.02 for name, value in TRUTH.items()}


def test_truth_is_recovered_without_noise():
    fit = fit_model(MODEL, FRAME, observe(), MODEL.start(wrong_start()), SETTINGS._replace(prior_weight=0.0))
    assert MODEL.fitted == tuple(TRUTH)
    np.testing.assert_allclose(fit.free, FREE, atol=1e-3)
    np.testing.assert_allclose(fit.amplitudes, AMPLITUDES, rtol=1e-2)
    assert fit.chi_square < 1


def test_result_equals_least_squares_over_all_parameters(reference, fitted):
    expected = reference[1]
    deviations = np.sqrt(np.diag(np.linalg.inv(expected.jac.T @ expected.jac)))
    found = np.append(fitted.free, fitted.amplitudes)
    np.testing.assert_array_less(np.abs(found - expected.x), 0.05 * deviations)
    assert fitted.cost == pytest.approx(2 * expected.cost, rel=1e-4)
    assert fitted.active.all()


def test_covariance_of_white_noise_is_the_inverse_hessian(reference, fitted):
    data, expected = reference
    covariance = parameter_covariance(
        MODEL, FRAME, data, fitted, prior_weight=SETTINGS.prior_weight, correlate=lambda columns: columns
    )
    compare(covariance, np.linalg.inv(expected.jac.T @ expected.jac)[:8, :8])
    # The Hessian is with respect to the logarithms of positive parameters.
    slope = np.where(MODEL.bounds[0] > 0, fitted.free, 1.0)
    compare(np.linalg.inv(fitted.hessian) * np.outer(slope, slope), covariance)


def test_covariance_of_correlated_noise_is_the_sandwich_estimate(reference, fitted):
    data, expected = reference
    kernel = np.array([[0.05, 0.25, 0.05], [0.3, 1.0, 0.3], [0.05, 0.25, 0.05]])
    covariance = parameter_covariance(
        MODEL,
        FRAME,
        data,
        fitted,
        prior_weight=SETTINGS.prior_weight,
        correlate=NoiseCorrelation(0.7, kernel).apply,
    )
    rows, columns = np.divmod(np.arange(41**2), 41)
    distances = rows[:, None] - rows, columns[:, None] - columns
    near = (np.abs(distances[0]) <= 1) & (np.abs(distances[1]) <= 1)
    noise = np.zeros(near.shape)
    noise[near] = 0.7**2 * kernel[1 + distances[0][near], 1 + distances[1][near]]
    of_pixels, of_prior = expected.jac[:-1], expected.jac[-1:]
    inverse = np.linalg.inv(expected.jac.T @ expected.jac)
    middle = of_pixels.T @ noise @ of_pixels + of_prior.T @ of_prior
    compare(covariance, (inverse @ middle @ inverse)[:8, :8])


def test_errors_allow_for_the_scatter_of_the_priors(reference, fitted):
    """A prior with ten times the weight moves the estimate, but the truth scatters about it as before."""
    data, expected = reference
    found = parameter_covariance(
        MODEL, FRAME, data, fitted, prior_weight=10.0, correlate=lambda columns: columns
    )
    of_pixels, of_prior = expected.jac[:-1], expected.jac[-1:]
    inverse = np.linalg.inv(of_pixels.T @ of_pixels + 10 * of_prior.T @ of_prior)
    middle = of_pixels.T @ of_pixels + 10**2 * of_prior.T @ of_prior
    compare(found, (inverse @ middle @ inverse)[:8, :8])


def compare(found, expected):
    """Asserts that covariances agree within 5 % of the product of the standard deviations."""
    deviations = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        found / np.outer(deviations, deviations), expected / np.outer(deviations, deviations), atol=0.05
    )


def test_parameters_stay_within_bounds():
    narrow = Parameter.fitted((0.8, 0.95), (0.8, 0.95))
    model = LensModel(
        mass=(SIE(theta_E=narrow, center_x=FIXED, center_y=FIXED),),
        lens_light=MODEL.lens_light,
        source=MODEL.source,
        sky=0,
    )
    fit = fit_model(model, FRAME, observe(), model.start(TRUTH), Settings(steps=10))
    assert fit.free[0] == pytest.approx(0.95, rel=1e-6)


def test_models_that_are_not_finite_give_no_fit():
    data = observe()
    image = data.image.copy()
    image[0, 0] = np.nan
    assert evaluate_model(MODEL, FRAME, data._replace(image=image), FREE) is None
    assert fit_model(MODEL, FRAME, data._replace(image=image), FREE) is None
