"""tools/studies/regression.py: true values, likelihood, and calibration on data with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.studies import load_study
from scipy import stats

from lensjax import simulation


@pytest.fixture(scope="module")
def regression():
    return load_study("regression")


@pytest.fixture
def linear_gaussian():
    """Truth = x + noise of 0.3: the best mean is x, and the best standard deviation is 0.3."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 20_000)
    return x + 0.3 * rng.normal(size=x.size), x


def test_nll_matches_scipy_and_excludes_missing_values(regression):
    rng = np.random.default_rng(0)
    mean, log_sigma, target = rng.normal(size=(3, 50, 2))
    target[::3, 1] = np.nan
    known = ~np.isnan(target)
    expected = -stats.norm.logpdf(target[known], mean[known], np.exp(log_sigma[known])).mean()
    arrays = [jnp.asarray(each, jnp.float32) for each in (mean, log_sigma, target)]
    value, gradient = jax.value_and_grad(regression.mean_nll)(*arrays)
    assert value == pytest.approx(expected, rel=1e-5)
    assert (np.asarray(gradient != 0) == known).all()


def test_scale_of_sigma_calibrates_a_linear_gaussian(regression, linear_gaussian):
    truth, mean = linear_gaussian
    sigma = np.full_like(truth, 0.1)
    scale = regression.sigma_scale(truth[:, None], mean[:, None], sigma[:, None])
    assert scale * 0.1 == pytest.approx(0.3, rel=0.02)
    found = regression.score(truth, mean, scale * sigma, 0.0)
    assert found["coverage_68"] == pytest.approx(0.68, abs=0.01)
    assert found["coverage_95"] == pytest.approx(0.95, abs=0.006)
    assert found["rmse"] == pytest.approx(0.3, rel=0.02)
    assert found["mae"] == pytest.approx(0.3 * np.sqrt(2 / np.pi), rel=0.02)
    assert found["r2"] == pytest.approx((1 / 3) / (1 / 3 + 0.3**2), abs=0.01)
    assert regression.score(truth, mean, sigma, 0.0)["coverage_68"] < 0.3
    lows, highs = ([each[name] for each in found["deciles"]] for name in ("low", "high"))
    assert (np.array(highs)[:-1] <= np.array(lows)[1:]).all()
    np.testing.assert_allclose(lows, np.quantile(truth, np.arange(10) / 10), atol=0.01)


def test_true_values_agree_with_the_priors(regression):
    scenes = simulation.draw_scenes("common_test", seed=0, split="test", num_images=900)
    quantities = regression.COMMON
    vortices = jax.tree.map(lambda leaf: leaf[2::3], scenes)
    length = quantities["vortex_length"].truth(vortices)
    assert stats.kstest(length, "uniform", (1, 3)).pvalue > 0.01
    # Masses within the Einstein radius are proportional to its square.
    lens = regression.physics.einstein_mass(vortices.theta_E, convention="deeplensesim")
    fraction = 10 ** quantities["vortex_mass"].truth(vortices) / lens
    assert stats.kstest(fraction, "uniform", (0.03, 0.025)).pvalue > 0.01
    subhalos = jax.tree.map(lambda leaf: leaf[1::3], scenes)
    largest = quantities["largest_subhalo"].truth(subhalos)
    total = quantities["subhalo_mass"].truth(subhalos)
    assert 9 < np.median(largest) < largest.max() < 10.001
    assert (largest < total).all()
    assert (total < largest + np.log10(25)).all()


def test_network_learns_quantities_of_different_images(regression, monkeypatch):
    """Half of the images have only the first quantity, their brightness, and half only the second."""
    rng = np.random.default_rng(1)

    def draw(number):
        truth = rng.uniform(0, 1, (number, 2))
        noise = 0.1 * rng.normal(size=(number, 32, 32, 2))
        inputs = jnp.asarray(truth[:, None, None, :] + noise, jnp.float32)
        seen = np.arange(number) % 2
        return inputs, np.where(np.stack([seen, 1 - seen], 1) == 1, truth, np.nan)

    config = regression.recipe("model_2")
    config.update_from_flattened_dict(
        {
            "preparation.crop": 32,
            "model.width": 4,
            "model.num_blocks": 0,
            "optimizer.warmup_steps": 5,
            "optimizer.ema_decay": 0.9,
        }
    )
    splits = {name: draw(number) for name, number in (("train", 512), ("validation", 128), ("test", 128))}
    (found,) = regression.train_networks(config, splits, epochs=12, seeds=1)
    error = found["means"] - splits["test"][1]
    assert np.nanstd(error, axis=0).max() < 0.15  # 0.29 for a constant
    deviations = (error / found["sigmas"])[~np.isnan(error)]
    assert 0.5 < (np.abs(deviations) < 1).mean() < 0.85
