"""Pixel and angular coordinates of an image.

x runs along columns and y along rows. The origin is the center of the image, at pixel `(size - 1) / 2` on
each axis.
"""

import itertools
from typing import SupportsIndex

import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from lensjax.physics.checks import as_float, check_image, check_length, check_number, image_shape
from lensjax.physics.types import Size


def pixel_grid(
    size: Size, pixel_scale: float, *, subpixels: SupportsIndex = 1
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Angular coordinates of the pixel centers of an image, or of the centers of subpixels.

    Args:
      size: number of pixels per side, or (rows, columns).
      pixel_scale: pixel size, arcsec.
      subpixels: number of subpixels per pixel along each axis.

    Returns:
      x and y, arcsec, with `subpixels` times as many rows and columns. If the numbers of rows and columns are
      odd, one point is exactly at the origin, where the deflection of a singular lens is 0 by convention.

    Raises:
      ValueError: if `size` or `subpixels` is not a positive whole number, or `pixel_scale` is not positive.
    """
    shape, subpixels = image_shape(size), check_number("subpixels", subpixels)
    check_length("pixel_scale", pixel_scale)
    rows, columns = (
        (jnp.arange(number * subpixels) - (number * subpixels - 1) / 2) * (pixel_scale / subpixels)
        for number in shape
    )
    y, x = jnp.meshgrid(rows, columns, indexing="ij")
    return x, y


def mean_over_subpixels(
    image: Num[ArrayLike, "fine_rows fine_columns"], subpixels: int
) -> Float[Array, "rows columns"]:
    """Mean over the `subpixels` x `subpixels` subpixels of each pixel.

    Args:
      image: one value per subpixel, as on `pixel_grid(..., subpixels=subpixels)`.
      subpixels: number of subpixels per pixel along each axis.

    Returns:
      One value per pixel, in the unit of `image`.

    Raises:
      ValueError: if `subpixels` is not a positive whole number, or the number of rows or columns is not a
        multiple of it.
    """
    image, subpixels = as_float(image), check_number("subpixels", subpixels)
    check_image("image", image)
    if any(length % subpixels for length in image.shape):
        raise ValueError(f"image has shape {image.shape}, which is not a multiple of subpixels={subpixels}")
    # On a CPU, sums of strided slices are ten times as fast as the mean over axes of a reshaped array.
    offsets = itertools.product(range(subpixels), repeat=2)
    parts = [image[row::subpixels, column::subpixels] for row, column in offsets]
    return sum(parts[1:], start=parts[0]) / subpixels**2


def pixel_coordinate(
    angle: Float[Array, "*points"], size: int, pixel_scale: float
) -> Float[Array, "*points"]:
    """Fractional row or column, counted from 0, of an angular coordinate.

    Args:
      angle: x (for a column) or y (for a row), arcsec.
      size: number of pixels along that axis.
      pixel_scale: pixel size, arcsec.

    Returns:
      The row or column, pixels.
    """
    return angle / pixel_scale + (size - 1) / 2


def interpolate(
    image: Num[ArrayLike, "rows columns"],
    x: Float[Array, "*points"],
    y: Float[Array, "*points"],
    pixel_scale: float,
) -> Float[Array, "*points"]:
    """Bilinear interpolation of an image at angular positions.

    Beyond the outermost pixel centers, the image falls to 0 within one pixel.

    Args:
      image: one value per pixel of `pixel_grid`.
      x, y: positions, arcsec.
      pixel_scale: pixel size, arcsec.

    Returns:
      The interpolated values, in the unit of `image`; NaN at positions that are not finite.

    Raises:
      ValueError: if the image does not have two axes, or the pixel size is not positive.
    """
    image = as_float(image)
    check_image("image", image)
    check_length("pixel_scale", pixel_scale)
    rows, columns = image.shape
    coordinates = [pixel_coordinate(y, rows, pixel_scale), pixel_coordinate(x, columns, pixel_scale)]
    return map_coordinates(image, coordinates, order=1, mode="constant")
