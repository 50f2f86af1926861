"""Where a fit sets out: the best of a bank of lenses drawn beforehand on coarse pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax.fitting.level import Level
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.render import brightness

NUMBER = 2048
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43)


@functools.lru_cache(maxsize=8)
def bank(model: SmoothModel, level: Level, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Lenses spread over the ranges that the model's parameters start from.

    Args:
      model: the smooth model.
      level: the pixels that they are drawn on.
      dtype: "float32" or "float64".

    Returns:
      Values of the free parameters and images of amplitude 1 without sky, one row a lens.
    """
    ranges = np.array([getattr(model, name).start for name in model.nonlinear])
    points = halton(NUMBER, len(ranges))
    free = (ranges[:, 0] + points * (ranges[:, 1] - ranges[:, 0])).astype(dtype)
    with jax.ensure_compile_time_eval():
        draw = jax.jit(lambda rows: jax.lax.map(functools.partial(brightness, model, level), rows))
        sources = np.asarray(draw(free)).reshape(NUMBER, -1)
    return free, sources


def halton(number: int, dimensions: int) -> np.ndarray:
    """Points that fill the unit cube evenly (Halton 1960), a row each."""
    columns = []
    for base in _PRIMES[:dimensions]:
        index, place, column = np.arange(1, number + 1), 1.0, np.zeros(number)
        while index.any():
            place /= base
            column += place * (index % base)
            index = index // base
        columns.append(column)
    return np.stack(columns, axis=1)


def gains(
    sources: Float[Array, "lenses pixels"],
    image: Float[Array, " pixels"],
    weight: Float[Array, " pixels"],
) -> Float[Array, " lenses"]:
    """How much each lens of a bank lowers chi-square, with its best amplitude and sky."""
    total = jnp.where(weight.sum() > 0, weight.sum(), 1)
    centred = weight * (image - (weight * image).sum() / total)
    overlap = jnp.maximum(sources @ centred, 0)
    spread = sources**2 @ weight - (sources @ weight) ** 2 / total
    return overlap**2 / jnp.maximum(spread, 1e-30)
