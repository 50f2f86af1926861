"""Levenberg-Marquardt minimization with the amplitudes and the sky eliminated.

For given nonlinear parameters, the best amplitudes and sky follow from linear equations (variable projection;
Golub & Pereyra 1973). The step is that of Kaufman (1975), which omits the second term of the derivative of
the projection.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from lensjax.fitting.amplitudes import diagonal_scales, solve_linear, total_light
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.types import Free, Image, Matrix, Number, Theta


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NormalEquations:
    """Normal equations for given parameters.

    J is the Jacobian of the image, W is the diagonal matrix of the weights, and r is the residual.

    Attributes:
      matrix: J^T W J of all parameters (amplitudes and sky last), plus the precisions of the priors.
      gradient: J^T W r minus the gradient of the priors.
      linear: best amplitudes and sky.
      chi_square: chi-square of the pixels and the priors.
    """

    matrix: Matrix
    gradient: Theta
    linear: Float[Array, " linear"]
    chi_square: Number


def initial_normal_equations(model: SmoothModel, dtype: jnp.dtype) -> NormalEquations:
    """Placeholder with infinite chi-square, used before the first evaluation."""
    number = len(model.names)
    return NormalEquations(
        jnp.eye(number, dtype=dtype),
        jnp.zeros(number, dtype),
        jnp.zeros(len(model.linear), dtype),
        jnp.asarray(jnp.inf, dtype),
    )


def normal_equations(
    model: SmoothModel,
    free: Free,
    columns: Float[Array, "amplitudes rows columns"],
    jacobian: Float[Array, "nonlinear rows columns"],
    image: Image,
    weight: Image,
) -> NormalEquations:
    """Normal equations of all parameters, at the best amplitudes and sky.

    Args:
      model: smooth model.
      free: values of the parameters `model.nonlinear`.
      columns, jacobian: rendered light and its derivatives; see `render_with_jacobian`.
      image: observed image.
      weight: inverse variance of each pixel, 0 for masked pixels.
    """
    image, weight = image.ravel(), weight.ravel()
    columns, jacobian = columns.reshape(len(columns), -1), jacobian.reshape(len(jacobian), -1)
    linear = solve_linear(columns, image, weight)
    residual = image - total_light(columns, linear) - linear[-1]
    derivatives = image_derivatives(model, columns, jacobian, linear)
    weighted = derivatives * weight[None]
    means, precisions = normal_priors(model, free.dtype)
    pull = (means - free) * precisions
    pad = (0, len(linear))
    matrix = (weighted @ derivatives.T) + jnp.diag(jnp.pad(precisions, pad))
    gradient = weighted @ residual + jnp.pad(pull, pad)
    chi_square = (weight * residual**2).sum() + (pull * (means - free)).sum()
    return NormalEquations(matrix, gradient, linear, chi_square)


def image_derivatives(
    model: SmoothModel,
    columns: Float[Array, "amplitudes *grid"],
    jacobian: Float[Array, "nonlinear *grid"],
    linear: Float[Array, " linear"],
) -> Float[Array, "all *grid"]:
    """Derivatives of the image with respect to all parameters.

    Args:
      model: smooth model.
      columns, jacobian: see `render_with_jacobian`.
      linear: amplitudes and sky.
    """
    amplitudes = linear[model.amplitude_of].reshape(-1, *(1,) * (jacobian.ndim - 1))
    return jnp.concatenate([amplitudes * jacobian, columns, jnp.ones_like(columns[:1])])


def normal_priors(model: SmoothModel, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Means and inverse variances of the priors on `model.nonlinear`; both 0 for a flat prior."""
    pairs = [model.lens.parameters[name].prior for name in model.nonlinear]
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
    low, high = model.lens.bounds
    return jnp.asarray(low, dtype), jnp.asarray(high, dtype)


def damped_step(model: SmoothModel, free: Free, equations: NormalEquations, damping: Number) -> Free:
    """Damped step of the free parameters; 0 for parameters held at a bound, and clipped at the bounds."""
    low, high = parameter_bounds(model, free.dtype)
    gradient, number = equations.gradient[: len(free)], len(equations.linear)
    held = ((free <= low) & (gradient < 0)) | ((free >= high) & (gradient > 0))
    positive = equations.linear[:-1] > 0
    keep = jnp.concatenate([~held, positive, jnp.ones(1, bool)]).astype(free.dtype)
    scale = diagonal_scales(equations.matrix)
    matrix = equations.matrix * scale[:, None] * scale[None, :]
    matrix = matrix * keep[:, None] * keep[None, :]
    extra = jnp.pad(jnp.full_like(free, damping), (0, number))
    tiny = 8 * jnp.finfo(free.dtype).eps
    matrix = matrix + jnp.diag(extra + tiny + (1 - keep))
    step = scale * jnp.linalg.solve(matrix, equations.gradient * scale * keep)
    return jnp.clip(free + step[: len(free)], low, high) - free


def invert_normal_matrix(matrix: Matrix) -> Matrix:
    """Inverse of a normal matrix, finite even if the matrix is singular."""
    scale = diagonal_scales(matrix)
    tiny = 8 * jnp.finfo(matrix.dtype).eps
    scaled = matrix * scale[:, None] * scale[None, :] + tiny * jnp.eye(len(matrix), dtype=matrix.dtype)
    return jnp.linalg.inv(scaled) * scale[:, None] * scale[None, :]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    free: Free
    equations: NormalEquations
    move: Free
    damping: Number
    evaluations: Int[Array, ""]
    done: Bool[Array, ""]


def minimize(
    model: SmoothModel,
    evaluate: Callable[[Free], NormalEquations],
    start: Free,
    *,
    max_evaluations: int,
    tolerance: ArrayLike,
    damping: float,
) -> tuple[Free, NormalEquations, Bool[Array, ""]]:
    """Minimizes chi-square from a starting point, with constant weights.

    Args:
      model: smooth model.
      evaluate: function that returns the normal equations for given parameters.
      start: starting values of the parameters `model.nonlinear`.
      max_evaluations: maximum number of evaluations, including that of the start.
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
        expected_decrease = move @ equations.gradient[: len(move)]
        done = expected_decrease < tolerance
        return _State(free, equations, move, damping, state.evaluations + 1, done)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return ~state.done & (state.evaluations < max_evaluations)

    # The first iteration evaluates the start itself, which always improves on infinity.
    first = _State(
        start,
        initial_normal_equations(model, start.dtype),
        jnp.zeros_like(start),
        jnp.asarray(8 * damping, start.dtype),
        jnp.asarray(0, jnp.int32),
        jnp.asarray(False),
    )
    last = jax.lax.while_loop(unfinished, step, first)
    free = jnp.where(last.done, last.free + last.move, last.free)
    return free, last.equations, last.done
