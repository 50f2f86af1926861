"""Correlation of the noise between neighboring pixels, as in drizzled images."""

import dataclasses
from typing import Protocol

import numpy as np
from scipy import signal

from lensjax.errors import UserError
from lensjax.modeling.blank_sky import blank_sky, subtraction_response

_MIN_PAIRS = 500  # of neighboring blank pixels
_SIGNIFICANCE = 2.0  # standard deviations
_FLOOR = 1e-3  # smallest power at any frequency, in units of the mean
_PROJECTIONS = 50  # largest number of iterations toward a positive definite kernel
_FREQUENCIES = 64  # smallest number of frequencies along each axis


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseCorrelation:
    """Covariance of the noise of an image, in units of the noise map.

    The covariance of two pixels is `scatter**2` times the product of their values in the noise map times the
    value of the kernel at their separation.

    Attributes:
      scatter: measured standard deviation of the noise, in units of the noise map.
      kernel: autocorrelation of the noise `[odd, odd]`, 1 at its center; symmetric under reflection through
        the center and positive definite.
    """

    scatter: float
    kernel: np.ndarray

    @property
    def variance_factor(self) -> float:
        """Variance of a mean of many pixels, divided by that for uncorrelated noise as in the noise map."""
        return float(self.scatter**2 * self.kernel.sum())

    def apply(self, columns: np.ndarray) -> np.ndarray:
        """Multiplies images by the covariance of the noise.

        For the Jacobian J of a least-squares fit divided by the noise map, with H = J^T J, the covariance of
        the parameters is H^-1 (J^T C J) H^-1, and this method returns C J.

        Args:
          columns: images divided by the noise map, 0 in invalid pixels `[number, rows, columns]`.

        Returns:
          The products `[number, rows, columns]`.
        """
        return self.scatter**2 * signal.fftconvolve(columns, self.kernel[None], mode="same", axes=(1, 2))

    def bin(self, factor: int) -> "NoiseCorrelation":
        """Correlation of the noise after averaging blocks of pixels.

        Args:
          factor: side of the blocks, pixels.

        Returns:
          The correlation, in units of the noise map that uncorrelated noise would have after averaging.
        """
        side = np.arange(-factor + 1, factor)
        overlap = (factor - np.abs(side)) / factor
        covariance = signal.convolve2d(self.kernel, np.outer(overlap, overlap))
        y, x = (length // 2 for length in covariance.shape)
        coarse = covariance[y % factor :: factor, x % factor :: factor]
        center = covariance[y, x]
        return NoiseCorrelation(self.scatter * float(np.sqrt(center)), _positive_definite(coarse / center))


class _ImageWithNoise(Protocol):
    """The attributes of an observation that `measure_correlation` uses."""

    @property
    def image(self) -> np.ndarray: ...
    @property
    def noise(self) -> np.ndarray: ...
    @property
    def valid(self) -> np.ndarray: ...


def measure_correlation(observation: _ImageWithNoise, reach: int = 3) -> NoiseCorrelation | None:
    """Measures the correlation of the noise from the blank sky of an image.

    Args:
      observation: image, noise map and valid pixels.
      reach: largest distance along each axis at which the correlation is measured, pixels.

    Returns:
      The correlation; None if the image has fewer than 500 pairs of neighboring blank pixels along either
      axis, or these have no scatter.

    Raises:
      UserError: if the reach is not positive.
    """
    if reach < 1:
        raise UserError(f"reach is {reach}; expected a positive number of pixels")
    residual, blank = blank_sky(observation.image / observation.noise, observation.valid)
    residual = np.where(blank, residual, 0.0)
    flags = blank.astype(np.float64)
    pairs = np.round(_lag_sums(flags, reach))
    if min(pairs[reach, reach + 1], pairs[reach + 1, reach]) < _MIN_PAIRS:
        return None
    covariance = _undo_subtraction(_lag_sums(residual, reach) / np.maximum(pairs, 1))
    variance = covariance[reach, reach]
    if not variance > 0:
        return None
    kernel = covariance / variance
    error = np.sqrt((kernel**2).sum() / np.maximum(pairs, 1))
    kernel[np.abs(kernel) < _SIGNIFICANCE * error] = 0
    return NoiseCorrelation(float(np.sqrt(variance)), _positive_definite(kernel))


def _lag_sums(image: np.ndarray, reach: int) -> np.ndarray:
    """Sums of products of pixels at each lag `[2 reach + 1, 2 reach + 1]`."""
    shape = [side + reach for side in image.shape]
    power = np.abs(np.fft.rfft2(image, shape)) ** 2
    lags = np.arange(-reach, reach + 1)
    sums = np.fft.irfft2(power, shape)[np.ix_(lags, lags)]
    return (sums + sums[::-1, ::-1]) / 2


def _undo_subtraction(covariance: np.ndarray) -> np.ndarray:
    """Covariance before the local sky was subtracted, which removes the slowest variations of the noise."""
    side = len(covariance)
    response = subtraction_response(side - 1)
    index = np.arange(side)
    distance = index[:, None] - index + side - 1
    matrix = response[distance[:, None, :, None], distance[None, :, None, :]]
    solved = np.linalg.solve(matrix.reshape(side**2, side**2), covariance.ravel())
    return solved.reshape(covariance.shape)


def _positive_definite(kernel: np.ndarray) -> np.ndarray:
    """A nearby kernel whose power is positive at all frequencies, 1 at the center."""
    y, x = (side // 2 for side in kernel.shape)
    rows, columns = np.arange(-y, y + 1), np.arange(-x, x + 1)
    lags = np.ix_(rows, columns)

    def power(kernel: np.ndarray) -> np.ndarray:
        field = np.zeros((max(_FREQUENCIES, 4 * y + 4), max(_FREQUENCIES, 4 * x + 4)))
        field[lags] = kernel
        return np.fft.fft2(field).real

    for _ in range(_PROJECTIONS):
        spectrum = power(kernel)
        if spectrum.min() >= _FLOOR:
            break
        kernel = np.fft.ifft2(np.maximum(spectrum, _FLOOR)).real[lags]
        kernel = kernel / kernel[y, x]
    missing = max(0.0, _FLOOR - float(power(kernel).min()))
    kernel = kernel.copy()
    kernel[y, x] += missing
    return kernel / (1 + missing)
