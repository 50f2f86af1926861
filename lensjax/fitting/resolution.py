"""Resolutions at which the model is rendered: that of the image, or coarser."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from lensjax.fitting.model import SmoothModel


@dataclasses.dataclass(frozen=True)
class Resolution:
    """Pixels and rays with which the model is rendered.

    Attributes:
      shape: height and width of the image, in pixels of the image.
      binning: side of a rendered pixel, in pixels of the image.
      subpixels: rays per rendered pixel along each axis.
    """

    shape: tuple[int, int]
    binning: int = 1
    subpixels: int = 1

    @classmethod
    def native(cls, model: SmoothModel, shape: tuple[int, ...]) -> "Resolution":
        """Resolution of the image itself, with the number of rays that the model specifies.

        Args:
          model: smooth model.
          shape: height and width of the image, pixels.
        """
        return cls((shape[0], shape[1]), 1, model.subpixels)

    @property
    def size(self) -> tuple[int, int]:
        """Number of rows and columns; the last row and column may extend past the image."""
        return -(-self.shape[0] // self.binning), -(-self.shape[1] // self.binning)


def bin_valid(
    image: Float[Array, "height width"], valid: Float[Array, "height width"], resolution: Resolution
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Mean and number of the valid image pixels in each rendered pixel."""
    side, (rows, columns) = resolution.binning, resolution.size
    pad = (0, rows * side - image.shape[0]), (0, columns * side - image.shape[1])

    def total(pixels: Array) -> Array:
        return jnp.pad(pixels, pad).reshape(rows, side, columns, side).sum((1, 3))

    number = total(valid)
    return total(image * valid) / jnp.maximum(number, 1), number


def unbin(pixels: Float[Array, "rows columns"], resolution: Resolution) -> Float[Array, "height width"]:
    """Expands rendered pixels to the pixels of the image by repetition."""
    wide = jnp.repeat(jnp.repeat(pixels, resolution.binning, 0), resolution.binning, 1)
    return wide[: resolution.shape[0], : resolution.shape[1]]
