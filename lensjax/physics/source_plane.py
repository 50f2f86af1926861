"""The source as it is, from the image that a lens makes of it.

Looking up the image at theta - alpha(theta) does not give the source: beta = theta - alpha says where light
seen at theta comes from, so the brightness of beta is to be read at a theta that solves this equation.
Three ways are here: in closed form, for the isothermal sphere alone; by a fixed point; and by carrying
each pixel's light to where it comes from. The images are taken free of noise and of blurring.

x runs along columns and y along rows in both planes, and both grids are centred on the origin.
"""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.physics.grid import interpolate, pixel_grid, to_pixel
from lensjax.physics.rays import Deflection, inverse_ray_shoot

Method = Literal["fixed_point", "splat"]


def sis_image_pair(
    beta_x: Float[Array, "*points"],
    beta_y: Float[Array, "*points"],
    theta_E: Float[ArrayLike, ""],
    *,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The two images behind a singular isothermal sphere, theta_E further out and theta_E further in.

    The inner image is there only for a source within theta_E of the lens. The image of the point behind
    the lens is a ring; of it, the two points on the line through the lens along x are given.

    Args:
      beta_x, beta_y: source-plane positions, arcsec.
      theta_E: Einstein radius, arcsec.
      center_x, center_y: position of the lens, arcsec.

    Returns:
      x and y of the outer image, and x and y of the inner image, arcsec.

    Reference: Narayan & Bartelmann 1996, "Lectures on Gravitational Lensing".
    """
    dx, dy = beta_x - center_x, beta_y - center_y
    behind = (dx == 0) & (dy == 0)
    radius = jnp.sqrt(jnp.where(behind, 1, dx**2 + dy**2))
    along_x, along_y = theta_E * jnp.where(behind, 1, dx / radius), theta_E * (dy / radius)
    return (beta_x + along_x, beta_y + along_y), (beta_x - along_x, beta_y - along_y)


def sis_source_image(
    image: Float[Array, "rows columns"],
    pixel_scale: float,
    theta_E: Float[ArrayLike, ""],
    *,
    source_size: int | tuple[int, int],
    source_scale: float,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
) -> Float[Array, "source_rows source_columns"]:
    """Source behind a singular isothermal sphere, in closed form: the mean of what its images show.

    Args:
      image: surface brightness.
      pixel_scale: side of a pixel of the image, arcsec.
      theta_E: Einstein radius, arcsec.
      source_size: pixels on each side of the source plane, or its rows and columns.
      source_scale: side of a pixel of the source plane, arcsec.
      center_x, center_y: position of the lens, arcsec.

    Returns:
      Surface brightness on `pixel_grid(source_size, source_scale)`, in the unit of the image's; 0 where
      the outer image is out of the field.
    """
    beta_x, beta_y = pixel_grid(source_size, source_scale)
    outer, inner = sis_image_pair(beta_x, beta_y, theta_E, center_x=center_x, center_y=center_y)
    seen_outside, seen_inside = (interpolate(image, *at, pixel_scale) for at in (outer, inner))
    twice = (beta_x - center_x) ** 2 + (beta_y - center_y) ** 2 < jnp.asarray(theta_E) ** 2
    return jnp.where(twice, (seen_outside + seen_inside) / 2, seen_outside)


def source_image(
    image: Float[Array, "rows columns"],
    deflection: Deflection,
    pixel_scale: float,
    *,
    source_size: int | tuple[int, int],
    source_scale: float,
    method: Method = "fixed_point",
    iterations: int = 100,
) -> Float[Array, "source_rows source_columns"]:
    """Source behind any lens.

    Args:
      image: surface brightness.
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      pixel_scale: side of a pixel of the image, arcsec.
      source_size: pixels on each side of the source plane, or its rows and columns.
      source_scale: side of a pixel of the source plane, arcsec.
      method: "fixed_point" reads the image where `outer_image_position` says, and so uses one image of
        each point; it is sharp, also in places that few rays reach. "splat" takes the mean of all
        pixels whose rays arrive near a point, with the weights of bilinear interpolation; it uses every
        image, blurs by a pixel of the source plane, and leaves pixels that no ray reaches 0, so that
        the source plane's pixels should not be smaller than half the image's.
      iterations: of the fixed point.

    Returns:
      Surface brightness on `pixel_grid(source_size, source_scale)`, in the unit of the image's.

    Raises:
      ValueError: the method is neither of the two.
    """
    if method == "fixed_point":
        beta_x, beta_y = pixel_grid(source_size, source_scale)
        at = outer_image_position(deflection, beta_x, beta_y, iterations=iterations)
        return interpolate(image, *at, pixel_scale)
    if method == "splat":
        rows, columns = image.shape
        x, y = pixel_grid((rows, columns), pixel_scale)
        beta_x, beta_y = inverse_ray_shoot(deflection, x, y)
        light, weight = splat(
            image, beta_x, beta_y, source_size=source_size, source_scale=source_scale
        )
        return jnp.where(weight > 0, light / jnp.where(weight > 0, weight, 1), 0)
    raise ValueError(f"method {method!r} is neither 'fixed_point' nor 'splat'")


def outer_image_position(
    deflection: Deflection,
    beta_x: Float[Array, "*points"],
    beta_y: Float[Array, "*points"],
    *,
    iterations: int = 100,
) -> tuple[Float[Array, "*points"], Float[Array, "*points"]]:
    """One image of each source position, by the fixed point theta = beta + alpha(theta).

    It converges to an image where the arrival time is least, at the rate of the larger eigenvalue of
    d alpha / d theta there: at once for an isothermal sphere alone, slowly near critical curves. For all
    images of a position, each to the last digit, see `image_positions`.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      beta_x, beta_y: source-plane positions, arcsec.
      iterations: how many to do.

    Returns:
      x and y of the image, arcsec.
    """

    def move(theta: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        alpha_x, alpha_y = deflection(*theta)
        return (beta_x + alpha_x, beta_y + alpha_y), None

    theta, _ = lax.scan(move, (beta_x, beta_y), length=iterations)
    return theta


def splat(
    light: Float[Array, "*points"],
    x: Float[Array, "*points"],
    y: Float[Array, "*points"],
    *,
    source_size: int | tuple[int, int],
    source_scale: float,
) -> tuple[Float[Array, "source_rows source_columns"], Float[Array, "source_rows source_columns"]]:
    """Shares each point's light among the four pixels around it, by bilinear weights.

    It is the transpose of `interpolate`; light beyond the outermost pixels is lost.

    Args:
      light: of each point, in any unit.
      x, y: where each point lies, arcsec.
      source_size: pixels on each side of the plane, or its rows and columns.
      source_scale: side of a pixel of the plane, arcsec.

    Returns:
      The light that came to each pixel, and the sum of its weights.
    """
    rows, columns = (source_size, source_size) if isinstance(source_size, int) else source_size
    # Far-off points go where they are dropped, within the range of whole numbers.
    row = jnp.clip(to_pixel(y, rows, source_scale), -2, rows + 1).ravel()
    column = jnp.clip(to_pixel(x, columns, source_scale), -2, columns + 1).ravel()
    first_row, first_column = jnp.floor(row), jnp.floor(column)
    down, right = row - first_row, column - first_column
    light_there = jnp.zeros((rows, columns), light.dtype)
    weight_there = jnp.zeros((rows, columns), light.dtype)
    for corner_row, row_weight in ((first_row, 1 - down), (first_row + 1, down)):
        for corner_column, column_weight in ((first_column, 1 - right), (first_column + 1, right)):
            inside = (corner_row >= 0) & (corner_row < rows)
            inside &= (corner_column >= 0) & (corner_column < columns)
            weight = jnp.where(inside, row_weight * column_weight, 0)
            # Negative indices would count from the end; `weight` is 0 there already.
            at = corner_row.astype(int), corner_column.astype(int)
            light_there = light_there.at[at].add(weight * light.ravel())
            weight_there = weight_there.at[at].add(weight)
    return light_there, weight_there
