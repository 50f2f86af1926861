"""Pixels that a lens model cannot describe: cosmic rays, hot and dead pixels, and neighboring galaxies."""

import numpy as np
from scipy import ndimage

from lensjax.modeling.foreground import CORE
from lensjax.modeling.frame import Data, Frame, pixel_distances

# Smallest residual of an artifact, a pixel whose neighbors have too little light for a point source, in
# standard deviations of the noise.
SHARP = 8.0
# Significance of a neighboring galaxy, in standard deviations of the noise: half of this in each pixel of the
# smoothed residual, and three times this for the whole region.
EXTENDED = 5.0
SMALLEST_NEIGHBOR = 0.03  # area of a neighboring galaxy, arcsec^2


def find_artifacts(
    frame: Frame, data: Data, light: np.ndarray, *, center: tuple[float, float], beyond: float
) -> np.ndarray:
    """Finds cosmic rays, hot and dead pixels, and neighboring galaxies beyond the arcs.

    Args:
      frame, data: geometry and values of the pixels.
      light: model of the foreground light and the sky [rows, columns], in units of the data.
      center: position of the lens, arcsec.
      beyond: distance from the lens beyond which extended excess light belongs to a neighbor, arcsec.

    Returns:
      True for pixels to mask [rows, columns].
    """
    residual = (data.image - light) * data.weight
    radius = pixel_distances(frame, center)
    # The point-spread function blurs all light from the sky; a sharper peak is an artifact of the detector.
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    neighbors = ndimage.median_filter(residual, footprint=ring)
    peak = data.psf / data.psf.max()
    middle = peak.shape[0] // 2
    share = float(np.median(peak[middle - 1 : middle + 2, middle - 1 : middle + 2][ring])) if middle else 0.0
    core = radius < CORE
    sharp = (np.abs(residual) > SHARP) & (np.abs(neighbors) < 0.5 * share * np.abs(residual)) & ~core
    smooth = ndimage.gaussian_filter(residual, 1.0)
    regions, number = ndimage.label((smooth > EXTENDED / 2) & (radius > beyond))
    extended = np.zeros_like(sharp)
    for index in range(1, number + 1):
        region = regions == index
        significant = residual[region].sum() / np.sqrt(region.sum()) > 3 * EXTENDED
        if significant and region.sum() * frame.pixel_scale**2 > SMALLEST_NEIGHBOR:
            extended |= region
    extended = ndimage.binary_dilation(extended, np.ones((3, 3)), iterations=2) & (radius > beyond)
    return (sharp | extended) & (data.weight > 0)
