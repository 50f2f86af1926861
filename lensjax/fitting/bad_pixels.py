"""Pixels that cannot be light from the sky: isolated outliers and a constant border."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lensjax.fitting.types import Image, Mask

# The brightest neighbor of a point source's brightest pixel, for the narrowest Gaussian point-spread function
# considered, of standard deviation 0.8 pixels, has exp(-1 / (2 * 0.8^2)) = 1 / 2.2 of its brightness.
_SHARPEST = 2.2
_NUM_SIGMA = 10.0
_CONTRAST_SHARE = 0.05


def find_bad_pixels(image: Image, valid: Mask) -> Mask:
    """Finds isolated outliers and a constant border, such as hot and dead pixels and a border of zeros.

    A bright outlier exceeds the second-brightest of its eight neighbors by more than a point-spread function
    permits plus a margin: ten standard deviations of the noise and 5 % of the contrast of the image. A faint
    outlier is below the second-faintest neighbor by more than this margin. Pixels with fewer than eight valid
    neighbors, such as those at the edges, are compared with the brightest and the faintest neighbor. Clusters
    of more than two bad pixels are not found.

    Args:
      image: the image, in any unit.
      valid: True for valid pixels; the others are ignored.

    Returns:
      True for bad pixels among the valid ones.
    """
    image = jax.lax.stop_gradient(image)
    bad = valid & constant_border(image)
    return bad | _outliers(image, valid & ~bad)


def constant_border(image: Image) -> Mask:
    """Finds rows and columns at the edges of an image whose pixels are all equal.

    Args:
      image: the image.

    Returns:
      True for the pixels of the border; False everywhere if the border would be the whole image.
    """

    def leading(lines: Array) -> Array:
        constant = (lines == lines[:, :1]).all(1)
        return jnp.cumprod(constant) + jnp.cumprod(constant[::-1])[::-1] > 0

    border = leading(image)[:, None] | leading(image.T)[None, :]
    return border & ~border.all()


def _outliers(image: Array, valid: Array) -> Array:
    height, width = image.shape
    number = jnp.pad(valid, 1).astype(image.dtype)
    bright = [jnp.full_like(image, -jnp.inf)] * 2  # the two brightest neighbors
    faint = [jnp.full_like(image, jnp.inf)] * 2
    neighbors = jnp.zeros_like(image)
    padded = jnp.pad(image, 1)
    for row, column in [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]:
        part = (slice(row, row + height), slice(column, column + width))
        high = jnp.where(number[part] > 0, padded[part], -jnp.inf)
        low = jnp.where(number[part] > 0, padded[part], jnp.inf)
        bright = [jnp.maximum(bright[0], high), jnp.maximum(bright[1], jnp.minimum(bright[0], high))]
        faint = [jnp.minimum(faint[0], low), jnp.minimum(faint[1], jnp.maximum(faint[0], low))]
        neighbors = neighbors + number[part]
    highest = jnp.where(neighbors == 8, bright[1], bright[0])
    lowest = jnp.where(neighbors == 8, faint[1], faint[0])
    usable = valid & jnp.isfinite(highest)
    # Every third row and column is enough for the levels of sky, source and noise.
    sample = jnp.where(usable, image, jnp.nan)[1:-1:3, 1:-1:3]
    middle = ((highest + lowest) / 2)[1:-1:3, 1:-1:3]
    sky, peak = jnp.nanpercentile(sample, jnp.asarray([10.0, 99.0]))
    sigma = 1.4826 * jnp.nanmedian(jnp.abs(sample - middle))
    margin = _NUM_SIGMA * sigma + _CONTRAST_SHARE * (peak - sky)
    too_bright = image - sky > _SHARPEST * jnp.maximum(highest - sky, 0) + margin
    too_faint = image < lowest - margin
    return usable & (too_bright | too_faint)
