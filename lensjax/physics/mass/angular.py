"""The angular part F of an elliptical power law's deflection (`elliptical.py`) as a series, and its slopes.

F(u) = 2F1(1, t/2; 2 - t/2; u) is summed in powers of v = u / (2 - u): the mapping puts the branch cut of F,
u > 1, outside of the unit circle on both sides, and the terms fall as (|e| / (2 - |e|))^n in place of |e|^n.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from lensjax.physics.mass.softening import by_precision

Complex = tuple[Array, Array]  # real and imaginary part


def angular(unit: Complex, t: Array, e1: Array, e2: Array, terms: int | None) -> Complex:
    """F at u = -conj(e) unit^2, for `unit` = w / |w|."""
    v, _ = mapped(turned_back((unit[0] ** 2 - unit[1] ** 2, 2 * unit[0] * unit[1]), e1, e2))
    return series(terms_or_default(terms, v[0]), 0, 0, t, *v)


def terms_or_default(terms: int | None, like: Array) -> int:
    """How many terms of the series are summed in an array's precision, where it is not said."""
    return by_precision(like, 16, 32) if terms is None else terms


def product(a: Complex, b: Complex) -> Complex:
    """Of two complex numbers."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def filled(tangent: Any, primal: Array) -> Array:
    """A tangent as an array, also where it is known to be 0."""
    return jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent


def turned_back(turned: Complex, e1: Array, e2: Array) -> Complex:
    """The argument u = -conj(e) (w / |w|)^2 of F; `turned` is the last factor."""
    turned_x, turned_y = turned
    return -(e1 * turned_x + e2 * turned_y), e2 * turned_x - e1 * turned_y


def mapped(u: Complex) -> tuple[Complex, Array]:
    """The variable v = u / (2 - u) = u (2 - conj(u)) / |2 - u|^2 of the series, and the last factor."""
    size = u[0] ** 2 + u[1] ** 2
    inverse = 1 / (4 - 4 * u[0] + size)
    return ((2 * u[0] - size) * inverse, 2 * u[1] * inverse), inverse


def _coefficients(terms: int, order: int, t: Array) -> Array:
    """The series of F in v, by the differential equation it fulfils, or its derivative in t.

    (n + 1 - t/2) f_n = (3t/2 - 1) f_(n-1) + (n - 2) f_(n-2), and 1 - t/2 more on the right for n = 1.
    """
    if order:
        return jax.jacfwd(lambda t: _coefficients(terms, order - 1, t))(t)
    start = 1 - t / 2
    found = [jnp.ones_like(t), t / (start + 1)]
    for n in range(2, terms):
        found.append(((1.5 * t - 1) * found[-1] + (n - 2) * found[-2]) / (n + start))
    return jnp.stack(found[:terms])


def _sum_of_powers(
    terms: int, order_t: int, order_v: int, t: Array, v_x: Array, v_y: Array
) -> tuple[Array, Array]:
    """Real and imaginary part of sum f_n v^n, or of its derivatives in t and v of the given orders."""
    found = _coefficients(terms, order_t, t)
    coefficients = [found[n] for n in range(terms)]
    for _ in range(order_v):
        coefficients = [n * one for n, one in enumerate(coefficients)][1:]
    # The coefficients are real, so that two real products a term do (Goertzel's recurrence).
    double, square = 2 * v_x, v_x**2 + v_y**2
    last, before = jnp.broadcast_to(coefficients[-1], v_x.shape), jnp.zeros_like(v_x)
    for coefficient in reversed(coefficients[1:-1]):
        last, before = coefficient + double * last - square * before, last
    return coefficients[0] + v_x * last - square * before, v_y * last


# Its derivative in v is such a series again and the one in t too. Said so, the gradient keeps v alone for
# the way back and not each step of the recurrence.
series = jax.custom_jvp(
    jax.jit(_sum_of_powers, static_argnums=(0, 1, 2)), nondiff_argnums=(0, 1, 2)
)


def _series_jvp(
    terms: int, order_t: int, order_v: int, primals: Any, tangents: Any
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    t, v_x, v_y = primals
    by_t, by_x, by_y = tangents
    value = series(terms, order_t, order_v, t, v_x, v_y)
    tangent = jnp.zeros_like(v_x), jnp.zeros_like(v_x)
    if not (isinstance(by_x, SymbolicZero) and isinstance(by_y, SymbolicZero)):
        slope = series(terms, order_t, order_v + 1, t, v_x, v_y)
        tangent = product(slope, (filled(by_x, v_x), filled(by_y, v_y)))
    if not isinstance(by_t, SymbolicZero):
        slope = series(terms, order_t + 1, order_v, t, v_x, v_y)
        tangent = tangent[0] + slope[0] * by_t, tangent[1] + slope[1] * by_t
    return value, tangent


series.defjvp(_series_jvp, symbolic_zeros=True)
