"""Draws from the priors on substructure have the documented distributions."""

import jax
import numpy as np
import pytest
from scipy import stats

from lensjax import physics

NUMBER = 3_000
KEYS = jax.random.split(jax.random.key(0), NUMBER)


def draw(function):
    return np.asarray(jax.jit(jax.vmap(function))(KEYS), np.float64)


@pytest.mark.parametrize("exponent", [0.1, -0.9, 2.0])
def test_subhalo_moments_match_draws(exponent):
    prior = physics.SubhaloPrior(25, (1e-4, 1e-2), exponent, (0.25, 2.0))
    masses = draw(prior.draw)[..., 0] ** 2
    assert masses.min() >= 1e-4 * 0.999
    assert masses.max() <= 1e-2 * 1.001
    np.testing.assert_allclose([masses.mean(), (masses**2).mean()], prior.moments(), rtol=0.03)


def test_vortex_mass_is_relative_to_lens_mass():
    prior = physics.VortexPrior(20, (0.02, 0.05), (1.0, 4.0), 0.3)
    points = draw(lambda key: prior.draw(key, 1.5))
    fraction = (points[..., 0] ** 2).sum(1) / 1.5**2
    assert stats.kstest(fraction, stats.uniform(0.02, 0.03).cdf).pvalue > 1e-4
    length = np.hypot(*(points[:, -1] - points[:, 0])[:, 1:].T)
    assert stats.kstest(length, stats.uniform(1.0, 3.0).cdf).pvalue > 1e-4
    assert stats.kstest(points[..., 1].mean(1), stats.norm(0, 0.3).cdf).pvalue > 1e-4


def test_broad_vortices_follow_their_distributions():
    prior = physics.BroadVortexPrior(20, (0.02, 0.05), (0.1, 6.0), 1.2)
    points = draw(lambda key: prior.draw(key, 1.5))
    fraction = (points[..., 0] ** 2).sum(1) / 1.5**2
    assert stats.kstest(fraction, stats.uniform(0.02, 0.03).cdf).pvalue > 1e-4
    length = np.hypot(*(points[:, -1] - points[:, 0])[:, 1:].T)
    assert stats.kstest(length, stats.loguniform(0.1, 6.0).cdf).pvalue > 1e-4
    dx, dy = (points[:, -1] - points[:, 0])[:, 1:].T
    assert stats.kstest(np.arctan2(dy, dx) % np.pi, stats.uniform(0, np.pi).cdf).pvalue > 1e-4
    x, y = points[..., 1:].mean(1).T
    assert stats.kstest(np.hypot(x, y), stats.uniform(0, 1.2).cdf).pvalue > 1e-4
    assert stats.kstest(np.arctan2(y, x), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: physics.SubhaloPrior(25, (0.0, 1.0), 0.1, (0.25, 2.0)), "theta_E_squared of the subhalos"),
        (lambda: physics.SubhaloPrior(25, (1e-4, 1.0), -1.0, (0.25, 2.0)), "exponent of the subhalos"),
        (lambda: physics.SubhaloPrior(25, (1e-4, 1.0), np.nan, (0.25, 2.0)), "exponent of the subhalos"),
        (lambda: physics.SubhaloPrior(-1, (1e-4, 1.0), 0.1, (0.25, 2.0)), "number of subhalos"),
        (lambda: physics.VortexPrior(25, (0.03, 0.05), (1.0, 2.0), np.inf), "center_sigma of the vortex"),
        (lambda: physics.VortexPrior(25, (0.03, 0.05), (2.0, 1.0), 0.5), "length of the vortex"),
        (lambda: physics.VortexPrior(25, (0.03, 0.05), (1.0, 2.0), 0.0), "center_sigma of the vortex"),
        (lambda: physics.BroadVortexPrior(25, (0.03, 0.05), (0.0, 1.0), 1.0), "length of the vortex"),
        (lambda: physics.BroadVortexPrior(25, (0.03, 0.05), (0.1, 1.0), 0.0), "max_distance of the vortex"),
        (lambda: physics.AxionVortexPrior(25, -1.0, (-24.0, -22.0), 0.06), "theta_E_squared of the axion"),
    ],
)
def test_invalid_priors_raise_an_error(make, name):
    with pytest.raises(ValueError, match=name):
        make()
