"""Starting points of a fit: the best lenses of a bank rendered in advance on coarse pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax.fitting.amplitudes import solve_nonnegative
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.rendering import render
from lensjax.fitting.resolution import Resolution

BANK_SIZE = 2048


@functools.lru_cache(maxsize=8)
def lens_bank(model: SmoothModel, resolution: Resolution, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Renders lenses that cover the starting ranges of the model's parameters.

    Args:
      model: smooth model.
      resolution: pixels and rays of the images.
      dtype: "float32" or "float64".

    Returns:
      Values of the free parameters `[lenses, nonlinear]`, and images for amplitudes of 1, without the sky,
      `[lenses, amplitudes, pixels]`.
    """
    ranges = np.array([model.lens.parameters[name].start for name in model.nonlinear])
    points = halton_points(BANK_SIZE, len(ranges))
    free = (ranges[:, 0] + points * (ranges[:, 1] - ranges[:, 0])).astype(dtype)
    with jax.ensure_compile_time_eval():
        render_all = jax.jit(lambda rows: jax.lax.map(functools.partial(render, model, resolution), rows))
        images = np.asarray(render_all(free)).reshape(BANK_SIZE, len(model.linear) - 1, -1)
    return free, images


def halton_points(number: int, dimensions: int) -> np.ndarray:
    """Points of the Halton sequence (Halton 1960) in the unit cube, `[number, dimensions]`."""
    columns = []
    for base in _primes(dimensions):
        index, digit_value, column = np.arange(1, number + 1), 1.0, np.zeros(number)
        while index.any():
            digit_value /= base
            column += digit_value * (index % base)
            index = index // base
        columns.append(column)
    return np.stack(columns, axis=1)


def _primes(number: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < number:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def chi_square_gains(
    columns: Float[Array, "lenses amplitudes pixels"],
    image: Float[Array, " pixels"],
    weight: Float[Array, " pixels"],
) -> Float[Array, " lenses"]:
    """Decrease in chi-square due to each lens of a bank, with its best amplitudes and sky."""
    total = jnp.where(weight.sum() > 0, weight.sum(), 1)
    centered = weight * (image - (weight * image).sum() / total)
    overlap, sums = columns @ centered, columns @ weight
    gram = jnp.stack(
        [
            (columns * columns[:, index, None]) @ weight - sums * sums[:, index, None] / total
            for index in range(columns.shape[1])
        ],
        axis=1,
    )
    return (jax.vmap(solve_nonnegative)(gram, overlap) * overlap).sum(1)
