"""Multipole of order m >= 2 of an isothermal lens, lenstronomy's MULTIPOLE: deviations from an ellipse.

Reference: Xu et al. 2015, MNRAS 447, 3189, arXiv:1410.3282, appendix B.
"""

import jax.numpy as jnp
from jaxtyping import Array

from lensjax.physics.mass.softening import CORE, softened_offset
from lensjax.physics.types import Grid, Scalar


def multipole_deflection(
    x: Grid,
    y: Grid,
    a_m: Scalar,
    *,
    m: int,
    phi_m: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
) -> tuple[Grid, Grid]:
    """Deflection of a multipole; its modulus does not depend on the distance from the center.

    Args:
      x, y: image-plane coordinates, arcsec.
      a_m: strength, arcsec; relative to the Einstein radius, it is the amplitude of the deviation of the
        convergence from circular symmetry.
      m: order, at least 2.
      phi_m: position angle at which the convergence is largest, radians.
      center_x, center_y: position of the center, arcsec.
      core: softening of the distance, arcsec.

    Returns:
      The two deflection components, arcsec.

    Raises:
      ValueError: if m is less than 2.
    """
    along_x, along_y, cosine, sine, _ = _angles(x, y, m, phi_m, center_x, center_y, core)
    factor = a_m / (1 - m**2)
    return (
        factor * (along_x * cosine + m * along_y * sine),
        factor * (along_y * cosine - m * along_x * sine),
    )


def multipole_potential(
    x: Grid,
    y: Grid,
    a_m: Scalar,
    *,
    m: int,
    phi_m: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
) -> Grid:
    """Potential of a multipole, arcsec^2: a_m r cos(m (phi - phi_m)) / (1 - m^2).

    Arguments as for `multipole_deflection`.
    """
    _, _, cosine, _, radius = _angles(x, y, m, phi_m, center_x, center_y, core)
    return a_m / (1 - m**2) * radius * cosine


def multipole_convergence(
    x: Grid,
    y: Grid,
    a_m: Scalar,
    *,
    m: int,
    phi_m: Scalar,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    core: float = CORE,
) -> Grid:
    """Convergence of a multipole: a_m cos(m (phi - phi_m)) / (2 r).

    Arguments as for `multipole_deflection`.
    """
    _, _, cosine, _, radius = _angles(x, y, m, phi_m, center_x, center_y, core)
    return a_m / 2 * (cosine / radius)


def _angles(
    x: Grid, y: Grid, m: int, phi_m: Scalar, center_x: Scalar, center_y: Scalar, core: float
) -> tuple[Array, Array, Array, Array, Array]:
    """Unit vector from the center, cosine and sine of m (phi - phi_m), and the distance."""
    if m < 2:
        raise ValueError(f"the order of a multipole is {m}; it must be at least 2")
    dx, dy, square = softened_offset(x, y, center_x, center_y, core)
    radius = jnp.sqrt(square)
    along_x, along_y = dx / radius, dy / radius
    cosine, sine = along_x, along_y
    for _ in range(m - 1):
        cosine, sine = cosine * along_x - sine * along_y, sine * along_x + cosine * along_y
    turn_x, turn_y = jnp.cos(m * phi_m), jnp.sin(m * phi_m)
    return along_x, along_y, cosine * turn_x + sine * turn_y, sine * turn_x - cosine * turn_y, radius
