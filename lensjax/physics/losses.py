"""Physics losses: deviations of a prediction from lens physics, to be added to a training loss.

Every loss is 0 for the true lens if the data have no noise. None of them determines the lens on its own; each
docstring names the unphysical cases for which the loss is also 0. A loss takes one image, pair or map and
returns a scalar; use `jax.vmap` for batches.
"""

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Num

from lensjax.physics.checks import as_float
from lensjax.physics.grid import interpolate
from lensjax.physics.rays import Deflection, ray_shooting
from lensjax.physics.source_plane import sis_image_pair
from lensjax.physics.types import Scalar


def same_source_loss(
    deflection: Deflection,
    x: Float[Array, " images"],
    y: Float[Array, " images"],
    mask: Bool[Array, " images"] | None = None,
) -> Float[Array, ""]:
    """Scatter of the source positions of several images of one point.

    It is 0 if the lens maps all images to one source position. It is also 0 for a lens that maps everything
    to one point, such as a convergence of 1 everywhere.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      x, y: positions of the images, arcsec.
      mask: True for entries that are images; by default all.

    Returns:
      Mean squared distance of the source positions from their mean, arcsec^2.

    Reference: Kochanek 1991, "The implications of lenses for galaxy structure", ApJ 373, 354.
    """
    x, y = as_float(x), as_float(y)
    is_image = jnp.ones(x.shape, bool) if mask is None else mask
    # Masked entries may be NaN. Replaced before the deflection, they leave its gradient finite.
    x, y = jnp.where(is_image, x, 1), jnp.where(is_image, y, 1)
    number = jnp.maximum(is_image.sum(), 1)
    beta = [jnp.where(is_image, component, 0) for component in ray_shooting(deflection, x, y)]
    squares = (jnp.where(is_image, component - component.sum() / number, 0) ** 2 for component in beta)
    return sum((square.sum() for square in squares), start=jnp.zeros((), x.dtype)) / number


def sis_brightness_loss(
    image: Num[ArrayLike, "rows columns"],
    pixel_scale: float,
    theta_E: Scalar,
    *,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    radii: int = 16,
    angles: int = 64,
) -> Float[Array, ""]:
    """Brightness difference between the two images of each point behind an isothermal sphere.

    Lensing conserves surface brightness, so the loss is 0, up to interpolation error, for the image of any
    source behind the sphere. It is also 0 for an image without features, and it approaches 0 as theta_E does,
    because the two images then coincide; start near a plausible theta_E.

    Args:
      image: surface brightness, with little or no blurring.
      pixel_scale: pixel size, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the lens, arcsec.
      radii, angles: number of circles around the lens in the source plane, with radii up to 0.9 theta_E, and
        number of source positions on each circle.

    Returns:
      Mean squared brightness difference over the mean squared brightness, dimensionless.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
    """
    radius = jnp.asarray(theta_E) * 0.9 * (jnp.arange(radii) + 0.5)[:, None] / radii
    angle = 2 * jnp.pi * jnp.arange(angles)[None] / angles
    beta_x = radius * jnp.cos(angle) + jnp.asarray(center_x)
    beta_y = radius * jnp.sin(angle) + jnp.asarray(center_y)
    pair = sis_image_pair(beta_x, beta_y, theta_E, center_x=center_x, center_y=center_y)
    outer, inner = (interpolate(image, *position, pixel_scale) for position in pair)
    # Scale first, then square: squares of small or large units are out of float32's range.
    largest = lax.stop_gradient(jnp.maximum(jnp.abs(outer).max(), jnp.abs(inner).max()))
    unit = jnp.where(largest == 0, 1, largest)
    outer, inner = outer / unit, inner / unit
    size = jnp.mean(outer**2 + inner**2) / 2
    difference = jnp.mean((outer - inner) ** 2)
    # NaN pixels give NaN.
    return jnp.where(largest == 0, 0, difference / jnp.where(largest == 0, 1, size))


def chi_square_loss(
    image: Num[ArrayLike, "rows columns"],
    model: Num[ArrayLike, "rows columns"],
    variance: Num[ArrayLike, "..."],
    mask: Bool[Array, "rows columns"] | None = None,
) -> Float[Array, ""]:
    """Chi-square per pixel of an image and a model of it, such as a `lensed_image`.

    It is 0 if the model equals the image, and about 1 if they differ by noise of the given variance. It is
    also 0 for a lens without deflection and a source equal to the image.

    Args:
      image: observed image.
      model: model of the image, in the unit of `image`.
      variance: noise variance of each pixel or of all pixels, in the squared unit of `image`; positive.
      mask: True for pixels to include; by default all.

    Returns:
      Mean over the pixels of the squared residual over the variance.
    """
    image, model, variance = as_float(image), as_float(model), as_float(variance)
    weight = jnp.ones_like(image) if mask is None else mask.astype(image.dtype)
    # Masked pixels may have any value and variance.
    variance = jnp.where(weight > 0, variance, 1)
    # Scale first, then square: the variance of small units is out of float32's range.
    residual = jnp.where(weight > 0, image - model, 0) / jnp.sqrt(variance)
    square = weight * residual**2
    return square.sum() / jnp.maximum(weight.sum(), 1)


def curl_loss(
    alpha_x: Float[Array, "rows columns"], alpha_y: Float[Array, "rows columns"], pixel_scale: float
) -> Float[Array, ""]:
    """Squared curl of a free-form deflection, which vanishes for the gradient of a potential.

    It is 0 up to (pixel_scale / scale of the lens)^4 for the deflection of any thin lens, and exactly 0 for
    shear and mass sheets. A rigid rotation by a small angle w gives (2 w)^2.

    Args:
      alpha_x, alpha_y: deflection on a `pixel_grid`, arcsec.
      pixel_scale: pixel size, arcsec.

    Returns:
      Mean square of d alpha_y / dx - d alpha_x / dy, from the circulation around each square of four
      neighboring pixels; dimensionless.
    """
    along_x = (alpha_x[:, 1:] + alpha_x[:, :-1]) / 2
    along_y = (alpha_y[1:] + alpha_y[:-1]) / 2
    circulation = jnp.diff(along_y, axis=1) - jnp.diff(along_x, axis=0)
    return jnp.mean((circulation / pixel_scale) ** 2)


def sampled_convergence(
    alpha_x: Float[Array, "rows columns"], alpha_y: Float[Array, "rows columns"], pixel_scale: float
) -> Float[Array, "rows-1 columns-1"]:
    """Convergence of a free-form deflection: half its flux out of each square of four pixels.

    Args:
      alpha_x, alpha_y: deflection on a `pixel_grid`, arcsec.
      pixel_scale: pixel size, arcsec.

    Returns:
      The convergence at the corners between pixels, dimensionless.
    """
    across_x = (alpha_x[1:] + alpha_x[:-1]) / 2
    across_y = (alpha_y[:, 1:] + alpha_y[:, :-1]) / 2
    return (jnp.diff(across_x, axis=1) + jnp.diff(across_y, axis=0)) / (2 * pixel_scale)


def positivity_loss(convergence: Float[Array, "rows columns"]) -> Float[Array, ""]:
    """Mean squared negative convergence.

    It is 0 for any mass distribution, including no mass. For a free-form deflection, pass the result of
    `sampled_convergence`.

    Args:
      convergence: convergence of each pixel, dimensionless.

    Returns:
      Mean square of the convergence where it is negative, dimensionless.
    """
    return jnp.mean(jnp.minimum(convergence, 0) ** 2)
