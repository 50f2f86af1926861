"""Point-spread functions: checks, coarser pixels, and a Gaussian as a stand-in."""

import math

import numpy as np
from jax.typing import ArrayLike
from scipy import ndimage, special

from lensjax.errors import UserError
from lensjax.modeling.arguments import positive_length
from lensjax.modeling.planes import pixels

_FWHM = 2 * math.sqrt(2 * math.log(2))  # full width at half maximum of a Gaussian, standard deviations
_REACH = 5.0  # standard deviations on each side


def gaussian_psf(fwhm: float, pixel_scale: float) -> np.ndarray:
    """Creates a Gaussian point-spread function, a stand-in for an unknown one.

    Args:
      fwhm: full width at half maximum, arcsec.
      pixel_scale: side of a pixel, arcsec.

    Returns:
      Fraction of a star's flux in each pixel `[odd, odd]`, up to five standard deviations from the center.

    Raises:
      UserError: if a length is not positive.
    """
    sigma = positive_length("fwhm", fwhm) / _FWHM / positive_length("pixel_scale", pixel_scale)
    reach = math.ceil(_REACH * sigma)
    edges = (np.arange(-reach, reach + 2) - 0.5) / sigma
    profile = np.diff(special.ndtr(edges))
    psf = np.outer(profile, profile)
    return psf / psf.sum()


def check_psf(psf: ArrayLike, subpixels: int = 1) -> np.ndarray:
    """Checks a point-spread function and normalizes its sum to 1.

    Args:
      psf: point-spread function `[odd, odd]` in any unit.
      subpixels: its pixels per pixel of the image, along each axis.

    Returns:
      The normalized point-spread function `[odd, odd]`.

    Raises:
      UserError: if it has another shape, values that are not finite, a sum that is not positive, or its
        brightest pixel more than one pixel of the image from the center.
    """
    array = pixels("psf", psf)
    if array.shape[0] % 2 == 0 or array.shape[1] % 2 == 0:
        raise UserError(
            f"psf has shape {array.shape}; expected odd sides, with the star in the central pixel"
        )
    wrong = array.size - np.count_nonzero(np.isfinite(array))
    if wrong:
        raise UserError(f"psf is NaN or infinite in {wrong:,} of {array.size:,} pixels; correct or crop it")
    scale = np.abs(array).max()
    if not (array / (scale or 1)).sum() > 0:
        raise UserError("psf has a sum that is not positive; give one with positive flux")
    peak = np.array(np.unravel_index(np.argmax(array), array.shape))
    if np.abs(peak - np.array(array.shape) // 2).max() > subpixels:
        raise UserError(
            f"psf has shape {array.shape} and is brightest at row {peak[0]}, column {peak[1]}; center the "
            "star in the central pixel"
        )
    return array / scale / (array / scale).sum()


def rebin_psf(psf: np.ndarray, factor: int) -> np.ndarray:
    """Rebins a point-spread function to pixels that are `factor` times larger; the star remains centered.

    Each value is the mean of the original function at the centers of the small pixels; for an even factor, a
    cubic spline interpolates it between pixels.

    Args:
      psf: point-spread function `[odd, odd]`.
      factor: side of the large pixels, in small pixels.

    Returns:
      The point-spread function `[odd, odd]`, which sums to 1.
    """
    for axis in (0, 1):
        half = psf.shape[axis] // 2
        reach = math.ceil(half / factor)
        coarse = factor * np.arange(-reach, reach + 1)
        offsets = np.arange(factor) - (factor - 1) / 2
        positions = half + coarse[:, None] + offsets
        psf = np.apply_along_axis(_block_means, axis, psf, positions)
    return psf / psf.sum()


def _block_means(profile: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Means of the interpolated profile over each row of positions."""
    margin = positions.shape[1] + 4
    padded = np.pad(profile, margin)
    return ndimage.map_coordinates(padded, [positions + margin], order=3, mode="constant").mean(1)
