"""Draws Poisson counts of photons, with the same amount of work for every pixel.

The sum of independent Poisson variables is a Poisson variable whose rate is the sum of the rates. A rate
below 1,024 is split into a multiple of 32, a multiple of 1/4 and a remainder. The counts of the first two
come from alias tables; that of the remainder, which is mostly 0, comes from inversion. This needs no branch
and no data-dependent loop. Only rates of 1,024 and above, which few images have, require rejection sampling.
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
REMAINDER_TERMS = 8  # largest count; at a rate below 1/4, a larger count has a probability below 1e-11

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)


def poisson(key: Key[Array, ""], rate: Float[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """Draws independent Poisson counts.

    Every probability is accurate to about 1e-7 for rates below 1,024, and to float32 precision above.

    Args:
      key: random key.
      rate: expected counts, from 0 to `LARGEST` (4,194,304); values outside this range are clipped, and NaN
        gives 0.

    Returns:
      The counts.

    References: Walker 1977, "An efficient method for generating discrete random variables with general
    distributions" (alias tables); Hoermann 1993, "The transformed rejection method for generating Poisson
    random variables" (large rates).
    """
    rate = jnp.clip(jnp.nan_to_num(rate), 0, LARGEST).astype(jnp.float32)
    # A loop over two halves is faster on a CPU, because XLA does not fuse loops with the code around them.
    # Fused with a renderer, the code would be too large for XLA to vectorize, and eight times slower.
    half = -(-rate.size // 2)
    halves = jnp.pad(rate.ravel(), (0, 2 * half - rate.size)).reshape(2, half)
    words = random_words(key, 3, (2, half))
    counts = lax.map(_draw_small_rates, (halves, *words)).reshape(-1)[: rate.size].reshape(rate.shape)
    return _draw_large_rates(jax.random.fold_in(key, 1), rate, counts)


def _draw_small_rates(
    operands: tuple[Float[Array, " n"], UInt32[Array, " n"], UInt32[Array, " n"], UInt32[Array, " n"]],
) -> Int32[Array, " n"]:
    """Draws each count from three random words, for rates below `LARGE`; other rates give 0."""
    rate, first, second, third = operands
    rate = jnp.where(rate < LARGE, rate, 0.0)
    row = jnp.floor(rate * (1 / COARSE))
    remainder = rate - COARSE * row
    fine_row = jnp.floor(remainder * (1 / FINE))
    remainder = remainder - FINE * fine_row
    return (
        _look_up(_coarse_table(), COARSE_BITS, row, first)
        + _first_column(row.astype(jnp.int32) * int(COARSE), COARSE_BITS)
        + _look_up(_fine_table(), FINE_BITS, fine_row, second)
        + _draw_by_inversion(remainder, third)
    )


def random_words(key: Key[Array, ""], number: int, shape: tuple[int, ...]) -> UInt32[Array, "number *shape"]:
    """Draws uniform 32-bit words of the same quality as `jax.random`, several times faster on a CPU.

    Args:
      key: random key.
      number: number of arrays.
      shape: shape of each array.

    Returns:
      The words.
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
    """Computes two random words for each pair of counters by Threefry-2x32 with 20 rounds.

    `jax.random` uses the same generator; here its rounds are unrolled, which is faster on a CPU.

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
    """Count that the first column of a table stands for; the columns are centered on the mean."""
    return jnp.maximum(mean - 2 ** (bits - 1), 0)


def _look_up(
    table: np.ndarray, bits: int, row: Float[Array, "*shape"], word: UInt32[Array, "*shape"]
) -> Int32[Array, "*shape"]:
    """Draws a column from a row of an alias table.

    The leading bits of the word select a column; the other bits choose between the column and its alias.
    """
    column = (word >> (32 - bits)).astype(jnp.int32)
    index = row.astype(jnp.int32) * 2**bits + column
    entry = jnp.asarray(table)[index]
    # An entry packs the number of words that keep their column and the alias for the other words.
    keep, alias = entry >> bits, (entry & (2**bits - 1)).astype(jnp.int32)
    return jnp.where((word & (2 ** (32 - bits) - 1)) < keep, column, alias)


def _draw_by_inversion(rate: Float[Array, "*shape"], word: UInt32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """Counts for rates below 1/4: the number of cumulative probabilities that a uniform draw exceeds."""
    uniform = (word >> 8).astype(jnp.float32) * 2.0**-24
    probability = jnp.exp(-rate)
    cumulative = probability
    counts = (uniform >= cumulative).astype(jnp.int32)
    for k in range(1, REMAINDER_TERMS):
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
    """Integer alias table for each rate; each column's share of all 2^32 words is its probability."""
    width, capacity = 2**bits, 2 ** (32 - bits)
    tables = np.empty((len(rates), width), np.uint32)
    for table, rate in zip(tables, rates, strict=True):
        count = max(int(rate) - width // 2, 0) + np.arange(width)
        log_factorial = np.array([math.lgamma(k + 1) for k in count])
        logarithm = count * math.log(rate) - rate - log_factorial if rate else -1e9 * count
        share = np.rint(np.exp(logarithm) * 2**32).astype(np.int64)
        share[share.argmax()] += 2**32 - share.sum()
        small = [k for k in range(width) if share[k] < capacity]
        large = [k for k in range(width) if share[k] >= capacity]
        alias = np.arange(width)
        keep = np.full(width, capacity - 1)  # a column that is its own alias keeps every word
        while small and large:
            low, high = small.pop(), large[-1]
            keep[low], alias[low] = share[low], high
            share[high] -= capacity - share[low]
            if share[high] < capacity:
                small.append(large.pop())
        table[:] = keep * width + alias
    return tables.ravel()


def _draw_large_rates(
    key: Key[Array, ""], rate: Float[Array, "*shape"], counts: Int32[Array, "*shape"]
) -> Int32[Array, "*shape"]:
    """Draws the counts for rates of `LARGE` and above by transformed rejection; keeps the other counts."""
    words = jax.random.bits(key, (2,), jnp.uint32)
    counter = lax.iota(jnp.uint32, rate.size).reshape(rate.shape)

    def propose(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        trial, pending, found = state
        first, second = threefry(words, counter, jnp.full_like(counter, trial))
        # The mask `pending` makes this depend on the iteration. XLA would hoist a loop invariant out of the
        # loop and compute it even if the loop body never runs.
        mean = jnp.where(pending, rate, LARGE)
        b = 0.931 + 2.53 * jnp.sqrt(mean)
        a = -0.059 + 0.02483 * b
        inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
        u = ((first >> 8).astype(jnp.float32) + 0.5) * 2.0**-24 - 0.5
        v = ((second >> 8).astype(jnp.float32) + 0.5) * 2.0**-24
        us = 0.5 - jnp.abs(u)
        k = jnp.floor((2 * a / us + b) * u + mean + 0.43)
        # Logarithm of the probability of k, in a form without cancellation near the mean.
        positive = jnp.maximum(k, 1)
        deviation = (positive - mean) / mean
        log_probability = (
            -mean * ((1 + deviation) * jnp.log1p(deviation) - deviation)
            - 0.5 * jnp.log(2 * jnp.pi * positive)
            - 1 / (12 * positive)
        )
        bound = jnp.log(v * inverse_alpha / (a / (us * us) + b))
        accepted = pending & (k >= 1) & (bound <= log_probability)
        return trial + 1, pending & ~accepted, jnp.where(accepted, k.astype(jnp.int32), found)

    start = (jnp.uint32(0), rate >= LARGE, counts)
    return lax.while_loop(lambda state: state[1].any(), propose, start)[2]
