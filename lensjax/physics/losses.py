"""How far a prediction is from obeying lens physics: numbers to add to a training loss.

Each says what is 0 for a physical lens. None alone pins the lens down; the docstrings say what else is 0.
Each takes one image, pair or map and gives one number; `jax.vmap` takes batches.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from lensjax.physics.grid import interpolate
from lensjax.physics.rays import Deflection, inverse_ray_shoot
from lensjax.physics.source_plane import sis_image_pair


def same_source_loss(
    deflection: Deflection,
    x: Float[Array, " images"],
    y: Float[Array, " images"],
    mask: Bool[Array, " images"] | None = None,
) -> Float[Array, ""]:
    """Lens-equation consistency of the images of one point, such as the two of an isothermal sphere.

    0 when the lens carries all images to one source position. It is 0 too for a lens that carries
    everything to one place, such as a convergence of 1 everywhere.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      x, y: positions of the images, arcsec.
      mask: which entries are images; all if not given.

    Returns:
      Mean square distance of the source positions from their mean, arcsec^2.

    Reference: Kochanek 1991, "The implications of lenses for galaxy structure", ApJ 373, 354.
    """
    weight = jnp.ones_like(x) if mask is None else mask.astype(x.dtype)
    number = jnp.maximum(weight.sum(), 1)
    beta = inverse_ray_shoot(deflection, x, y)
    means = [(weight * component).sum() / number for component in beta]
    square = sum(
        ((component - mean) ** 2 for component, mean in zip(beta, means, strict=True)),
        start=jnp.zeros_like(x),
    )
    return (weight * square).sum() / number


def sis_brightness_loss(
    image: Float[Array, "rows columns"],
    pixel_scale: float,
    theta_E: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    radii: int = 16,
    angles: int = 64,
) -> Float[Array, ""]:
    """Whether both images of each point behind an isothermal sphere are equally bright.

    0, up to the interpolation between pixels, for the image of any source behind the sphere: lensing keeps
    surface brightness. It is 0 too for an image without features, and goes to 0 with theta_E, where
    both images are the same place; start near a plausible theta_E.

    Args:
      image: surface brightness, free of blurring or nearly so.
      pixel_scale: side of a pixel, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the lens, arcsec.
      radii, angles: source positions compared, on circles of up to 0.9 theta_E about the lens.

    Returns:
      Mean square difference of the two brightnesses over the mean square of both.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
    """
    radius = jnp.asarray(theta_E) * 0.9 * (jnp.arange(radii) + 0.5)[:, None] / radii
    angle = 2 * jnp.pi * jnp.arange(angles)[None] / angles
    beta_x = radius * jnp.cos(angle) + jnp.asarray(center_x)
    beta_y = radius * jnp.sin(angle) + jnp.asarray(center_y)
    places = sis_image_pair(beta_x, beta_y, theta_E, center_x=center_x, center_y=center_y)
    outer, inner = (interpolate(image, *place, pixel_scale) for place in places)
    size = jnp.mean(outer**2 + inner**2) / 2
    difference = jnp.mean((outer - inner) ** 2)
    return jnp.where(size > 0, difference / jnp.where(size > 0, size, 1), 0)


def relensing_loss(
    image: Float[Array, "rows columns"],
    relensed: Float[Array, "rows columns"],
    variance: Float[ArrayLike, "..."],
    mask: Bool[Array, "rows columns"] | None = None,
) -> Float[Array, ""]:
    """Chi-square per pixel of an image less what `relens` makes of a source, blurred or not.

    0 when lens and source make the image exactly, about 1 when they make it up to noise of the given
    variance. It is 0 too for a lens that bends nothing and a source that is the image itself.

    Args:
      image: what was seen.
      relensed: what the lens makes of the source, in the same unit.
      variance: of the noise in each pixel or in all, in that unit squared; above 0.
      mask: pixels to count; all if not given.

    Returns:
      The mean over the pixels of residual squared over variance.
    """
    weight = jnp.ones_like(image) if mask is None else mask.astype(image.dtype)
    square = weight * (image - relensed) ** 2 / variance
    return square.sum() / jnp.maximum(weight.sum(), 1)


def curl_loss(
    alpha_x: Float[Array, "rows columns"],
    alpha_y: Float[Array, "rows columns"],
    pixel_scale: float,
) -> Float[Array, ""]:
    """Curl of a free-form deflection: a thin lens's deflection is the gradient of a potential.

    0 up to (pixel_scale over the lens's scale)^4 for the deflection of any thin lens, exactly 0 for shear
    and convergence sheets; a deflection that turns about a point by the angle w everywhere has (2 w)^2.

    Args:
      alpha_x, alpha_y: deflection on a `pixel_grid`, arcsec.
      pixel_scale: side of a pixel, arcsec.

    Returns:
      Mean square of d alpha_y / dx - d alpha_x / dy, as the circulation around each square of four
      neighbouring pixels; dimensionless.
    """
    along_x = (alpha_x[:, 1:] + alpha_x[:, :-1]) / 2
    along_y = (alpha_y[1:] + alpha_y[:-1]) / 2
    circulation = jnp.diff(along_y, axis=1) - jnp.diff(along_x, axis=0)
    return jnp.mean((circulation / pixel_scale) ** 2)


def sampled_convergence(
    alpha_x: Float[Array, "rows columns"],
    alpha_y: Float[Array, "rows columns"],
    pixel_scale: float,
) -> Float[Array, "rows-1 columns-1"]:
    """Convergence of a free-form deflection: half its flux out of each square of four pixels.

    Args:
      alpha_x, alpha_y: deflection on a `pixel_grid`, arcsec.
      pixel_scale: side of a pixel, arcsec.

    Returns:
      The convergence between the pixels, dimensionless.
    """
    across_x = (alpha_x[1:] + alpha_x[:-1]) / 2
    across_y = (alpha_y[:, 1:] + alpha_y[:, :-1]) / 2
    return (jnp.diff(across_x, axis=1) + jnp.diff(across_y, axis=0)) / (2 * pixel_scale)


def positivity_loss(convergence: Float[Array, "rows columns"]) -> Float[Array, ""]:
    """Negative mass: mean square of a convergence where it is below 0.

    0 for any distribution of mass, none included. For a free-form deflection give what
    `sampled_convergence` makes of it.

    Args:
      convergence: of each pixel, dimensionless.
    """
    return jnp.mean(jnp.minimum(convergence, 0) ** 2)
