"""How finely the model is drawn: the image's own pixels or coarser ones."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Level:
    """How finely the model is drawn.

    Attributes:
      shape: rows and columns of the whole image, in its own pixels.
      binning: own pixels on each side of a pixel of this level.
      subpixels: parts of a pixel of this level on each axis at which rays are shot.
    """

    shape: tuple[int, int]
    binning: int
    subpixels: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of this level; the last may reach past the image."""
        return -(-self.shape[0] // self.binning), -(-self.shape[1] // self.binning)


def bin_valid(
    image: Float[Array, "height width"], valid: Float[Array, "height width"], level: Level
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Mean of the valid pixels in each pixel of a level, and how many they are."""
    side, (rows, columns) = level.binning, level.size
    pad = (0, rows * side - image.shape[0]), (0, columns * side - image.shape[1])

    def total(pixels: Array) -> Array:
        return jnp.pad(pixels, pad).reshape(rows, side, columns, side).sum((1, 3))

    number = total(valid)
    return total(image * valid) / jnp.maximum(number, 1), number


def unbin(pixels: Float[Array, "rows columns"], level: Level) -> Float[Array, "height width"]:
    """Each own pixel with the value of the level's pixel that it lies in."""
    wide = jnp.repeat(jnp.repeat(pixels, level.binning, 0), level.binning, 1)
    return wide[: level.shape[0], : level.shape[1]]
