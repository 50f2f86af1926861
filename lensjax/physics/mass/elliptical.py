"""Elliptical power laws, the isothermal one (SIE) among them, as lenstronomy's EPL and SIE.

With z = x + iy from the centre, e = e1 + i e2 and w = z - e conj(z), the deflection of Tessore & Metcalf
2015 (arXiv:1507.01819, eq. 13 and 23) needs no position angle and no axis ratio:

  alpha = (theta_E sqrt(1 - |e|^2) / |w|)^t w F(-conj(e) w / conj(w)),  F(u) = 2F1(1, t/2; 2 - t/2; u),

with t = gamma - 1. So it is smooth at the circle.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.ellipse import bounded, stretched
from lensjax.physics.mass.angular import (
    Complex,
    angular,
    filled,
    mapped,
    product,
    series,
    terms_or_default,
    turned_back,
)
from lensjax.physics.mass.softening import CORE


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
    strength = theta_E * jnp.sqrt(1 - e1**2 - e2**2)
    return isothermal(core, terms, strength, e1, e2, x - center_x, y - center_y)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def isothermal(
    core: float,
    terms: int | None,
    strength: Float[Array, ""],
    e1: Float[Array, ""],
    e2: Float[Array, ""],
    dx: Float[Array, "*grid"],
    dy: Float[Array, "*grid"],
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """`sie_deflection` in the numbers that it is computed from, with its derivative in closed form.

    Args:
      core: softening of the distance, arcsec.
      terms: see `epl_deflection`.
      strength: theta_E sqrt(1 - e1^2 - e2^2), arcsec.
      e1, e2: ellipticity, shorter than 1.
      dx, dy: coordinates from the centre of the lens, arcsec.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    _, _, unit = _direction(dx, dy, e1, e2, core)
    turned = product(unit, angular(unit, jnp.ones((), unit[0].dtype), e1, e2, terms))
    return strength * turned[0], strength * turned[1]


def _isothermal_jvp(
    core: float, terms: int | None, primals: Any, tangents: Any
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """With U = w / |w| and s = strength, d alpha = U F ds + s (F + 2 u D) dU - s U^3 D conj(de).

    D = dF/du = 2 F'(v) / (2 - u)^2, and dU = (dw - U Re(conj(U) dw)) / |w|.
    """
    strength, e1, e2, dx, dy = primals
    by_strength, by_e1, by_e2, by_x, by_y = tangents
    _, radius, unit = _direction(dx, dy, e1, e2, core)
    t, inverse = jnp.ones((), radius.dtype), 1 / radius
    square_of_unit = product(unit, unit)
    u = turned_back(square_of_unit, e1, e2)
    v, weight = mapped(u)
    terms = terms_or_default(terms, radius)
    f, f_by_v = series(terms, 0, 0, t, *v), series(terms, 0, 1, t, *v)
    turned = product(unit, f)

    half = (2 - u[0]) * weight, u[1] * weight  # 1 / (2 - u)
    f_by_u = product(f_by_v, product(half, half))
    slope = 2 * strength * f_by_u[0], 2 * strength * f_by_u[1]
    by_turned = product(u, slope)
    by_unit = strength * f[0] + 2 * by_turned[0], strength * f[1] + 2 * by_turned[1]
    moved_x, moved_y = jnp.zeros_like(dx), jnp.zeros_like(dy)
    parts = []
    if not isinstance(by_strength, SymbolicZero):
        parts.append((turned[0] * by_strength, turned[1] * by_strength))
    if not (isinstance(by_e1, SymbolicZero) and isinstance(by_e2, SymbolicZero)):
        by_e1, by_e2 = filled(by_e1, e1), filled(by_e2, e2)
        moved_x, moved_y = -(by_e1 * dx + by_e2 * dy), by_e1 * dy - by_e2 * dx
        cube = product(product(unit, square_of_unit), slope)
        parts.append(product(cube, (-by_e1, by_e2)))
    if not (isinstance(by_x, SymbolicZero) and isinstance(by_y, SymbolicZero)):
        by_point = stretched(filled(by_x, dx), filled(by_y, dy), e1, e2)
        moved_x, moved_y = moved_x + by_point[0], moved_y + by_point[1]
    along = unit[0] * moved_x + unit[1] * moved_y
    turn = (moved_x - unit[0] * along) * inverse, (moved_y - unit[1] * along) * inverse
    parts.append(product(by_unit, turn))
    value = strength * turned[0], strength * turned[1]
    return value, (sum(part[0] for part in parts), sum(part[1] for part in parts))


isothermal.defjvp(_isothermal_jvp, symbolic_zeros=True)


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
    _, radius, _ = _direction(x - center_x, y - center_y, e1, e2, core)
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
    log_radius, unit = _far_direction(x - center_x, y - center_y, e1, e2, core)
    t = jnp.asarray(gamma, unit[0].dtype) - 1
    turned = product(unit, angular(unit, t, e1, e2, terms))
    strength = _power(theta_E, t, e1, e2, core) * jnp.exp((1 - t) * log_radius)
    return strength * turned[0], strength * turned[1]


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
    square, _, _ = _direction(x - center_x, y - center_y, e1, e2, core)
    t = jnp.asarray(gamma, square.dtype) - 1
    return (2 - t) / 2 * _power(theta_E, t, e1, e2, core) * jnp.exp(-t / 2 * jnp.log(square))


def _direction(
    dx: Array, dy: Array, e1: Array, e2: Array, core: float
) -> tuple[Array, Array, Complex]:
    """|w|^2 and |w|, both softened, and w / |w|."""
    w_x, w_y = stretched(dx, dy, e1, e2)
    square = w_x**2 + w_y**2 + core**2
    radius = jnp.sqrt(square)
    inverse = 1 / radius
    return square, radius, (w_x * inverse, w_y * inverse)


def _far_direction(
    dx: Array, dy: Array, e1: Array, e2: Array, core: float
) -> tuple[Array, Complex]:
    """The logarithm of |w|, softened, and w / |w|, at any distance.

    In units of the point's own distance no square is out of float32's range, nor a product on the way back.
    """
    w_x, w_y = stretched(dx, dy, e1, e2)
    unit = lax.stop_gradient(jnp.maximum(jnp.maximum(jnp.abs(w_x), jnp.abs(w_y)), core))
    v_x, v_y = w_x / unit, w_y / unit
    square = v_x**2 + v_y**2 + (core / unit) ** 2
    inverse = lax.rsqrt(square)
    return 0.5 * jnp.log(square) + jnp.log(unit), (v_x * inverse, v_y * inverse)


def _power(theta_E: ArrayLike, t: Array, e1: Array, e2: Array, core: float) -> Array:
    """(theta_E sqrt(1 - e^2))^t, odd in theta_E and with a finite slope at 0."""
    scale = jnp.asarray(theta_E) * jnp.sqrt(1 - e1**2 - e2**2)
    return scale * jnp.exp((t - 1) / 2 * jnp.log(scale**2 + core**2))
