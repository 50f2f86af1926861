"""Pixels of blank sky, and the noise that is measured in them."""

import math
from collections.abc import Callable

import numpy as np
from scipy import interpolate, ndimage

from lensjax.errors import UserError

_CENTER = 0.25  # radius of the region of the lens, in units of the shorter side
_SMOOTHING = 1.5  # pixels; faint sources are found in a smoothed image
_DETECTION = 4.0  # standard deviations of the smoothed image
_GROWTH = 4  # pixels that are excluded around each source
_OUTLIER = 5.0  # standard deviations of the image
_SKY_SMOOTHING = 12.0  # standard deviation of the weights of the local sky, pixels
_RIDGE = 1e-3  # smallest information on a coefficient of the local sky, relative to that without a mask
_ROUNDS = 10  # of source detection, at most
_MIN_PIXELS = 100
# At a distance of _FAR pixels, the correlation of noise is below _FAR_CORRELATION, that of galaxies above.
_FAR, _FAR_CORRELATION = 3, 0.25


def blank_sky(image: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the pixels without sources and subtracts the local sky.

    Pixels near the center, where the lens is, are not blank.

    Args:
      image: brightness `[rows, columns]`, with about the same noise in all pixels of the sky; values of
        invalid pixels must be finite.
      valid: True for valid pixels `[rows, columns]`.

    Returns:
      The image minus the sky, and True for blank pixels, both `[rows, columns]`. No pixel is blank if fewer
      than 100 would be, or if they contain smooth light rather than noise.
    """
    y, x = (np.arange(side) - (side - 1) / 2 for side in image.shape)
    usable = valid & (np.hypot(y[:, None], x) >= _CENTER * min(image.shape))
    blank, no_pixels, residual = usable, np.zeros_like(valid), image
    smooth_valid = _smoothing(valid, _SMOOTHING)
    for _ in range(_ROUNDS):
        if np.count_nonzero(blank) < _MIN_PIXELS:
            return residual, no_pixels
        residual = image - _local_sky(image, blank)
        smooth = smooth_valid(residual)
        sources = valid & (np.abs(smooth) > _DETECTION * robust_scatter(smooth[blank]))
        sources = ndimage.binary_dilation(sources, iterations=_GROWTH)
        sources |= np.abs(residual) > _OUTLIER * robust_scatter(residual[blank])
        previous, blank = blank, usable & ~sources
        if np.array_equal(blank, previous):
            break
    if np.count_nonzero(blank) < _MIN_PIXELS:
        return residual, no_pixels
    residual = image - _local_sky(image, blank)
    return residual, no_pixels if _is_smooth(np.where(blank, residual, 0.0), blank) else blank


def subtraction_response(reach: int) -> np.ndarray:
    """Autocovariance of white noise of variance 1 after the subtraction of the local sky.

    Args:
      reach: largest lag, pixels.

    Returns:
      The autocovariance `[2 reach + 1, 2 reach + 1]`, far from masked pixels.
    """
    lag = np.arange(-reach, reach + 1)
    square = (lag[:, None] ** 2 + lag**2) / _SKY_SMOOTHING**2
    # Far from masked pixels, the local sky is a convolution with a kernel whose Fourier transform is
    # (1 + s) exp(-s) with s = k^2 / 2, for lengths in units of the smoothing.
    once = (2 - square / 2) * np.exp(-square / 2) / (2 * np.pi)
    twice = (5 / 2 - square / 2 + square**2 / 64) * np.exp(-square / 4) / (4 * np.pi)
    return (square == 0) + (twice - 2 * once) / _SKY_SMOOTHING**2


def robust_scatter(values: np.ndarray) -> float:
    """Standard deviation of normally distributed values, from the median absolute deviation."""
    return float(1.482602 * np.median(np.abs(values - np.median(values))))


def estimate_noise(
    image: np.ndarray, valid: np.ndarray, electrons: float | None = None
) -> tuple[np.ndarray, str]:
    """Estimates the noise of an image from the scatter of its blank sky.

    Args:
      image: brightness `[rows, columns]`; values of invalid pixels must be finite.
      valid: True for valid pixels `[rows, columns]`.
      electrons: electrons per unit of the image, for the photon noise of sources; None if unknown.

    Returns:
      The standard deviation of each pixel `[rows, columns]`, and a note that describes the estimate.

    Raises:
      UserError: if the image has no blank sky, or its sky has no scatter.
    """
    residual, blank = blank_sky(image, valid)
    if not blank.any():
        raise UserError(
            "noise cannot be estimated: the image has no blank sky; give a noise map or a larger image"
        )
    scatter = robust_scatter(residual[blank])
    if not scatter > 0:
        raise UserError("noise cannot be estimated: the blank sky has no scatter; give a noise map")
    note = f"noise estimated: {scatter:.4g} per pixel from {np.count_nonzero(blank):,} pixels of blank sky"
    if electrons is None:
        return np.full(image.shape, scatter), f"{note}, without the photon noise of sources"
    flux = np.maximum(image - np.median(image[blank]), 0)
    return np.sqrt(scatter**2 + flux / electrons), (
        f"{note}, and photon noise for {electrons:.6g} electrons per unit"
    )


def _is_smooth(residual: np.ndarray, blank: np.ndarray) -> bool:
    """Returns whether pixels at the distance `_FAR` along the axes are too similar for noise."""
    products, pairs = 0.0, 0
    for values, flags in ((residual, blank), (residual.T, blank.T)):
        products += (values[_FAR:] * values[:-_FAR]).sum()
        pairs += int(np.count_nonzero(flags[_FAR:] & flags[:-_FAR]))
    variance = (residual**2).sum() / np.count_nonzero(blank)
    return bool(products > _FAR_CORRELATION * variance * pairs)


def _smoothing(weight: np.ndarray, sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that computes Gaussian-weighted means of the pixels in which `weight` is True.

    Far from these pixels, the means decrease to 0.
    """

    def blur(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(np.where(weight, image, 0.0), sigma, mode="constant")

    norm = np.maximum(blur(np.ones(weight.shape)), 0.05)
    return lambda image: blur(image) / norm


def _local_sky(image: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Quadratic polynomial, fitted to the blank pixels around each pixel with Gaussian weights.

    Unlike a local mean, it is not biased by a gradient at the edge of the blank region.
    """
    powers = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    pixels = [np.arange(side) for side in image.shape]
    # The local sky varies slowly: it is computed at some positions and interpolated.
    nodes = [np.linspace(0, side - 1, max(4, math.ceil(3 * side / _SKY_SMOOTHING))) for side in image.shape]
    filters = []
    for node, pixel in zip(nodes, pixels, strict=True):
        offset = (pixel - node[:, None]) / _SKY_SMOOTHING
        weight = np.exp(-(offset**2) / 2) / (np.sqrt(2 * np.pi) * _SKY_SMOOTHING)
        filters.append([weight * offset**power for power in range(5)])

    def moments(values: np.ndarray, largest: int) -> dict[tuple[int, int], np.ndarray]:
        along_y = [each @ values for each in filters[0]]
        return {
            (i, j): along_y[i] @ filters[1][j].T for i in range(largest + 1) for j in range(largest + 1 - i)
        }

    of_blank = moments(blank.astype(np.float64), 4)
    median = np.median(image[blank])
    of_image = moments(np.where(blank, image - median, 0.0), 2)
    normal = np.stack([np.stack([of_blank[i + k, j + m] for k, m in powers], -1) for i, j in powers], -2)
    right = np.stack([of_image[power] for power in powers], -1)
    solved = np.linalg.solve(normal + _RIDGE * np.eye(len(powers)), right[..., None])[..., 0, 0]
    return median + interpolate.RectBivariateSpline(*nodes, solved)(*pixels)
