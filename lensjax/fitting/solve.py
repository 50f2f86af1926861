"""Levenberg-Marquardt minimization with the amplitude and the sky eliminated.

For given rays, the best amplitude and sky follow from two linear equations (variable projection; Golub &
Pereyra 1973). The step is that of Kaufman (1975), which omits the second derivatives of the projection.
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
class NormalEquations:
    """Normal equations for given parameters.

    Attributes:
      matrix: J^T W J of all parameters (amplitude and sky last), plus the precisions of the priors.
      gradient: J^T W r minus the gradient of the priors.
      linear: best amplitude and sky.
      chi_square: chi-square of the pixels and the priors.
    """

    matrix: Float[Array, "all all"]
    gradient: Float[Array, " all"]
    linear: Float[Array, "2"]
    chi_square: Float[Array, ""]


def initial_normal_equations(number: int, dtype: jnp.dtype) -> NormalEquations:
    """Placeholder with infinite chi-square, used before the first evaluation."""
    return NormalEquations(
        jnp.eye(number + 2, dtype=dtype),
        jnp.zeros(number + 2, dtype),
        jnp.zeros(2, dtype),
        jnp.asarray(jnp.inf, dtype),
    )


def solve_linear(
    source: Float[Array, "*grid"], image: Float[Array, "*grid"], weight: Float[Array, "*grid"]
) -> Float[Array, "2"]:
    """Solves for the nonnegative amplitude and the sky that minimize chi-square.

    Args:
      source: rendered source of amplitude 1, without the sky.
      image: observed image.
      weight: inverse variance of each pixel, 0 for masked pixels.

    Returns:
      Amplitude and sky, in the unit of the image.
    """
    total = weight.sum()
    total = jnp.where(total > 0, total, 1)
    mean_source, mean_image = (weight * source).sum() / total, (weight * image).sum() / total
    contrast = source - mean_source
    source_variance = (weight * contrast**2).sum()
    amp = (weight * contrast * (image - mean_image)).sum() / jnp.where(
        source_variance > 0, source_variance, 1
    )
    amp = jnp.maximum(amp, 0)
    return jnp.stack([amp, mean_image - amp * mean_source])


def normal_equations(
    model: SmoothModel,
    free: Float[Array, " nonlinear"],
    source: Float[Array, "rows columns"],
    jacobian: Float[Array, "nonlinear rows columns"],
    image: Float[Array, "rows columns"],
    weight: Float[Array, "rows columns"],
) -> NormalEquations:
    """Normal equations of all parameters, at the best amplitude and sky.

    Args:
      model: smooth model.
      free: values of the parameters `model.nonlinear`.
      source, jacobian: rendered source and its derivatives; see `render_with_jacobian`.
      image: observed image.
      weight: inverse variance of each pixel, 0 for masked pixels.
    """
    source, image, weight = source.ravel(), image.ravel(), weight.ravel()
    jacobian = jacobian.reshape(len(jacobian), -1)
    linear = solve_linear(source, image, weight)
    residual = image - linear[0] * source - linear[1]
    columns = jnp.concatenate([linear[0] * jacobian, jnp.stack([source, jnp.ones_like(source)])])
    weighted = columns * weight[None]
    means, precisions = normal_priors(model, free.dtype)
    pull = (means - free) * precisions
    matrix = (weighted @ columns.T) + jnp.diag(jnp.pad(precisions, (0, 2)))
    gradient = weighted @ residual + jnp.pad(pull, (0, 2))
    chi_square = (weight * residual**2).sum() + (pull * (means - free)).sum()
    return NormalEquations(matrix, gradient, linear, chi_square)


def normal_priors(model: SmoothModel, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Means and inverse variances of the priors on `model.nonlinear`; both 0 for a flat prior."""
    pairs = [getattr(model, name).prior for name in model.nonlinear]
    means = [0.0 if pair is None else pair[0] for pair in pairs]
    precisions = [0.0 if pair is None else pair[1] ** -2 for pair in pairs]
    return jnp.asarray(means, dtype), jnp.asarray(precisions, dtype)


def parameter_bounds(model: SmoothModel, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Bounds of the fitted parameters.

    Args:
      model: smooth model.
      dtype: dtype of the result.

    Returns:
      Smallest and largest allowed values of the parameters `model.nonlinear`.
    """
    pairs = [getattr(model, name).bounds for name in model.nonlinear]
    return jnp.asarray([low for low, _ in pairs], dtype), jnp.asarray([high for _, high in pairs], dtype)


def damped_step(
    model: SmoothModel,
    free: Float[Array, " nonlinear"],
    equations: NormalEquations,
    damping: Float[Array, ""],
) -> Float[Array, " nonlinear"]:
    """Damped step of the free parameters; 0 for parameters held at a bound, and clipped at the bounds."""
    low, high = parameter_bounds(model, free.dtype)
    gradient = equations.gradient[:-2]
    held = ((free <= low) & (gradient < 0)) | ((free >= high) & (gradient > 0))
    keep = jnp.pad(jnp.where(held, 0.0, 1.0).astype(free.dtype), (0, 2), constant_values=1)
    scale = diagonal_scales(equations.matrix)
    matrix = equations.matrix * scale[:, None] * scale[None, :]
    matrix = matrix * keep[:, None] * keep[None, :]
    extra = jnp.pad(jnp.full_like(free, damping), (0, 2))
    tiny = 8 * jnp.finfo(free.dtype).eps
    matrix = matrix + jnp.diag(extra + tiny + (1 - keep))
    step = scale * jnp.linalg.solve(matrix, equations.gradient * scale * keep)
    return jnp.clip(free + step[:-2], low, high) - free


def diagonal_scales(matrix: Float[Array, "all all"]) -> Float[Array, " all"]:
    """Factors that scale the diagonal to 1 when applied to rows and columns."""
    diagonal = jnp.diagonal(matrix)
    return jnp.where(diagonal > 0, 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)


def invert_normal_matrix(matrix: Float[Array, "all all"]) -> Float[Array, "all all"]:
    """Inverse of a normal matrix, finite even if the matrix is singular."""
    scale = diagonal_scales(matrix)
    tiny = 8 * jnp.finfo(matrix.dtype).eps
    scaled = matrix * scale[:, None] * scale[None, :] + tiny * jnp.eye(len(matrix), dtype=matrix.dtype)
    return jnp.linalg.inv(scaled) * scale[:, None] * scale[None, :]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    free: Float[Array, " nonlinear"]
    equations: NormalEquations
    move: Float[Array, " nonlinear"]
    damping: Float[Array, ""]
    steps: Int[Array, ""]
    done: Bool[Array, ""]


def minimize(
    model: SmoothModel,
    evaluate: Callable[[Float[Array, " nonlinear"]], NormalEquations],
    start: Float[Array, " nonlinear"],
    *,
    max_steps: int,
    tolerance: ArrayLike,
    damping: float,
) -> tuple[Float[Array, " nonlinear"], NormalEquations, Bool[Array, ""]]:
    """Minimizes chi-square from a starting point, with constant weights.

    Args:
      model: smooth model.
      evaluate: function that returns the normal equations for given parameters.
      start: starting values of the parameters `model.nonlinear`.
      max_steps: maximum number of evaluations, including that of the start.
      tolerance: a step with an expected decrease in chi-square below this is the last, and is taken
        without an evaluation.
      damping: damping of the first step, as a fraction of the diagonal.

    Returns:
      The best parameters, the normal equations before the last step, and True if the tolerance was
      reached.
    """

    def step(state: _State) -> _State:
        trial = state.free + state.move
        trial_equations = evaluate(trial)
        better = trial_equations.chi_square < state.equations.chi_square
        damping = jnp.where(better, state.damping / 8, state.damping * 10)
        free, equations = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (trial, trial_equations),
            (state.free, state.equations),
        )
        move = damped_step(model, free, equations, damping)
        expected_decrease = move @ equations.gradient[:-2]
        done = expected_decrease < tolerance
        return _State(free, equations, move, damping, state.steps + 1, done)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return ~state.done & (state.steps < max_steps)

    # The first iteration evaluates the start itself, which always improves on infinity.
    first = _State(
        start,
        initial_normal_equations(len(start), start.dtype),
        jnp.zeros_like(start),
        jnp.asarray(8 * damping, start.dtype),
        jnp.asarray(0, jnp.int32),
        jnp.asarray(False),
    )
    last = jax.lax.while_loop(unfinished, step, first)
    free = jnp.where(last.done, last.free + last.move, last.free)
    return free, last.equations, last.done
