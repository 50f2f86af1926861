"""Samples of the posterior of a small lens against the covariance of its fit."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_lens
from helpers.made_fits import fit_result
from helpers.small_lens import FRAME, PSF, TRUTH, observe

from lensjax.errors import UserError
from lensjax.modeling import NoiseCorrelation, Observation, Parameter, PixelGrid, Shapelets
from lensjax.modeling.covariance import parameter_covariance
from lensjax.modeling.posterior import sample_posterior
from lensjax.modeling.sources import LATER
from lensjax.modeling.variable_projection import fit_model

# The center of shapelets and their amplitudes of order 1 are degenerate.
SOURCE = Shapelets(
    order=1,
    center_x=Parameter.fixed(TRUTH["source.0.center_x"]),
    center_y=Parameter.fixed(TRUTH["source.0.center_y"]),
)
PRIOR = dataclasses.replace(small_lens.MODEL.priors[0], deviation=0.05)
MODEL = dataclasses.replace(small_lens.MODEL, source=(SOURCE,), priors=(PRIOR,))
CORRELATION = NoiseCorrelation(1.5, np.ones((1, 1)))  # the noise map underestimates the noise


@pytest.fixture(scope="module")
def small_fit():
    """A small observation and its fit."""
    data = observe(seed=2)
    start = MODEL.start({"source.0.beta": 0.15, "mass.0.theta_E": 1.05})
    fit = fit_model(MODEL, FRAME, data, start, LATER._replace(steps=40, tolerance=1e-4))
    covariance = parameter_covariance(
        MODEL, FRAME, data, fit, prior_weight=LATER.prior_weight, correlate=CORRELATION.apply
    )
    used = data.weight > 0
    observation = Observation(
        data.image, 1.0, PSF, used, pixel_scale=FRAME.pixel_scale, correlation=CORRELATION
    )
    return observation, fit_result(
        MODEL,
        jnp.asarray(fit.free, jnp.float32),
        FRAME,
        data.image,
        covariance=covariance,
        amplitudes=fit.amplitudes,
        noise=np.where(used, 1.0, np.inf),
        chi_square=fit.chi_square,
        detection=10.0,
    )


def test_samples_agree_with_the_covariance_of_the_fit(small_fit):
    pytest.importorskip("blackjax")
    observation, fit = small_fit
    found = sample_posterior(observation, fit, jax.random.key(0), warmup=60, samples=100)
    errors = np.array(list(fit.standard_errors.values()))
    assert found.samples.shape == (4, 100, len(fit.names))
    assert found.r_hat.max() < 1.05
    assert found.effective_samples.min() > 100
    assert found.divergences == 0
    means, widths = (np.array(list(each.values())) for each in (found.mean, found.standard_errors))
    np.testing.assert_array_less(np.abs(means - [fit.parameters[n] for n in fit.names]), 0.3 * errors)
    np.testing.assert_allclose(widths, errors, rtol=0.25)
    correlation = np.corrcoef(found.samples.reshape(-1, len(errors)).T)
    np.testing.assert_allclose(correlation, fit.covariance / np.outer(errors, errors), atol=0.25)


@pytest.mark.parametrize("fixed", [True, False])
def test_source_on_a_grid_is_rejected(small_fit, fixed):
    """A grid whose parameters are all fixed has a penalty, too."""
    pytest.importorskip("blackjax")
    observation, fit = small_fit
    names = ("center_x", "center_y", "width", "strength") if fixed else ()
    grid = PixelGrid(number=5, **dict.fromkeys(names, Parameter.fixed(1.0)))
    model = dataclasses.replace(MODEL, source=(grid,))
    with pytest.raises(UserError, match="a source on a grid of pixels cannot be sampled"):
        sample_posterior(observation, dataclasses.replace(fit, model=model), jax.random.key(0))


def test_chosen_parameter_is_rejected(small_fit):
    pytest.importorskip("blackjax")
    observation, fit = small_fit
    source = dataclasses.replace(SOURCE, beta=Parameter.chosen(0.15, (0.01, 1.0)))
    model = dataclasses.replace(MODEL, source=(source,))
    with pytest.raises(UserError, match=r"source\.0\.beta is a chosen parameter"):
        sample_posterior(observation, dataclasses.replace(fit, model=model), jax.random.key(0))


def test_missing_sampler_is_named(small_fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "blackjax", None)
    with pytest.raises(UserError, match=r"needs blackjax; run: pip install 'lensjax\[posterior\]'"):
        sample_posterior(*small_fit, jax.random.key(0))


@pytest.mark.parametrize("wrong", [{"chains": 0}, {"warmup": 0}, {"samples": 5}, {"samples": 2}])
def test_too_small_numbers_are_rejected(small_fit, wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        sample_posterior(*small_fit, jax.random.key(0), **wrong)
