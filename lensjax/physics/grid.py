"""Pixel and angular coordinates of an image.

x runs along columns and y along rows; the origin is the centre of the image, at pixel
`(size - 1) / 2` on each axis.
"""

import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float


def pixel_grid(
    size: int, pixel_scale: float, *, subpixels: int = 1
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Angular coordinates of the centres of an image's pixels, or of equal parts of them.

    Args:
      size: pixels on each side of the image.
      pixel_scale: side of a pixel, arcsec.
      subpixels: parts that each pixel is divided into on each axis.

    Returns:
      x and y of `size * subpixels` rows and columns, arcsec.
    """
    number = size * subpixels
    axis = (jnp.arange(number) - (number - 1) / 2) * (pixel_scale / subpixels)
    y, x = jnp.meshgrid(axis, axis, indexing="ij")
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
      size: pixels on each side of the image.
      pixel_scale: side of a pixel, arcsec.
    """
    return angle / pixel_scale + (size - 1) / 2
