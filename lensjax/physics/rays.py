"""The lens equation: where a ray seen at theta leaves the source plane."""

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.mass import sis_deflection


@jax.jit
def lens_equation(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    alpha_x: Float[Array, "*grid"],
    alpha_y: Float[Array, "*grid"],
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Source-plane position beta = theta - alpha(theta).

    Args:
      x, y: image-plane coordinates, arcsec.
      alpha_x, alpha_y: deflection there, arcsec.

    Returns:
      The two components of beta, arcsec.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing", eq. 13.
    """
    return x - alpha_x, y - alpha_y


@jax.jit
def sis_lens_equation(
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
    theta_E: Float[ArrayLike, ""],
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Source-plane position behind a singular isothermal sphere.

    Args:
      x, y: image-plane coordinates, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the lens, arcsec.

    Returns:
      The two components of beta, arcsec.
    """
    alpha = sis_deflection(x, y, theta_E, center_x=center_x, center_y=center_y)
    return lens_equation(x, y, *alpha)
