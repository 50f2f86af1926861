"""Angular factor F of the elliptical power law's deflection (see `elliptical.py`) as a power series.

F(u) = 2F1(1, t/2; 2 - t/2; u) is summed in powers of v = u / (2 - u). This mapping moves the branch cut of F,
u > 1, outside the unit circle on both sides, and the terms fall as (|e| / (2 - |e|))^n instead of |e|^n.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from lensjax.physics.mass.softening import terms_for_precision

Complex = tuple[Array, Array]  # real and imaginary parts


def angular_factor(unit: Complex, t: Array, e1: Array, e2: Array, terms: int | None) -> Complex:
    """F at u = -conj(e) unit^2, for the unit vector w / |w|."""
    unit_squared = unit[0] ** 2 - unit[1] ** 2, 2 * unit[0] * unit[1]
    v, _ = series_variable(series_argument(unit_squared, e1, e2))
    return power_series(number_of_terms(terms, v[0]), 0, 0, t, *v)


def number_of_terms(terms: int | None, like: Array) -> int:
    """Number of terms in the series: `terms` if given, otherwise 16 in float32 and 32 in float64."""
    return terms_for_precision(like, 16, 32) if terms is None else terms


def complex_product(a: Complex, b: Complex) -> Complex:
    """Product of two complex numbers."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def instantiate_zeros(tangent: Any, primal: Array) -> Array:
    """The tangent as an array, even if it is a symbolic zero."""
    return jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent


def series_argument(unit_squared: Complex, e1: Array, e2: Array) -> Complex:
    """The argument u = -conj(e) (w / |w|)^2 of F; `unit_squared` is the last factor."""
    real, imaginary = unit_squared
    return -(e1 * real + e2 * imaginary), e2 * real - e1 * imaginary


def series_variable(u: Complex) -> tuple[Complex, Array]:
    """The variable v = u / (2 - u) = u (2 - conj(u)) / |2 - u|^2 of the series, and 1 / |2 - u|^2."""
    square = u[0] ** 2 + u[1] ** 2
    inverse = 1 / (4 - 4 * u[0] + square)
    return ((2 * u[0] - square) * inverse, 2 * u[1] * inverse), inverse


def _coefficients(terms: int, order: int, t: Array) -> Array:
    """Coefficients f_n of F in powers of v, or their derivative of the given order in t.

    The differential equation of F gives (n + 1 - t/2) f_n = (3t/2 - 1) f_(n-1) + (n - 2) f_(n-2), with an
    additional 1 - t/2 on the right-hand side for n = 1.
    """
    if order:
        return jax.jacfwd(lambda t: _coefficients(terms, order - 1, t))(t)
    start = 1 - t / 2
    f = [jnp.ones_like(t), t / (start + 1)]
    for n in range(2, terms):
        f.append(((1.5 * t - 1) * f[-1] + (n - 2) * f[-2]) / (n + start))
    return jnp.stack(f[:terms])


def _power_series(
    terms: int, order_t: int, order_v: int, t: Array, v_x: Array, v_y: Array
) -> tuple[Array, Array]:
    """Real and imaginary parts of sum f_n v^n, or of its derivative of the given orders in t and v."""
    f = _coefficients(terms, order_t, t)
    coefficients = [f[n] for n in range(terms)]
    for _ in range(order_v):
        coefficients = [n * value for n, value in enumerate(coefficients)][1:]
    if len(coefficients) < 2:
        constant = coefficients[0] if coefficients else jnp.zeros_like(t)
        return jnp.broadcast_to(constant, v_x.shape), jnp.zeros_like(v_x)
    # Goertzel's recurrence needs only two real products per term if the coefficients are real.
    double, square = 2 * v_x, v_x**2 + v_y**2
    last, previous = jnp.broadcast_to(coefficients[-1], v_x.shape), jnp.zeros_like(v_x)
    for coefficient in reversed(coefficients[1:-1]):
        last, previous = coefficient + double * last - square * previous, last
    return coefficients[0] + v_x * last - square * previous, v_y * last


# The derivatives in v and t are series of the same kind. With this rule, the backward pass stores only v
# instead of every step of the recurrence.
power_series = jax.custom_jvp(jax.jit(_power_series, static_argnums=(0, 1, 2)), nondiff_argnums=(0, 1, 2))


def _power_series_jvp(
    terms: int, order_t: int, order_v: int, primals: Any, tangents: Any
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    t, v_x, v_y = primals
    dt, dv_x, dv_y = tangents
    value = power_series(terms, order_t, order_v, t, v_x, v_y)
    tangent = jnp.zeros_like(v_x), jnp.zeros_like(v_x)
    if not (isinstance(dv_x, SymbolicZero) and isinstance(dv_y, SymbolicZero)):
        slope = power_series(terms, order_t, order_v + 1, t, v_x, v_y)
        tangent = complex_product(slope, (instantiate_zeros(dv_x, v_x), instantiate_zeros(dv_y, v_y)))
    if not isinstance(dt, SymbolicZero):
        slope = power_series(terms, order_t + 1, order_v, t, v_x, v_y)
        tangent = tangent[0] + slope[0] * dt, tangent[1] + slope[1] * dt
    return value, tangent


power_series.defjvp(_power_series_jvp, symbolic_zeros=True)
