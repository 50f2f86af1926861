"""Levenberg-Marquardt with the amplitude and the sky eliminated.

For given rays the best amplitude and sky follow from two linear equations (variable projection, Golub &
Pereyra 1973); the step is that of Kaufman 1975, which leaves out the second derivatives of the projection.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from lensjax.fitting.model import SmoothModel


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normal:
    """The normal equations at one place.

    Attributes:
      matrix: J^T W J over the free parameters, amplitude and sky last, with the priors.
      gradient: J^T W r, less the pull of the priors.
      linear: best amplitude and sky there.
      chi_square: of the pixels and the priors.
    """

    matrix: Float[Array, "all all"]
    gradient: Float[Array, " all"]
    linear: Float[Array, "2"]
    chi_square: Float[Array, ""]


def empty_normal(number: int, dtype: jnp.dtype) -> Normal:
    """The normal equations before anything is known, of infinite chi-square."""
    return Normal(
        jnp.eye(number + 2, dtype=dtype),
        jnp.zeros(number + 2, dtype),
        jnp.zeros(2, dtype),
        jnp.asarray(jnp.inf, dtype),
    )


def best_linear(
    source: Float[Array, "*grid"], image: Float[Array, "*grid"], weight: Float[Array, "*grid"]
) -> Float[Array, "2"]:
    """Amplitude (not below 0) and sky of least chi-square."""
    total = weight.sum()
    total = jnp.where(total > 0, total, 1)
    mean_source, mean_image = (weight * source).sum() / total, (weight * image).sum() / total
    contrast = source - mean_source
    spread = (weight * contrast**2).sum()
    amp = (weight * contrast * (image - mean_image)).sum() / jnp.where(spread > 0, spread, 1)
    amp = jnp.maximum(amp, 0)
    return jnp.stack([amp, mean_image - amp * mean_source])


def normal_equations(
    model: SmoothModel,
    free: Float[Array, " nonlinear"],
    source: Float[Array, "rows columns"],
    slopes: Float[Array, "nonlinear rows columns"],
    image: Float[Array, "rows columns"],
    weight: Float[Array, "rows columns"],
) -> Normal:
    """The normal equations of all parameters, where amplitude and sky are at their best."""
    source, image, weight = source.ravel(), image.ravel(), weight.ravel()
    slopes = slopes.reshape(len(slopes), -1)
    linear = best_linear(source, image, weight)
    residual = image - linear[0] * source - linear[1]
    columns = jnp.concatenate([linear[0] * slopes, jnp.stack([source, jnp.ones_like(source)])])
    weighted = columns * weight[None]
    means, precisions = priors(model, free.dtype)
    pull = (means - free) * precisions
    matrix = (weighted @ columns.T) + jnp.diag(jnp.pad(precisions, (0, 2)))
    gradient = weighted @ residual + jnp.pad(pull, (0, 2))
    chi_square = (weight * residual**2).sum() + (pull * (means - free)).sum()
    return Normal(matrix, gradient, linear, chi_square)


def priors(model: SmoothModel, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Means and inverse variances of the normal priors; 0 and 0 where there is none."""
    pairs = [getattr(model, name).prior for name in model.nonlinear]
    means = [0.0 if pair is None else pair[0] for pair in pairs]
    precisions = [0.0 if pair is None else pair[1] ** -2 for pair in pairs]
    return jnp.asarray(means, dtype), jnp.asarray(precisions, dtype)


def bounds(model: SmoothModel, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Least and largest values of the free parameters."""
    pairs = [getattr(model, name).bounds for name in model.nonlinear]
    return jnp.asarray([low for low, _ in pairs], dtype), jnp.asarray(
        [high for _, high in pairs], dtype
    )


def damped_step(
    model: SmoothModel,
    free: Float[Array, " nonlinear"],
    normal: Normal,
    damping: Float[Array, ""],
) -> Float[Array, " nonlinear"]:
    """The step of the free parameters, zero for those held at a bound, and cut there for others."""
    low, high = bounds(model, free.dtype)
    gradient = normal.gradient[:-2]
    held = ((free <= low) & (gradient < 0)) | ((free >= high) & (gradient > 0))
    keep = jnp.pad(jnp.where(held, 0.0, 1.0).astype(free.dtype), (0, 2), constant_values=1)
    scale = scales(normal.matrix)
    matrix = normal.matrix * scale[:, None] * scale[None, :]
    matrix = matrix * keep[:, None] * keep[None, :]
    extra = jnp.pad(jnp.full_like(free, damping), (0, 2))
    tiny = 8 * jnp.finfo(free.dtype).eps
    matrix = matrix + jnp.diag(extra + tiny + (1 - keep))
    step = scale * jnp.linalg.solve(matrix, normal.gradient * scale * keep)
    return jnp.clip(free + step[:-2], low, high) - free


def scales(matrix: Float[Array, "all all"]) -> Float[Array, " all"]:
    """Factors that bring the diagonal to 1."""
    diagonal = jnp.diagonal(matrix)
    return jnp.where(diagonal > 0, 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)


def inverse(matrix: Float[Array, "all all"]) -> Float[Array, "all all"]:
    """Inverse of the normal matrix, finite even if it is singular."""
    scale = scales(matrix)
    tiny = 8 * jnp.finfo(matrix.dtype).eps
    scaled = matrix * scale[:, None] * scale[None, :] + tiny * jnp.eye(
        len(matrix), dtype=matrix.dtype
    )
    return jnp.linalg.inv(scaled) * scale[:, None] * scale[None, :]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    free: Float[Array, " nonlinear"]
    normal: Normal
    move: Float[Array, " nonlinear"]
    damping: Float[Array, ""]
    steps: Int[Array, ""]
    done: Bool[Array, ""]


def minimise(
    model: SmoothModel,
    evaluate: Callable[[Float[Array, " nonlinear"]], Normal],
    start: Float[Array, " nonlinear"],
    *,
    most_steps: int,
    tolerance: ArrayLike,
    damping: float,
) -> tuple[Float[Array, " nonlinear"], Normal, Bool[Array, ""]]:
    """Least chi-square from a start, the weights being given.

    Args:
      model: whose parameters these are.
      evaluate: the normal equations at a place.
      start: where to set out.
      most_steps: evaluations, that of the start included.
      tolerance: a step from which less gain in chi-square is expected is taken unseen, and is the last.
      damping: of the first step, as a part of the diagonal.

    Returns:
      The best place found, the normal equations before the last step, and whether it ended there by itself.
    """

    def step(state: _State) -> _State:
        trial = state.free + state.move
        there = evaluate(trial)
        better = there.chi_square < state.normal.chi_square
        damping = jnp.where(better, state.damping / 8, state.damping * 10)
        free, normal = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (trial, there), (state.free, state.normal)
        )
        move = damped_step(model, free, normal, damping)
        expected = move @ normal.gradient[:-2]
        return _State(free, normal, move, damping, state.steps + 1, expected < tolerance)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return ~state.done & (state.steps < most_steps)

    # The first pass evaluates the start itself: anything is better than infinity.
    first = _State(
        start,
        empty_normal(len(start), start.dtype),
        jnp.zeros_like(start),
        jnp.asarray(8 * damping, start.dtype),
        jnp.asarray(0, jnp.int32),
        jnp.asarray(False),
    )
    last = jax.lax.while_loop(unfinished, step, first)
    free = jnp.where(last.done, last.free + last.move, last.free)
    return free, last.normal, last.done
