"""What the profiles share: the softened distance from a centre, and sums of powers."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

CORE = 1e-8


def offset(
    x: Array, y: Array, center_x: ArrayLike, center_y: ArrayLike, core: float
) -> tuple[Array, Array, Array]:
    """Offsets from the centre, and the square of the softened distance: dx^2 + dy^2 + core^2."""
    dx, dy = x - center_x, y - center_y
    return dx, dy, dx**2 + dy**2 + core**2


def softened_convergence(
    convergence: Array, mean_convergence: Array, square: Array, core: float
) -> Array:
    """Convergence of a round profile whose potential takes the softened distance.

    If psi(r) is softened to psi(s), s = sqrt(r^2 + core^2), the deflection becomes (alpha(s) / s) r and half
    its divergence is kappa(s) + (alpha(s) / s - kappa(s)) (core / s)^2.

    Args:
      convergence: kappa(s).
      mean_convergence: alpha(s) / s, the mean of the convergence within s.
      square: s^2.
      core: the softening.
    """
    # The root is divided, not its square: the square of the square is out of float32's range.
    return convergence + (mean_convergence - convergence) * (core / jnp.sqrt(square)) ** 2


def positive(length: ArrayLike, core: float) -> Array:
    """A length that may be zero, softened in the same way: sqrt(length^2 + core^2)."""
    return jnp.sqrt(jnp.asarray(length) ** 2 + core**2)


def polynomial(coefficients: list[float], variable: Array) -> Array:
    """coefficients[0] + coefficients[1] variable + ..., by Horner's rule."""
    total = jnp.full_like(variable, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = coefficient + variable * total
    return total


def by_precision(variable: Array, single: int, double: int) -> int:
    """The number of terms that a series needs in the variable's precision."""
    return double if variable.dtype == jnp.float64 else single
