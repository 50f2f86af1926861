"""Elliptical power laws, the isothermal one (SIE) among them, as lenstronomy's EPL and SIE.

With z = x + iy from the centre, e = e1 + i e2 and w = z - e conj(z), the deflection of Tessore & Metcalf
2015 (arXiv:1507.01819, eq. 13 and 23) needs no position angle and no axis ratio:

  alpha = (theta_E sqrt(1 - |e|^2) / |w|)^t w F(-conj(e) w / conj(w)),  F(u) = 2F1(1, t/2; 2 - t/2; u),

with t = gamma - 1. So it is smooth at the circle. F is summed in powers of v = u / (2 - u): the mapping
puts the branch cut of F, u > 1, outside of the unit circle on both sides, and the terms fall as
(|e| / (2 - |e|))^n in place of |e|^n.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.ellipse import bounded, stretched
from lensjax.physics.mass.softening import CORE, by_precision


def sie_potential(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    e1: Float[ArrayLike, ""],
    e2: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
    terms: int | None = None,
) -> Float[Array, "*grid"]:
    """Potential of a singular isothermal ellipsoid.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, the geometric mean of the critical curve's half axes, arcsec.
      e1, e2: ellipticity, see `ellipticity`.
      center_x, center_y: position of the lens, arcsec.
      core: softening of the distance, arcsec; keeps the centre finite and is no model of a core.
      terms: see `epl_deflection`.

    Returns:
      The potential, arcsec^2.
    """
    alpha_x, alpha_y = sie_deflection(
        x, y, theta_E, e1, e2, center_x=center_x, center_y=center_y, core=core, terms=terms
    )
    return (x - center_x) * alpha_x + (y - center_y) * alpha_y


def sie_deflection(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    e1: Float[ArrayLike, ""],
    e2: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
    terms: int | None = None,
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of a singular isothermal ellipsoid.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, the geometric mean of the critical curve's half axes, arcsec.
      e1, e2: ellipticity, see `ellipticity`; one longer than 0.9999 is taken for 0.9999.
      center_x, center_y: position of the lens, arcsec.
      core: softening of the distance, arcsec; keeps the centre finite and is no model of a core.
      terms: see `epl_deflection`.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    e1, e2 = bounded(e1, e2)
    _, radius, unit_x, unit_y = _direction(x - center_x, y - center_y, e1, e2, core)
    isothermal = jnp.ones((), radius.dtype)
    series_x, series_y = _angular(unit_x, unit_y, isothermal, e1, e2, terms)
    strength = theta_E * jnp.sqrt(1 - e1**2 - e2**2)
    return (
        strength * (unit_x * series_x - unit_y * series_y),
        strength * (unit_x * series_y + unit_y * series_x),
    )


def sie_convergence(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    e1: Float[ArrayLike, ""],
    e2: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Convergence of a singular isothermal ellipsoid: theta_E over twice the elliptical radius.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      e1, e2: ellipticity, see `ellipticity`.
      center_x, center_y: position of the lens, arcsec.
      core: softening of the distance, arcsec.

    Returns:
      The convergence, dimensionless.
    """
    e1, e2 = bounded(e1, e2)
    _, radius, _, _ = _direction(x - center_x, y - center_y, e1, e2, core)
    return theta_E * jnp.sqrt(1 - e1**2 - e2**2) / (2 * radius)


def epl_potential(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    gamma: Float[ArrayLike, ""],
    e1: Float[ArrayLike, ""],
    e2: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
    terms: int | None = None,
) -> Float[Array, "*grid"]:
    """Potential of an elliptical power law.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, the geometric mean of the critical curve's half axes, arcsec.
      gamma: slope of the density in space, above 1 and below 3; 2 is isothermal.
      e1, e2: ellipticity, see `ellipticity`.
      center_x, center_y: position of the lens, arcsec.
      core: softening of the distance, arcsec; keeps the centre finite and is no model of a core.
      terms: see `epl_deflection`.

    Returns:
      The potential, arcsec^2.
    """
    options: dict[str, Any] = {"center_x": center_x, "center_y": center_y}
    alpha_x, alpha_y = epl_deflection(
        x, y, theta_E, gamma, e1, e2, **options, core=core, terms=terms
    )
    return ((x - center_x) * alpha_x + (y - center_y) * alpha_y) / (3 - gamma)


def epl_deflection(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    gamma: Float[ArrayLike, ""],
    e1: Float[ArrayLike, ""],
    e2: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
    terms: int | None = None,
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of an elliptical power law.

    Where gamma is above 2 the deflection grows towards the centre; at the centre itself it is 0, the mean
    of its surroundings. At theta_E = 0 the derivative in theta_E is that of a radius of `core`.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, the geometric mean of the critical curve's half axes, arcsec.
      gamma: slope of the density in space, above 1 and below 3; 2 is isothermal.
      e1, e2: ellipticity, see `ellipticity`; one longer than 0.9999 is taken for 0.9999.
      center_x, center_y: position of the lens, arcsec.
      core: softening of the distance, arcsec; keeps the centre finite and is no model of a core.
      terms: terms of the series, 16 in float32 and 32 in float64 if not given. The relative error is
        about (|e| / (2 - |e|))^terms: in float64 1e-13 for an axis ratio of 0.3 and 1e-9 for 0.2.

    Returns:
      The two components of the deflection angle, arcsec.

    Reference: Tessore & Metcalf 2015, arXiv:1507.01819.
    """
    e1, e2 = bounded(e1, e2)
    log_radius, unit_x, unit_y = _far_direction(x - center_x, y - center_y, e1, e2, core)
    t = jnp.asarray(gamma, unit_x.dtype) - 1
    series_x, series_y = _angular(unit_x, unit_y, t, e1, e2, terms)
    strength = _power(theta_E, t, e1, e2, core) * jnp.exp((1 - t) * log_radius)
    return (
        strength * (unit_x * series_x - unit_y * series_y),
        strength * (unit_x * series_y + unit_y * series_x),
    )


def epl_convergence(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    gamma: Float[ArrayLike, ""],
    e1: Float[ArrayLike, ""],
    e2: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Convergence of an elliptical power law: (3 - gamma) / 2 (theta_E / elliptical radius)^(gamma - 1).

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      gamma: slope of the density in space, above 1 and below 3; 2 is isothermal.
      e1, e2: ellipticity, see `ellipticity`.
      center_x, center_y: position of the lens, arcsec.
      core: softening of the distance, arcsec.

    Returns:
      The convergence, dimensionless.
    """
    e1, e2 = bounded(e1, e2)
    square, _, _, _ = _direction(x - center_x, y - center_y, e1, e2, core)
    t = jnp.asarray(gamma, square.dtype) - 1
    return (2 - t) / 2 * _power(theta_E, t, e1, e2, core) * jnp.exp(-t / 2 * jnp.log(square))


def _direction(
    dx: Array, dy: Array, e1: Array, e2: Array, core: float
) -> tuple[Array, Array, Array, Array]:
    """|w|^2 and |w|, both softened, and the two components of w / |w|."""
    w_x, w_y = stretched(dx, dy, e1, e2)
    square = w_x**2 + w_y**2 + core**2
    radius = jnp.sqrt(square)
    inverse = 1 / radius
    return square, radius, w_x * inverse, w_y * inverse


def _far_direction(
    dx: Array, dy: Array, e1: Array, e2: Array, core: float
) -> tuple[Array, Array, Array]:
    """The logarithm of |w|, softened, and the two components of w / |w|, at any distance.

    In units of the point's own distance no square is out of float32's range, nor a product on the way back.
    """
    w_x, w_y = stretched(dx, dy, e1, e2)
    unit = lax.stop_gradient(jnp.maximum(jnp.maximum(jnp.abs(w_x), jnp.abs(w_y)), core))
    v_x, v_y = w_x / unit, w_y / unit
    square = v_x**2 + v_y**2 + (core / unit) ** 2
    inverse = lax.rsqrt(square)
    return 0.5 * jnp.log(square) + jnp.log(unit), v_x * inverse, v_y * inverse


def _power(theta_E: ArrayLike, t: Array, e1: Array, e2: Array, core: float) -> Array:
    """(theta_E sqrt(1 - e^2))^t, odd in theta_E and with a finite slope at 0."""
    scale = jnp.asarray(theta_E) * jnp.sqrt(1 - e1**2 - e2**2)
    return scale * jnp.exp((t - 1) / 2 * jnp.log(scale**2 + core**2))


def _angular(
    unit_x: Array, unit_y: Array, t: Array, e1: Array, e2: Array, terms: int | None
) -> tuple[Array, Array]:
    """Real and imaginary part of F at u = -conj(e) (w / |w|)^2."""
    turned_x, turned_y = unit_x**2 - unit_y**2, 2 * unit_x * unit_y
    u_x, u_y = -(e1 * turned_x + e2 * turned_y), e2 * turned_x - e1 * turned_y
    # v = u / (2 - u) = u (2 - conj(u)) / |2 - u|^2
    size = u_x**2 + u_y**2
    inverse = 1 / (4 - 4 * u_x + size)
    v_x, v_y = (2 * u_x - size) * inverse, 2 * u_y * inverse
    return _series(by_precision(v_x, 16, 32) if terms is None else terms, 0, 0, t, v_x, v_y)


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
_series = jax.custom_jvp(
    jax.jit(_sum_of_powers, static_argnums=(0, 1, 2)), nondiff_argnums=(0, 1, 2)
)


def _series_jvp(
    terms: int, order_t: int, order_v: int, primals: Any, tangents: Any
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    t, v_x, v_y = primals
    by_t, by_x, by_y = tangents
    value = _series(terms, order_t, order_v, t, v_x, v_y)
    tangent_x, tangent_y = jnp.zeros_like(v_x), jnp.zeros_like(v_x)
    if not (isinstance(by_x, SymbolicZero) and isinstance(by_y, SymbolicZero)):
        by_x, by_y = (
            jnp.zeros_like(v_x) if isinstance(by, SymbolicZero) else by for by in (by_x, by_y)
        )
        slope_x, slope_y = _series(terms, order_t, order_v + 1, t, v_x, v_y)
        tangent_x, tangent_y = slope_x * by_x - slope_y * by_y, slope_x * by_y + slope_y * by_x
    if not isinstance(by_t, SymbolicZero):
        slope_x, slope_y = _series(terms, order_t + 1, order_v, t, v_x, v_y)
        tangent_x, tangent_y = tangent_x + slope_x * by_t, tangent_y + slope_y * by_t
    return value, (tangent_x, tangent_y)


_series.defjvp(_series_jvp, symbolic_zeros=True)
