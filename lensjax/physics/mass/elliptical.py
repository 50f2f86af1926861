"""Elliptical power law (EPL) and singular isothermal ellipsoid (SIE), as in lenstronomy.

With z = x + iy from the center, e = e1 + i e2 and w = z - e conj(z), the deflection of Tessore & Metcalf
2015 (arXiv:1507.01819, eq. 13 and 23) needs neither the position angle nor the axis ratio:

  alpha = (theta_E sqrt(1 - |e|^2) / |w|)^t w F(-conj(e) w / conj(w)),  F(u) = 2F1(1, t/2; 2 - t/2; u),

with t = gamma - 1. It is therefore smooth at the circle.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.ellipse import clip_ellipticity, elliptical_coordinates
from lensjax.physics.mass.angular_series import (
    Complex,
    angular_factor,
    complex_product,
    instantiate_zeros,
    number_of_terms,
    power_series,
    series_argument,
    series_variable,
)
from lensjax.physics.mass.softening import CORE
from lensjax.physics.types import Grid, Scalar


def sie_deflection(
    x: Grid,
    y: Grid,
    theta_E: Scalar,
    *,
    e1: Scalar,
    e2: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
    terms: int | None = None,
) -> tuple[Grid, Grid]:
    """Deflection of a singular isothermal ellipsoid.

    Args:
      theta_E: Einstein radius, the geometric mean of the critical curve's semi-axes, arcsec.
      x, y, e1, e2, center_x, center_y, core, terms: as for `epl_deflection`.

    Returns:
      The two deflection components, arcsec.
    """
    e1, e2 = clip_ellipticity(e1, e2)
    strength = theta_E * jnp.sqrt(1 - e1**2 - e2**2)
    return sie_deflection_kernel(core, terms, strength, e1, e2, x - center_x, y - center_y)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def sie_deflection_kernel(
    core: float,
    terms: int | None,
    strength: Float[Array, ""],
    e1: Float[Array, ""],
    e2: Float[Array, ""],
    dx: Grid,
    dy: Grid,
) -> tuple[Grid, Grid]:
    """Kernel of `sie_deflection`, with precomputed arguments and a closed-form derivative.

    Args:
      core: softening of the distance, arcsec.
      terms: number of terms in the series, see `epl_deflection`.
      strength: theta_E sqrt(1 - e1^2 - e2^2), arcsec.
      e1, e2: ellipticity, with modulus below 1.
      dx, dy: coordinates relative to the center of the lens, arcsec.

    Returns:
      The two deflection components, arcsec.
    """
    _, _, unit = _direction(dx, dy, e1, e2, core)
    t = jnp.ones((), unit[0].dtype)
    direction = complex_product(unit, angular_factor(unit, t, e1, e2, terms))
    return strength * direction[0], strength * direction[1]


def _sie_deflection_jvp(
    core: float, terms: int | None, primals: Any, tangents: Any
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """With U = w / |w| and s = strength, d alpha = U F ds + s (F + 2 u D) dU - s U^3 D conj(de).

    D = dF/du = 2 F'(v) / (2 - u)^2, and dU = (dw - U Re(conj(U) dw)) / |w|.
    """
    strength, e1, e2, dx, dy = primals
    d_strength, d_e1, d_e2, d_dx, d_dy = tangents
    _, radius, unit = _direction(dx, dy, e1, e2, core)
    t, inverse_radius = jnp.ones((), radius.dtype), 1 / radius
    unit_squared = complex_product(unit, unit)
    u = series_argument(unit_squared, e1, e2)
    v, weight = series_variable(u)
    terms = number_of_terms(terms, radius)
    F, dF_dv = power_series(terms, 0, 0, t, *v), power_series(terms, 0, 1, t, *v)
    direction = complex_product(unit, F)

    reciprocal = (2 - u[0]) * weight, u[1] * weight  # 1 / (2 - u)
    half_D = complex_product(dF_dv, complex_product(reciprocal, reciprocal))
    s_D = 2 * strength * half_D[0], 2 * strength * half_D[1]
    u_s_D = complex_product(u, s_D)
    by_unit = strength * F[0] + 2 * u_s_D[0], strength * F[1] + 2 * u_s_D[1]
    d_w_x, d_w_y = jnp.zeros_like(dx), jnp.zeros_like(dy)
    parts = []
    if not isinstance(d_strength, SymbolicZero):
        parts.append((direction[0] * d_strength, direction[1] * d_strength))
    if not (isinstance(d_e1, SymbolicZero) and isinstance(d_e2, SymbolicZero)):
        d_e1, d_e2 = instantiate_zeros(d_e1, e1), instantiate_zeros(d_e2, e2)
        d_w_x, d_w_y = -(d_e1 * dx + d_e2 * dy), d_e1 * dy - d_e2 * dx
        cube = complex_product(complex_product(unit, unit_squared), s_D)
        parts.append(complex_product(cube, (-d_e1, d_e2)))
    if not (isinstance(d_dx, SymbolicZero) and isinstance(d_dy, SymbolicZero)):
        d_dx, d_dy = instantiate_zeros(d_dx, dx), instantiate_zeros(d_dy, dy)
        from_position = elliptical_coordinates(d_dx, d_dy, e1, e2)
        d_w_x, d_w_y = d_w_x + from_position[0], d_w_y + from_position[1]
    along = unit[0] * d_w_x + unit[1] * d_w_y
    d_unit = (d_w_x - unit[0] * along) * inverse_radius, (d_w_y - unit[1] * along) * inverse_radius
    parts.append(complex_product(by_unit, d_unit))
    value = strength * direction[0], strength * direction[1]
    return value, (sum(part[0] for part in parts), sum(part[1] for part in parts))


sie_deflection_kernel.defjvp(_sie_deflection_jvp, symbolic_zeros=True)


def sie_potential(
    x: Grid,
    y: Grid,
    theta_E: Scalar,
    *,
    e1: Scalar,
    e2: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
    terms: int | None = None,
) -> Grid:
    """Potential of a singular isothermal ellipsoid, arcsec^2. Arguments as for `sie_deflection`."""
    alpha_x, alpha_y = sie_deflection(
        x, y, theta_E, e1=e1, e2=e2, center_x=center_x, center_y=center_y, core=core, terms=terms
    )
    return (x - center_x) * alpha_x + (y - center_y) * alpha_y


def sie_convergence(
    x: Grid,
    y: Grid,
    theta_E: Scalar,
    *,
    e1: Scalar,
    e2: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
    terms: int | None = None,
) -> Grid:
    """Convergence of a singular isothermal ellipsoid: theta_E over twice the elliptical radius.

    Arguments as for `sie_deflection`; `terms` has no effect, because the convergence needs no series.
    """
    e1, e2 = clip_ellipticity(e1, e2)
    _, radius, _ = _direction(x - center_x, y - center_y, e1, e2, core)
    return theta_E * jnp.sqrt(1 - e1**2 - e2**2) / (2 * radius)


def epl_deflection(
    x: Grid,
    y: Grid,
    theta_E: Scalar,
    *,
    gamma: Scalar,
    e1: Scalar,
    e2: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
    terms: int | None = None,
) -> tuple[Grid, Grid]:
    """Deflection of an elliptical power law.

    For gamma above 2, the deflection grows toward the center; at the center itself it is 0, the mean over its
    surroundings. `core` also keeps the derivative with respect to theta_E finite at theta_E = 0.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec: the mean convergence is 1 within the ellipse whose semi-axes have this
        geometric mean. The ellipse is the critical curve for gamma = 2 only.
      gamma: negative power-law slope of the three-dimensional density, between 1 and 3; 2 is isothermal.
      e1, e2: ellipticity, see `ellipticity`; its modulus is clipped at 0.9999.
      center_x, center_y: position of the lens, arcsec.
      core: softening of the distance, arcsec; keeps the center finite and does not model a physical core.
      terms: number of terms in the series; by default 16 in float32 and 32 in float64. The relative error is
        at most (|e| / (2 - |e|))^terms. In float64 it is below 1e-14 for an axis ratio of 0.3, 1e-10 for 0.2,
        3e-6 for 0.1 and 1e-3 for 0.05 (|e| = 0.9); in float32 1e-5 for 0.2, 1e-3 for 0.1 and 0.02 for 0.05.
        Thinner lenses need more terms: for 0.05, 180 in float64 and 80 in float32.

    Returns:
      The two deflection components, arcsec.

    Reference: Tessore & Metcalf 2015, arXiv:1507.01819.
    """
    e1, e2 = clip_ellipticity(e1, e2)
    log_radius, unit = _far_direction(x - center_x, y - center_y, e1, e2, core)
    t = jnp.asarray(gamma, unit[0].dtype) - 1
    direction = complex_product(unit, angular_factor(unit, t, e1, e2, terms))
    strength = _strength_power(theta_E, t, e1, e2, core) * jnp.exp((1 - t) * log_radius)
    return strength * direction[0], strength * direction[1]


def epl_potential(
    x: Grid,
    y: Grid,
    theta_E: Scalar,
    *,
    gamma: Scalar,
    e1: Scalar,
    e2: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
    terms: int | None = None,
) -> Grid:
    """Potential of an elliptical power law, arcsec^2. Arguments as for `epl_deflection`."""
    center: dict[str, Any] = {"center_x": center_x, "center_y": center_y}
    alpha_x, alpha_y = epl_deflection(
        x, y, theta_E, gamma=gamma, e1=e1, e2=e2, **center, core=core, terms=terms
    )
    return ((x - center_x) * alpha_x + (y - center_y) * alpha_y) / (3 - gamma)


def epl_convergence(
    x: Grid,
    y: Grid,
    theta_E: Scalar,
    *,
    gamma: Scalar,
    e1: Scalar,
    e2: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
    terms: int | None = None,
) -> Grid:
    """Convergence of an elliptical power law: (3 - gamma) / 2 (theta_E / elliptical radius)^(gamma - 1).

    Arguments as for `epl_deflection`; `terms` has no effect, because the convergence needs no series.
    """
    e1, e2 = clip_ellipticity(e1, e2)
    square, _, _ = _direction(x - center_x, y - center_y, e1, e2, core)
    t = jnp.asarray(gamma, square.dtype) - 1
    strength = _strength_power(theta_E, t, e1, e2, core)
    return (2 - t) / 2 * strength * jnp.exp(-t / 2 * jnp.log(square))


def _direction(dx: Array, dy: Array, e1: Array, e2: Array, core: float) -> tuple[Array, Array, Complex]:
    """Softened |w|^2 and |w|, and w / |w|."""
    w_x, w_y = elliptical_coordinates(dx, dy, e1, e2)
    square = w_x**2 + w_y**2 + core**2
    radius = jnp.sqrt(square)
    inverse = 1 / radius
    return square, radius, (w_x * inverse, w_y * inverse)


def _far_direction(dx: Array, dy: Array, e1: Array, e2: Array, core: float) -> tuple[Array, Complex]:
    """Softened ln |w|, and w / |w|, at any distance.

    In units of each point's distance, neither the squares nor the products of the backward pass leave the
    range of float32.
    """
    w_x, w_y = elliptical_coordinates(dx, dy, e1, e2)
    unit = lax.stop_gradient(jnp.maximum(jnp.maximum(jnp.abs(w_x), jnp.abs(w_y)), core))
    v_x, v_y = w_x / unit, w_y / unit
    square = v_x**2 + v_y**2 + (core / unit) ** 2
    inverse = lax.rsqrt(square)
    return 0.5 * jnp.log(square) + jnp.log(unit), (v_x * inverse, v_y * inverse)


def _strength_power(theta_E: ArrayLike, t: Array, e1: Array, e2: Array, core: float) -> Array:
    """(theta_E sqrt(1 - e^2))^t, made odd in theta_E, with a finite slope at 0."""
    scale = jnp.asarray(theta_E) * jnp.sqrt(1 - e1**2 - e2**2)
    return scale * jnp.exp((t - 1) / 2 * jnp.log(scale**2 + core**2))
