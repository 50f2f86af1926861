"""Starting points of a fit: the best lenses of a bank rendered in advance on coarse pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax.fitting.model import SmoothModel
from lensjax.fitting.rendering import render
from lensjax.fitting.resolution import Resolution

BANK_SIZE = 2048
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43)


@functools.lru_cache(maxsize=8)
def lens_bank(model: SmoothModel, resolution: Resolution, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Renders lenses that cover the starting ranges of the model's parameters.

    Args:
      model: smooth model.
      resolution: pixels and rays of the images.
      dtype: "float32" or "float64".

    Returns:
      Values of the free parameters `[lenses, nonlinear]`, and images of amplitude 1 without sky
      `[lenses, pixels]`.
    """
    ranges = np.array([getattr(model, name).start for name in model.nonlinear])
    points = halton_points(BANK_SIZE, len(ranges))
    free = (ranges[:, 0] + points * (ranges[:, 1] - ranges[:, 0])).astype(dtype)
    with jax.ensure_compile_time_eval():
        render_all = jax.jit(lambda rows: jax.lax.map(functools.partial(render, model, resolution), rows))
        sources = np.asarray(render_all(free)).reshape(BANK_SIZE, -1)
    return free, sources


def halton_points(number: int, dimensions: int) -> np.ndarray:
    """Points of the Halton sequence (Halton 1960) in the unit cube, `[number, dimensions]`."""
    columns = []
    for base in _PRIMES[:dimensions]:
        index, digit_value, column = np.arange(1, number + 1), 1.0, np.zeros(number)
        while index.any():
            digit_value /= base
            column += digit_value * (index % base)
            index = index // base
        columns.append(column)
    return np.stack(columns, axis=1)


def chi_square_gains(
    sources: Float[Array, "lenses pixels"], image: Float[Array, " pixels"], weight: Float[Array, " pixels"]
) -> Float[Array, " lenses"]:
    """Decrease in chi-square due to each lens of a bank, with its best amplitude and sky."""
    total = jnp.where(weight.sum() > 0, weight.sum(), 1)
    centered = weight * (image - (weight * image).sum() / total)
    overlap = jnp.maximum(sources @ centered, 0)
    norm = sources**2 @ weight - (sources @ weight) ** 2 / total
    return overlap**2 / jnp.maximum(norm, 1e-30)
