"""Source reconstruction from a lensed image.

Sampling the image at theta - alpha(theta) does not reconstruct the source: beta = theta - alpha is the source
position of light observed at theta, so the brightness at beta must be read at a theta that solves this
equation. Three methods are implemented: the closed form for an isothermal sphere, a fixed-point iteration,
and cloud-in-cell assignment of each pixel's light to the source plane. The images are assumed to be free of
noise and blurring.

x runs along columns and y along rows in both planes, and both grids are centered on the origin.
"""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from lensjax.physics.checks import as_float, check_image, check_length, check_number, image_shape
from lensjax.physics.grid import interpolate, pixel_coordinate, pixel_grid
from lensjax.physics.rays import Deflection, ray_shooting
from lensjax.physics.types import Scalar, Size

Method = Literal["fixed_point", "cloud_in_cell"]

# First step of the iteration, arcsec. At the center of a lens, the deflection is 0, and the iteration would
# stay there; from a symmetry axis it would stay on the axis, which may lead to a saddle point.
FIRST_STEP = (5e-4, 8e-4)
MAX_MISS = 0.1  # largest distance of a ray from its source, relative to its deflection


def sis_image_pair(
    beta_x: Float[Array, "*points"],
    beta_y: Float[Array, "*points"],
    theta_E: Scalar,
    *,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Two images of a point behind an isothermal sphere, theta_E farther out and theta_E farther in.

    The inner image exists only for a source within theta_E of the lens. The image of the point exactly behind
    the lens is a ring; two points of the ring are returned, on the line through the lens along x.

    Args:
      beta_x, beta_y: source-plane positions, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the lens, arcsec.

    Returns:
      (x, y) of the outer image and (x, y) of the inner image, arcsec.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
    """
    dx, dy = beta_x - center_x, beta_y - center_y
    behind = (dx == 0) & (dy == 0)
    radius = jnp.sqrt(jnp.where(behind, 1, dx**2 + dy**2))
    alpha_x, alpha_y = theta_E * jnp.where(behind, 1, dx / radius), theta_E * (dy / radius)
    return (beta_x + alpha_x, beta_y + alpha_y), (beta_x - alpha_x, beta_y - alpha_y)


def sis_source_image(
    image: Num[ArrayLike, "rows columns"],
    pixel_scale: float,
    theta_E: Scalar,
    *,
    source_size: Size,
    source_scale: float,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
) -> Float[Array, "source_rows source_columns"]:
    """Reconstructs the source behind a singular isothermal sphere: the mean brightness of its images.

    Args:
      image: surface brightness.
      pixel_scale: pixel size of the image, arcsec.
      theta_E: Einstein radius, arcsec.
      source_size: number of pixels per side of the source plane, or (rows, columns).
      source_scale: pixel size of the source plane, arcsec.
      center_x, center_y: position of the lens, arcsec.

    Returns:
      Surface brightness on `pixel_grid(source_size, source_scale)`, in the unit of the image. A lensed image
      outside the observed image counts as 0.

    Raises:
      ValueError: if a size or a length is not positive.
    """
    beta_x, beta_y = pixel_grid(source_size, source_scale)
    pair = sis_image_pair(beta_x, beta_y, theta_E, center_x=center_x, center_y=center_y)
    outer, inner = (interpolate(image, *position, pixel_scale) for position in pair)
    has_two = (beta_x - center_x) ** 2 + (beta_y - center_y) ** 2 < jnp.asarray(theta_E) ** 2
    return jnp.where(has_two, (outer + inner) / 2, outer)


def source_image(
    image: Num[ArrayLike, "rows columns"],
    deflection: Deflection,
    pixel_scale: float,
    *,
    source_size: Size,
    source_scale: float,
    method: Method = "fixed_point",
    iterations: int = 100,
) -> Float[Array, "source_rows source_columns"]:
    """Reconstructs the source behind any lens.

    Args:
      image: surface brightness.
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      pixel_scale: pixel size of the image, arcsec.
      source_size: number of pixels per side of the source plane, or (rows, columns).
      source_scale: pixel size of the source plane, arcsec.
      method: "fixed_point" reads the image at `outer_image_position`, which uses one image of each point; it
        is sharp, even where few rays arrive. "cloud_in_cell" averages all image pixels whose rays arrive near
        a point, with the weights of bilinear interpolation. It uses every image, blurs by one pixel of the
        source plane, and leaves pixels without rays at 0, so source pixels should not be smaller than half
        an image pixel.
      iterations: number of fixed-point iterations.

    Returns:
      Surface brightness on `pixel_grid(source_size, source_scale)`, in the unit of the image; NaN where
      "fixed_point" finds no image.

    Raises:
      ValueError: if the method is unknown, or a size, a length or the number of iterations is not positive.
    """
    image = as_float(image)
    check_image("image", image)
    if method == "fixed_point":
        beta_x, beta_y = pixel_grid(source_size, source_scale)
        theta = outer_image_position(deflection, beta_x, beta_y, iterations=iterations)
        return interpolate(image, *theta, pixel_scale)
    if method == "cloud_in_cell":
        rows, columns = image.shape
        x, y = pixel_grid((rows, columns), pixel_scale)
        beta_x, beta_y = ray_shooting(deflection, x, y)
        light, weight = cloud_in_cell(
            image, beta_x, beta_y, source_size=source_size, source_scale=source_scale
        )
        return jnp.where(weight > 0, light / jnp.where(weight > 0, weight, 1), 0)
    raise ValueError(f"unknown method {method!r}; use 'fixed_point' or 'cloud_in_cell'")


def outer_image_position(
    deflection: Deflection,
    beta_x: Float[Array, "*points"],
    beta_y: Float[Array, "*points"],
    *,
    iterations: int = 100,
) -> tuple[Float[Array, "*points"], Float[Array, "*points"]]:
    """Finds one image of each source position by the fixed-point iteration theta = beta + alpha(theta).

    It converges to an image at a minimum of the arrival time, even for the position exactly behind the lens,
    whose image may be any point of a ring. The rate is the larger eigenvalue of d alpha / d theta at the
    image: a few steps suffice for an isothermal sphere, and convergence is slow near critical curves.
    `image_positions` finds all images of a position to machine precision.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      beta_x, beta_y: source-plane positions, arcsec.
      iterations: number of iterations.

    Returns:
      x and y of the image, arcsec. Both are NaN if the iteration does not end near an image, that is, if the
      ray misses its source by more than a tenth of its deflection.

    Raises:
      ValueError: if the number of iterations is not positive.
    """
    beta_x, beta_y = as_float(beta_x), as_float(beta_y)

    def iterate(theta: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        alpha_x, alpha_y = deflection(*theta)
        return (beta_x + alpha_x, beta_y + alpha_y), None

    start = beta_x + FIRST_STEP[0], beta_y + FIRST_STEP[1]
    theta, _ = lax.scan(iterate, start, length=check_number("iterations", iterations))
    alpha_x, alpha_y = lax.stop_gradient(deflection(*theta))
    miss = jnp.hypot(beta_x + alpha_x - theta[0], beta_y + alpha_y - theta[1])
    rounding = 8 * jnp.finfo(miss.dtype).eps * (abs(theta[0]) + abs(theta[1]))
    is_image = miss <= MAX_MISS * jnp.hypot(alpha_x, alpha_y) + lax.stop_gradient(rounding)
    return jnp.where(is_image, theta[0], jnp.nan), jnp.where(is_image, theta[1], jnp.nan)


def cloud_in_cell(
    light: Num[ArrayLike, "*points"],
    x: Float[Array, "*points"],
    y: Float[Array, "*points"],
    *,
    source_size: Size,
    source_scale: float,
) -> tuple[Float[Array, "source_rows source_columns"], Float[Array, "source_rows source_columns"]]:
    """Distributes the light of each point over the four nearest pixels, with bilinear weights.

    It is the transpose of `interpolate`; light beyond the outermost pixels is lost.

    Args:
      light: light of each point, in any unit.
      x, y: position of each point, arcsec.
      source_size: number of pixels per side of the plane, or (rows, columns).
      source_scale: pixel size of the plane, arcsec.

    Returns:
      The light in each pixel, and the sum of its weights.

    Raises:
      ValueError: if the size or the pixel size is not positive.
    """
    light, x, y = as_float(light), as_float(x), as_float(y)
    rows, columns = image_shape(source_size, "source_size")
    check_length("source_scale", source_scale)
    # Clip distant points, so that their indices fit an integer; they are dropped below.
    row = jnp.clip(pixel_coordinate(y, rows, source_scale), -2, rows + 1).ravel()
    column = jnp.clip(pixel_coordinate(x, columns, source_scale), -2, columns + 1).ravel()
    first_row, first_column = jnp.floor(row), jnp.floor(column)
    down, right = row - first_row, column - first_column
    total_light = jnp.zeros((rows, columns), light.dtype)
    total_weight = jnp.zeros((rows, columns), light.dtype)
    for corner_row, row_weight in ((first_row, 1 - down), (first_row + 1, down)):
        for corner_column, column_weight in ((first_column, 1 - right), (first_column + 1, right)):
            inside = (corner_row >= 0) & (corner_row < rows)
            inside &= (corner_column >= 0) & (corner_column < columns)
            # Negative indices would count from the end; their weight is 0.
            weight = jnp.where(inside, row_weight * column_weight, 0)
            index = corner_row.astype(int), corner_column.astype(int)
            total_light = total_light.at[index].add(weight * light.ravel())
            total_weight = total_weight.at[index].add(weight)
    return total_light, total_weight
