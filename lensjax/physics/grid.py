"""Pixel and angular coordinates of an image.

x runs along columns and y along rows; the origin is the centre of the image, at pixel
`(size - 1) / 2` on each axis.
"""

import itertools

import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float


def pixel_grid(
    size: int | tuple[int, int], pixel_scale: float, *, subpixels: int = 1
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Angular coordinates of the centres of an image's pixels, or of equal parts of them.

    Args:
      size: pixels on each side of the image, or its rows and columns.
      pixel_scale: side of a pixel, arcsec.
      subpixels: parts that each pixel is divided into on each axis.

    Returns:
      x and y of `subpixels` times as many rows and columns, arcsec.
    """
    shape = (size, size) if isinstance(size, int) else size
    rows, columns = (
        (jnp.arange(number * subpixels) - (number * subpixels - 1) / 2) * (pixel_scale / subpixels)
        for number in shape
    )
    y, x = jnp.meshgrid(rows, columns, indexing="ij")
    return x, y


def bin_mean(
    image: Float[Array, "fine_rows fine_columns"], subpixels: int
) -> Float[Array, "rows columns"]:
    """Mean of each pixel's `subpixels` x `subpixels` parts.

    Args:
      image: one value for each part, as on `pixel_grid(..., subpixels=subpixels)`.
      subpixels: parts that each pixel is divided into on each axis.
    """
    # Sums of strided slices: on a CPU ten times as fast as the mean over axes of a reshaped array.
    offsets = itertools.product(range(subpixels), repeat=2)
    parts = [image[row::subpixels, column::subpixels] for row, column in offsets]
    return sum(parts[1:], start=parts[0]) / subpixels**2


def to_pixel(
    angle: Float[Array, "*points"], size: int, pixel_scale: float
) -> Float[Array, "*points"]:
    """Row or column, counted from 0, of an angular coordinate.

    Args:
      angle: x (for a column) or y (for a row), arcsec.
      size: pixels of the image along that axis.
      pixel_scale: side of a pixel, arcsec.
    """
    return angle / pixel_scale + (size - 1) / 2


def interpolate(
    image: Float[Array, "rows columns"],
    x: Float[Array, "*points"],
    y: Float[Array, "*points"],
    pixel_scale: float,
) -> Float[Array, "*points"]:
    """Bilinear interpolation of an image at angular positions.

    Beyond the outermost pixels' centres it falls to 0 within one pixel, and stays 0.

    Args:
      image: one value for each pixel of `pixel_grid`.
      x, y: positions, arcsec.
      pixel_scale: side of a pixel, arcsec.
    """
    rows, columns = image.shape
    place = [to_pixel(y, rows, pixel_scale), to_pixel(x, columns, pixel_scale)]
    return map_coordinates(image, place, order=1, mode="constant")
