"""Pixels of a fit: the part of an observation around the lens, at the native or a coarser pixel size."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Float

from lensjax.errors import UserError
from lensjax.modeling.observation import Observation
from lensjax.modeling.psf import rebin_psf

SMALLEST = 100  # smallest number of valid pixels of a fit
LARGEST_SIGNAL = 1e15  # largest pixel in units of the noise; chi-square is summed in float32
COARSE_SCALE = 0.1  # approximate side of the binned pixels, arcsec
_MAX_BATCH = 128  # largest number of images that are convolved together; limits the memory


class Frame(NamedTuple):
    """Geometry of the pixels; static under `jit`.

    Attributes:
      rows, columns: number of pixels.
      pixel_scale: side of a pixel, arcsec.
      center_x, center_y: position of the middle of the frame in the image, arcsec.
      psf_size: height and width of the point-spread function, fine pixels; odd.
      subpixels: rays per pixel along each axis.
      psf_subpixels: fine pixels of the point-spread function per pixel; 1 or `subpixels`.
    """

    rows: int
    columns: int
    pixel_scale: float
    center_x: float
    center_y: float
    psf_size: int
    subpixels: int = 1
    psf_subpixels: int = 1


class Data(NamedTuple):
    """Pixel values of a frame, float32.

    Attributes:
      image: [rows, columns], in units of `Prepared.unit`.
      weight: 1 / standard deviation; 0 for pixels that are not used.
      psf: [psf_size, psf_size], sum 1.
    """

    image: Float[np.ndarray, "rows columns"]
    weight: Float[np.ndarray, "rows columns"]
    psf: Float[np.ndarray, "size size"]


def pixel_positions(frame: Frame, margin: int = 0, subpixels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the pixels of a frame.

    Args:
      frame: the pixels.
      margin: number of additional pixels on each side.
      subpixels: positions per pixel along each axis.

    Returns:
      X and y, arcsec, with `(rows + 2 * margin) * subpixels` rows, and columns correspondingly.
    """
    step = frame.pixel_scale / subpixels

    def axis(number: int, center: float) -> np.ndarray:
        total = (number + 2 * margin) * subpixels
        return (np.arange(total) - (total - 1) / 2) * step + center

    x, y = np.meshgrid(axis(frame.columns, frame.center_x), axis(frame.rows, frame.center_y))
    return x, y


def pixel_distances(frame: Frame, center: tuple[float, float]) -> np.ndarray:
    """Distance of each pixel of a frame from a position, arcsec [rows, columns]."""
    x, y = pixel_positions(frame)
    return np.hypot(x - center[0], y - center[1])


def ray_positions(frame: Frame) -> tuple[Array, Array]:
    """X and y of the rays of a frame with its margin, arcsec, float32."""
    x, y = pixel_positions(frame, margin(frame), frame.subpixels)
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def convolve_columns(
    columns: Float[Array, "n fine_rows fine_columns"], psf: Float[Array, "size size"], frame: Frame
) -> Float[Array, "n rows columns"]:
    """Convolves images with the point-spread function and averages the subpixels of each pixel.

    Args:
      columns: images on the frame and a margin of `margin(frame)` pixels, with `frame.subpixels` rays per
        pixel along each axis.
      psf: the point-spread function.
      frame: the pixels.

    Returns:
      The blurred images on the pixels of the frame.
    """
    if columns.shape[0] > _MAX_BATCH:
        return jax.lax.map(
            lambda image: convolve_columns(image[None], psf, frame)[0], columns, batch_size=_MAX_BATCH
        )
    around = margin(frame)
    if frame.psf_subpixels == 1:
        columns = _average(columns, frame.subpixels)
    shape = columns.shape[1:]
    size = tuple(scipy.fft.next_fast_len(length, real=True) for length in shape)
    transfer = jnp.fft.rfft2(psf, s=size)
    blurred = jnp.fft.irfft2(jnp.fft.rfft2(columns, s=size) * transfer[None], s=size)
    # A kernel of odd size is centered on pixel (size - 1) / 2, which shifts the result by as many pixels.
    shift = (frame.psf_size - 1) // 2
    first = around * frame.psf_subpixels + shift
    rows, width = frame.rows * frame.psf_subpixels, frame.columns * frame.psf_subpixels
    inner = blurred[:, first : first + rows, first : first + width]
    return _average(inner, frame.psf_subpixels)


def margin(frame: Frame) -> int:
    """Width, in pixels, of the border from which the point-spread function scatters light into the frame."""
    return math.ceil((frame.psf_size - 1) / 2 / frame.psf_subpixels)


def _average(
    images: Float[Array, "n rows columns"], factor: int
) -> Float[Array, "n coarse_rows coarse_columns"]:
    if factor == 1:
        return images
    parts = [images[:, i::factor, j::factor] for i in range(factor) for j in range(factor)]
    return sum(parts[1:], start=parts[0]) / factor**2


class Prepared(NamedTuple):
    """An observation ready to fit.

    Attributes:
      fine, coarse: frame and data at the native pixel size and at about 0.1 arcsec.
      unit: value of the image that is 1 in the data.
    """

    fine: tuple[Frame, Data]
    coarse: tuple[Frame, Data]
    unit: float


def binning(pixel_scale: float) -> int:
    """Number of native pixels along the side of a binned pixel; 1 for large native pixels.

    Args:
      pixel_scale: side of a native pixel, arcsec.
    """
    return max(1, round(COARSE_SCALE / pixel_scale))


def fitted_square(observation: Observation, radius: float) -> tuple[slice, slice]:
    """Rows and columns that a fit uses; their numbers are rounded down to whole binned pixels.

    Args:
      observation: the observation.
      radius: half the side of the square, arcsec.
    """
    factor = binning(observation.pixel_scale)

    def part(length: int) -> slice:
        count = min(length, round(2 * radius / observation.pixel_scale)) // factor * factor
        start = (length - count) // 2
        return slice(start, start + count)

    rows, columns = observation.image.shape
    return part(rows), part(columns)


def prepare(observation: Observation, *, radius: float) -> Prepared:
    """Cuts out the square around the center of an observation, and also bins it.

    Args:
      observation: the observation.
      radius: half the side of the square, arcsec.

    Returns:
      The native and the binned pixels. A binned pixel is valid if all of its native pixels are.

    Raises:
      UserError: if too few pixels are valid, or one is too bright for float32.
    """
    scale = observation.pixel_scale
    factor = binning(scale)
    window = fitted_square(observation, radius)
    counts = [part.stop - part.start for part in window]
    centers = [
        (part.start + part.stop - length) / 2 * scale
        for part, length in zip(window, observation.image.shape, strict=True)
    ]
    image, noise, valid = observation.image[window], observation.noise[window], observation.valid[window]
    if np.count_nonzero(valid) < SMALLEST:
        raise UserError(
            f"the square of {2 * radius:g} arcsec at the center of the image has only "
            f"{np.count_nonzero(valid)} valid pixels, but a fit needs {SMALLEST}; check the mask, the pixel "
            "scale and the radius"
        )
    unit = float(np.median(noise[valid]))
    valid = valid & np.isfinite(image) & np.isfinite(noise) & (noise > 0)
    brightest = np.max(np.abs(image[valid]) / np.minimum(noise[valid], unit), initial=0)
    if brightest > LARGEST_SIGNAL:
        raise UserError(
            f"a valid pixel is {brightest:.2g} times as bright as the noise; mask it, or check the image and "
            "the noise map"
        )
    image = np.where(valid, image, 0) / unit
    weight = np.where(valid, unit / np.where(valid, noise, 1), 0)
    psf, subpixels = square_psf(observation.psf), observation.psf_subpixels
    rows, columns = counts
    frame = Frame(rows, columns, scale, centers[1], centers[0], psf.shape[0], subpixels, subpixels)
    fine = Data(*(np.asarray(part, np.float32) for part in (image, weight, psf)))
    blocks = (counts[0] // factor, factor, counts[1] // factor, factor)
    variance = np.where(valid, 1 / np.where(valid, weight, 1) ** 2, 0).reshape(blocks).sum((1, 3))
    complete = valid.reshape(blocks).all((1, 3))
    binned = Data(
        np.where(complete, image.reshape(blocks).mean((1, 3)), 0).astype(np.float32),
        np.where(complete, factor**2 / np.sqrt(np.where(complete, variance, 1)), 0).astype(np.float32),
        rebin_psf(psf, factor * observation.psf_subpixels).astype(np.float32),
    )
    binned_frame = Frame(
        counts[0] // factor, counts[1] // factor, scale * factor, centers[1], centers[0], binned.psf.shape[0]
    )
    return Prepared((frame, fine), (binned_frame, binned), unit)


def square_psf(psf: np.ndarray) -> np.ndarray:
    """The point-spread function, padded with zeros to as many rows as columns."""
    rows, columns = ((max(psf.shape) - length) // 2 for length in psf.shape)
    return np.pad(psf, ((rows, rows), (columns, columns)))


def with_weight(data: Data, weight: np.ndarray) -> Data:
    """The same data with other weights."""
    return data._replace(weight=np.asarray(weight, np.float32))
