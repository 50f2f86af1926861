"""Replacement of bad pixels, which would otherwise set the brightness scale of an image."""

import jax
import numpy as np
from jaxtyping import Float, Shaped

from lensjax.fitting import find_bad_pixels


def repair(image: Shaped[np.ndarray, "height width"]) -> Shaped[np.ndarray, "height width"]:
    """Replaces isolated outliers and a constant border (see `lensjax.fitting.find_bad_pixels`).

    An outlier is replaced by the median of its good neighbors, and a border by the median of all good pixels.
    The border remains constant, so that a lens fit masks it.

    Args:
      image: the image, in any unit. Images with values that are not finite are returned unchanged.

    Returns:
      A repaired copy, or the image itself if it has no bad pixels.
    """
    low, high = image.min(), image.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low == high:
        return image
    pixels = image.astype(np.float64)
    with np.errstate(over="ignore"):
        scaled = (pixels - float(low)) / (float(high) - float(low))
    if not np.isfinite(scaled).all():
        return image
    bad = np.asarray(_find(scaled.astype(np.float32)))
    if not bad.any():
        return image
    repaired = image.copy()
    good = np.where(bad, np.nan, pixels)
    repaired[bad] = _median(good)
    for row, column in np.argwhere(bad):
        neighbors = good[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if np.isfinite(neighbors).sum() > 3:  # an outlier, not a border
            repaired[row, column] = _median(neighbors)
    return repaired


@jax.jit
def _find(image: jax.Array) -> jax.Array:
    return find_bad_pixels(image, jax.numpy.ones(image.shape, bool))


def _median(pixels: Float[np.ndarray, "..."]) -> float:
    """Lower median: the value of one of the pixels, so that counts remain integers."""
    return float(np.nanpercentile(pixels, 50, method="lower"))
