"""The spherical Navarro-Frenk-White profile, with lenstronomy's alpha_Rs and Rs.

All of it comes from Phi(m) = atanh(sqrt(m)) / sqrt(m) at m = 1 - X^2, X = r / Rs, which is smooth at X = 1:
the deflection goes with g = ln(X / 2) + Phi, the convergence with F = (Phi - 1) / m, the potential with
h = ln(X / 2)^2 - m Phi^2. Below X = 1/2 the terms of g and h cancel, and with s = sqrt(1 - X^2) and
L = ln((1 + s) / 2) they are written as (L - (1 - s) ln(X / 2)) / s and L (2 ln(X / 2) - L). From there on
Phi comes from the halving Phi(1 - X^2) = 2 / (1 + X) Phi((1 - X) / (1 + X)), twice, and a short series.

References: Navarro, Frenk & White 1997, arXiv:astro-ph/9611107; Golse & Kneib 2002, arXiv:astro-ph/0112138.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.mass.softening import (
    CORE,
    by_precision,
    offset,
    polynomial,
    positive,
    softened_convergence,
)

AT_RS = 1 - float(np.log(2))  # g at X = 1


def nfw_potential(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    Rs: Float[ArrayLike, ""],
    alpha_Rs: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Potential of a spherical NFW halo.

    Args:
      x, y: image-plane coordinates, arcsec.
      Rs: scale radius, arcsec.
      alpha_Rs: deflection at the scale radius, arcsec.
      center_x, center_y: position of the halo, arcsec.
      core: softening of the distance and of Rs, arcsec.

    Returns:
      The potential, arcsec^2.
    """
    _, _, square = offset(x, y, center_x, center_y, core)
    scale = positive(Rs, core)
    part = _parts(square, scale)
    near = part.small_log * (2 * part.log_half - part.small_log)
    far = part.log_half**2 - (1 - part.far**2) * part.phi**2
    return alpha_Rs * scale / (2 * AT_RS) * jnp.where(part.is_near, near, far)


def nfw_deflection(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    Rs: Float[ArrayLike, ""],
    alpha_Rs: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of a spherical NFW halo.

    Args:
      x, y: image-plane coordinates, arcsec.
      Rs: scale radius, arcsec.
      alpha_Rs: deflection at the scale radius, arcsec.
      center_x, center_y: position of the halo, arcsec.
      core: softening of the distance and of Rs, arcsec.

    Returns:
      The two components of the deflection angle, arcsec.
    """
    dx, dy, square = offset(x, y, center_x, center_y, core)
    scale = positive(Rs, core)
    factor = alpha_Rs / AT_RS / scale * _mean(_parts(square, scale))
    return factor * dx, factor * dy


def nfw_convergence(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    Rs: Float[ArrayLike, ""],
    alpha_Rs: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    core: float = CORE,
) -> Float[Array, "*grid"]:
    """Convergence of a spherical NFW halo; it grows as the logarithm of 1 / r towards the centre.

    Args:
      x, y: image-plane coordinates, arcsec.
      Rs: scale radius, arcsec.
      alpha_Rs: deflection at the scale radius, arcsec.
      center_x, center_y: position of the halo, arcsec.
      core: softening of the distance and of Rs, arcsec.

    Returns:
      The convergence, dimensionless.
    """
    _, _, square = offset(x, y, center_x, center_y, core)
    scale = positive(Rs, core)
    part = _parts(square, scale)
    near = ((part.small_log - part.log_half) / part.root - 1) / part.root**2
    far = _halved(part.far, _halved(part.halfway, polynomial(_odd(part.rest, 3), part.rest)))
    local = jnp.where(part.is_near, near, far) / 2
    factor = alpha_Rs / AT_RS / scale
    return factor * softened_convergence(local, _mean(part), square, core)


class _Parts(NamedTuple):
    """What the profile is made of; near values count where X < 1/2, far ones elsewhere."""

    is_near: Array
    log_half: Array  # ln(X / 2)
    root: Array  # near: s = sqrt(1 - X^2)
    ratio: Array  # near: L / X^2
    small_log: Array  # near: L
    far: Array  # far: X
    halfway: Array  # far: sqrt(2 X / (1 + X)), the X of the halved argument
    rest: Array  # far: the argument halved twice, from -0.18 to 0.11
    phi: Array  # far: Phi


def _parts(square: Array, scale: Array) -> _Parts:
    ratio = jnp.sqrt(square) / scale
    is_near = ratio < 0.5
    near, far = jnp.where(is_near, ratio, 0.25), jnp.where(is_near, 1, ratio)
    root = jnp.sqrt(1 - near**2)
    small = near**2 / (2 * (1 + root))  # (1 - s) / 2, below 0.067: L = ln(1 - small)
    terms = by_precision(square, 6, 12)
    over_square = -polynomial([1 / (n + 1) for n in range(terms)], small) / (2 * (1 + root))
    halfway = jnp.sqrt(2 * far / (1 + far))
    rest = (1 - halfway) / (1 + halfway)
    return _Parts(
        is_near=is_near,
        log_half=jnp.log(ratio / 2),
        root=root,
        ratio=over_square,
        small_log=over_square * near**2,
        far=far,
        halfway=halfway,
        rest=rest,
        phi=4 / ((1 + far) * (1 + halfway)) * polynomial(_odd(rest, 1), rest),
    )


def _mean(part: _Parts) -> Array:
    """The mean of F within X, halved: g / X^2."""
    near = (part.ratio - part.log_half / (1 + part.root)) / part.root
    far = (part.log_half + part.phi) / part.far**2
    return jnp.where(part.is_near, near, far)


def _halved(ratio: Array, inner: Array) -> Array:
    """F at X from F at sqrt(2 X / (1 + X)), without a difference to cancel at X = 1."""
    return (1 + 2 * inner / (1 + ratio)) / (1 + ratio) ** 2


def _odd(variable: Array, first: int) -> list[float]:
    """1 / first, 1 / (first + 2), ...: Phi for 1, and (Phi - 1) over its argument for 3."""
    return [1 / (2 * n + first) for n in range(by_precision(variable, 9, 18))]
