"""Photon counts: distribution, independence and reproducibility."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lensjax.simulation.photons import poisson, random_words, threefry

DRAWS = 1_000_000


@functools.cache
def draw():
    return jax.jit(lambda key, rate: poisson(key, jnp.full((DRAWS,), rate)))


@pytest.mark.parametrize("rate", [0.1, 1.0, 11.0, 31.99, 100.3, 800.0, 1023.9, 40_000.0])
def test_counts_are_poisson(rate):
    """Chi-square over 100 bins of a million draws, mean and variance; a false alarm once in 10,000 tests."""
    counts = np.asarray(draw()(jax.random.key(int(rate)), rate))
    distribution = stats.poisson(float(np.float32(rate)))
    edges = np.unique(distribution.ppf(np.linspace(0.002, 0.998, 100)))
    expected = np.diff(np.concatenate([[0], distribution.cdf(edges), [1]])) * DRAWS
    observed = np.bincount(np.searchsorted(edges, counts), minlength=len(expected))
    # The outermost bins may be nearly empty.
    expected, observed = expected[expected > 20], observed[expected > 20]
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert stats.chi2.sf(statistic, len(expected) - 1) > 1e-4
    assert abs(counts.mean() - rate) < 4 * np.sqrt(rate / DRAWS)
    spread = np.sqrt((1 / rate + 2) / DRAWS)
    assert counts.var() / rate == pytest.approx(1, abs=4 * spread)


def test_zero_negative_and_nan_rates_give_zero():
    counts = poisson(jax.random.key(0), jnp.array([0.0, -3.0, jnp.nan, 1e-30]))
    np.testing.assert_array_equal(counts, 0)
    assert (draw()(jax.random.key(0), 0.0) == 0).all()


def test_pixels_and_keys_are_independent():
    """Adjacent pixels, distant pixels and consecutive keys are uncorrelated."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(2), jnp.arange(40))
    rate = jnp.full((150, 150), 11.3)
    counts = np.asarray(jax.jit(jax.vmap(poisson, (0, None)))(keys, rate), np.float64)
    counts = (counts - 11.3) / np.sqrt(11.3)
    limit = 4 / np.sqrt(counts.size)
    pairs = {
        "columns": (counts[:, :, 1:], counts[:, :, :-1]),
        "rows": (counts[:, 1:], counts[:, :-1]),
        "halves": (counts[:, :75], counts[:, 75:]),
        "keys": (counts[1:], counts[:-1]),
    }
    for name, (one, other) in pairs.items():
        assert abs(np.mean(one * other)) < limit, name


def test_each_pixel_follows_its_own_rate():
    rates = np.array([0.0, 5.0, 50.0, 500.0, 5000.0], np.float32)
    mixed = jnp.asarray(np.tile(rates, 4001)[:20_001])
    counts = np.asarray(poisson(jax.random.key(1), mixed))
    for start, rate in enumerate(rates):
        chosen = counts[start::5]
        assert abs(chosen.mean() - rate) <= 4 * np.sqrt(rate / len(chosen))
        assert chosen.var() == pytest.approx(rate, rel=0.1)


def test_random_words_match_published_threefry_vector():
    """Known-answer test of the Random123 library for threefry2x32 with 20 rounds."""
    key = jnp.array([0x13198A2E, 0x03707344], jnp.uint32)
    counter = jnp.uint32(0x243F6A88), jnp.uint32(0x85A308D3)
    assert [int(word) for word in threefry(key, *counter)] == [0xC4923A9C, 0x483DF7A0]
    words = np.asarray(random_words(jax.random.key(3), 3, (100_000,)))
    bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.abs(bits.mean(1) - 0.5).max() < 4.5 * 0.5 / np.sqrt(100_000)


def test_counts_of_a_key_are_independent_of_batching():
    rate = jnp.linspace(0, 1500, 1001)
    keys = jax.random.split(jax.random.key(5), 3)
    alone = jax.jit(poisson)(keys[1], rate)
    np.testing.assert_array_equal(alone, jax.jit(poisson)(keys[1], rate))
    several = jax.jit(jax.vmap(poisson, (0, None)))(keys, rate)
    np.testing.assert_array_equal(several[1], alone)
