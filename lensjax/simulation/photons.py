"""Photon counts: exact draws from Poisson distributions, the same work for every pixel.

A sum of Poisson variables is one whose rate is the sum of theirs. A rate below 1,024 is a multiple of 32,
plus a multiple of 1/4, plus a rest; for the first two there are tables, and the rest, mostly 0, is counted
off. That is three looks-up in place of a search, without a branch or a loop, on any device. Only rates from
1,024 on, which few images have, are drawn by rejection.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Key, UInt32

COARSE, COARSE_ROWS, COARSE_BITS = 32.0, 32, 9
FINE, FINE_ROWS, FINE_BITS = 0.25, 128, 7
LARGE = COARSE * COARSE_ROWS
LARGEST = 2.0**22
REST_TERMS = 8  # the rest, below 1/4, exceeds this with probability 4e-10

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)


def poisson(key: Key[Array, ""], rate: Float[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """Draws from Poisson distributions, independent of each other.

    Every probability is right to about 1e-7 in all, whatever the rate below 1,024; above, to float32.

    Args:
      key: the draws follow from it.
      rate: expected counts, from 0 to `LARGEST` (4,194,304); what lies outside is taken to the nearest.

    Returns:
      The counts.

    References: Walker 1977, "An efficient method for generating discrete random variables with general
    distributions" (the tables); Hoermann 1993, "The transformed rejection method for generating Poisson
    random variables" (large rates).
    """
    rate = jnp.clip(jnp.nan_to_num(rate), 0, LARGEST).astype(jnp.float32)
    # In two halves, one after the other, for the sake of CPUs: XLA does not merge a loop with what comes
    # before and after it, and merged with a renderer this would be one piece of code too large for the
    # vector unit, and eight times as slow.
    half = -(-rate.size // 2)
    halves = jnp.pad(rate.ravel(), (0, 2 * half - rate.size)).reshape(2, half)
    words = random_words(key, 3, (2, half))
    counts = lax.map(_below_large, (halves, *words)).reshape(-1)[: rate.size].reshape(rate.shape)
    return _with_large_rates(jax.random.fold_in(key, 1), rate, counts)


def _below_large(
    operands: tuple[
        Float[Array, " n"], UInt32[Array, " n"], UInt32[Array, " n"], UInt32[Array, " n"]
    ],
) -> Int32[Array, " n"]:
    """Draws at rates below `LARGE` from three random words for each; 0 at other rates."""
    rate, first, second, third = operands
    rate = jnp.where(rate < LARGE, rate, 0.0)
    row = jnp.floor(rate * (1 / COARSE))
    rest = rate - COARSE * row
    fine_row = jnp.floor(rest * (1 / FINE))
    rest = rest - FINE * fine_row
    return (
        _looked_up(_coarse_table(), COARSE_BITS, row, first)
        + _first_column(row.astype(jnp.int32) * int(COARSE), COARSE_BITS)
        + _looked_up(_fine_table(), FINE_BITS, fine_row, second)
        + _counted_off(rest, third)
    )


def random_words(
    key: Key[Array, ""], number: int, shape: tuple[int, ...]
) -> UInt32[Array, "number *shape"]:
    """Uniform 32-bit words, as good as those of `jax.random` and several times faster on a CPU.

    Args:
      key: the words follow from it.
      number: how many arrays of words.
      shape: of each array.
    """
    seed = jax.random.bits(key, (2,), jnp.uint32)
    counter = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)

    def draw(_: None, stream: Array) -> tuple[None, Array]:
        high, low = threefry(seed, counter, jnp.full_like(counter, stream))
        return None, high ^ low

    return lax.scan(draw, None, jnp.arange(number, dtype=jnp.uint32))[1]


def threefry(
    key: UInt32[Array, "2"], high: UInt32[Array, "*shape"], low: UInt32[Array, "*shape"]
) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """Two random words for each pair of counters: Threefry-2x32 in 20 rounds.

    It is what `jax.random` is made of, with the rounds written out for the sake of speed on a CPU.

    Reference: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    high, low = high + schedule[0], low + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[:4] if group % 2 == 0 else _ROTATIONS[4:]:
            high = high + low
            low = (low << rotation) | (low >> (32 - rotation))
            low = low ^ high
        high = high + schedule[(group + 1) % 3]
        low = low + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return high, low


def _first_column(mean: Array | int, bits: int) -> Array:
    """The count that a table's first column stands for: its columns lie about the mean."""
    return jnp.maximum(mean - 2 ** (bits - 1), 0)


def _looked_up(
    table: np.ndarray, bits: int, row: Float[Array, "*shape"], word: UInt32[Array, "*shape"]
) -> Int32[Array, "*shape"]:
    """A column of that row of an alias table: the word's first bits name one, its others choose."""
    column = (word >> (32 - bits)).astype(jnp.int32)
    index = row.astype(jnp.int32) * 2**bits + column
    entry = jnp.asarray(table)[index]
    # An entry holds how many of the words that begin with its column stay there, and where others go.
    keep, alias = entry >> bits, (entry & (2**bits - 1)).astype(jnp.int32)
    return jnp.where((word & (2 ** (32 - bits) - 1)) < keep, column, alias)


def _counted_off(
    rate: Float[Array, "*shape"], word: UInt32[Array, "*shape"]
) -> Int32[Array, "*shape"]:
    """A draw at a rate below 1/4 by inversion: how many of the cumulative probabilities it exceeds."""
    uniform = (word >> 8).astype(jnp.float32) * 2.0**-24
    probability = jnp.exp(-rate)
    cumulative = probability
    counts = (uniform >= cumulative).astype(jnp.int32)
    for k in range(1, REST_TERMS):
        probability = probability * (rate * (1 / k))
        cumulative = cumulative + probability
        counts = counts + (uniform >= cumulative).astype(jnp.int32)
    return counts


@functools.cache
def _coarse_table() -> np.ndarray:
    return _alias_tables(COARSE * np.arange(COARSE_ROWS), COARSE_BITS)


@functools.cache
def _fine_table() -> np.ndarray:
    return _alias_tables(FINE * np.arange(FINE_ROWS), FINE_BITS)


def _alias_tables(rates: np.ndarray, bits: int) -> np.ndarray:
    """An alias table for each rate, in whole words: column k is got by as many of all 2^32 as it is due."""
    width, capacity = 2**bits, 2 ** (32 - bits)
    tables = np.empty((len(rates), width), np.uint32)
    for table, rate in zip(tables, rates, strict=True):
        count = max(int(rate) - width // 2, 0) + np.arange(width)
        log_factorial = np.array([math.lgamma(k + 1) for k in count])
        logarithm = count * math.log(rate) - rate - log_factorial if rate else -1e9 * count
        due = np.rint(np.exp(logarithm) * 2**32).astype(np.int64)
        due[due.argmax()] += 2**32 - due.sum()
        poor = [k for k in range(width) if due[k] < capacity]
        rich = [k for k in range(width) if due[k] >= capacity]
        alias = np.arange(width)
        keep = np.full(width, capacity - 1)  # a column that goes to itself keeps all in any case
        while poor and rich:
            low, high = poor.pop(), rich[-1]
            keep[low], alias[low] = due[low], high
            due[high] -= capacity - due[low]
            if due[high] < capacity:
                poor.append(rich.pop())
        table[:] = keep * width + alias
    return tables.ravel()


def _with_large_rates(
    key: Key[Array, ""], rate: Float[Array, "*shape"], counts: Int32[Array, "*shape"]
) -> Int32[Array, "*shape"]:
    """The same counts, with draws by transformed rejection in the places of rates from `LARGE` on."""
    words = jax.random.bits(key, (2,), jnp.uint32)
    counter = lax.iota(jnp.uint32, rate.size).reshape(rate.shape)

    def propose(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        trial, pending, found = state
        first, second = threefry(words, counter, jnp.full_like(counter, trial))
        # With the places that are done left out, this is no constant of the loop, which XLA would compute
        # ahead of it even where it is not entered.
        mean = jnp.where(pending, rate, LARGE)
        b = 0.931 + 2.53 * jnp.sqrt(mean)
        a = -0.059 + 0.02483 * b
        inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
        u = ((first >> 8).astype(jnp.float32) + 0.5) * 2.0**-24 - 0.5
        v = ((second >> 8).astype(jnp.float32) + 0.5) * 2.0**-24
        us = 0.5 - jnp.abs(u)
        k = jnp.floor((2 * a / us + b) * u + mean + 0.43)
        # log of the probability of k, in a form that does not cancel where k is near the mean.
        positive = jnp.maximum(k, 1)
        away = (positive - mean) / mean
        log_probability = (
            -mean * ((1 + away) * jnp.log1p(away) - away)
            - 0.5 * jnp.log(2 * jnp.pi * positive)
            - 1 / (12 * positive)
        )
        bound = jnp.log(v * inverse_alpha / (a / (us * us) + b))
        accepted = pending & (k >= 1) & (bound <= log_probability)
        return trial + 1, pending & ~accepted, jnp.where(accepted, k.astype(jnp.int32), found)

    start = (jnp.uint32(0), rate >= LARGE, counts)
    return lax.while_loop(lambda state: state[1].any(), propose, start)[2]
