"""Cropping and resampling of images to the size that a classifier needs."""

import dataclasses

import numpy as np
from jaxtyping import Float, Shaped
from scipy.interpolate import CubicSpline

from lensjax.data.npy import min_max_scale
from lensjax.errors import UserError
from lensjax.prediction.repair import repair

FINEST, COARSEST = 0.01, 4.0  # pixel scales of images, divided by the run's
_MARGIN = 4  # input pixels beyond the field of the result that the spline includes


@dataclasses.dataclass(frozen=True)
class TargetSize:
    """Image size of a classifier, and the permitted ways to obtain it.

    Attributes:
      size: height and width, pixels.
      crop: if True, larger images are cropped to their center.
      zoom: pixel scale of the images divided by the classifier's pixel scale; None if images are not
        resampled.
    """

    size: int
    crop: bool = False
    zoom: float | None = None


def find_zoom(pixel_scale: float, run_scale: float, *, has_fit: bool) -> float:
    """Pixel scale of images divided by that of the run.

    Args:
      pixel_scale, run_scale: pixel scales of the images and of the run, arcsec.
      has_fit: whether the run fits lenses.

    Raises:
      UserError: if the pixel scale is NaN or too different from that of the run, or is larger and the run
        fits lenses.
    """
    low, high = FINEST * run_scale, COARSEST * run_scale
    if not low <= pixel_scale <= high:  # also true for NaN
        raise UserError(
            f"--pixel-scale={pixel_scale:g}: must be from {low:g} to {high:g} arcsec for a run with pixels "
            f"of {run_scale:g} arcsec"
        )
    if has_fit and pixel_scale > run_scale * (1 + 1e-9):
        raise UserError(
            f"--pixel-scale={pixel_scale:g}: larger than that of the run, {run_scale:g} arcsec. Interpolated "
            "pixels have correlated noise, to which the run's lens fit does not apply; train on images with "
            "this pixel scale"
        )
    return pixel_scale / run_scale


def match_size(
    image: Shaped[np.ndarray, "height width"], target: TargetSize
) -> Float[np.ndarray, "{target.size} {target.size}"]:
    """Crops or resamples an image to the classifier's size, repairs it and scales it to [0, 1].

    Args:
      image: brightness.
      target: image size of the classifier, and the permitted ways to obtain it.

    Raises:
      UserError: if the size differs and may not be changed, or if pixels are not finite or all equal.
    """
    check_size(image.shape, target)
    if target.zoom is not None:
        return min_max_scale(resample(repair(image), target.zoom, target.size))
    return min_max_scale(repair(crop_center(image, target.size, target.size)))


def check_size(shape: tuple[int, int], target: TargetSize) -> None:
    """Checks that images of a height and width can be cropped or resampled to the classifier's size.

    Raises:
      UserError: if the size differs and may not be changed.
    """
    if target.zoom is not None:
        if target.size / target.zoom > min(shape) * (1 + 1e-9):
            raise UserError(
                f"shape {shape} covers only {min(shape) * target.zoom:.1f} of the run's {target.size} "
                "pixels; use a larger field"
            )
        return
    if shape != (target.size, target.size):
        mismatch = f"shape {shape}, expected {(target.size, target.size)}"
        if min(shape) < target.size:
            raise UserError(f"{mismatch}; use --pixel-scale to resample images with larger pixels")
        if not target.crop:
            raise UserError(f"{mismatch}; use --fit-size=crop to crop or --pixel-scale to resample")


def crop_center(
    image: Shaped[np.ndarray, "height width"], height: int, width: int
) -> Shaped[np.ndarray, "new_height new_width"]:
    """Crops the center of an image; half a pixel toward lower indices if it cannot be exact.

    Args:
      image: the image.
      height, width: size of the result, pixels; axes that are not longer are not cropped.
    """
    top, left = (max(0, have - want) // 2 for have, want in zip(image.shape, (height, width), strict=True))
    return image[top : top + height, left : left + width]


def resample(
    image: Shaped[np.ndarray, "height width"], zoom: float, size: int
) -> Float[np.ndarray, "{size} {size}"]:
    """Resamples the center of an image to another pixel scale; new pixels are means over their area.

    Along each axis, a cubic spline interpolates the cumulative flux, and the new pixels are differences of
    the spline. Flux is conserved: finer input pixels are averaged, coarser input pixels are interpolated.

    Args:
      image: brightness.
      zoom: pixel scale of the image divided by that of the result.
      size: height and width of the result, pixels.

    Raises:
      UserError: if the image does not cover the result, or its pixels there are not finite.
    """
    check_size(image.shape, TargetSize(size, zoom=zoom))
    side = size / zoom  # of the result, in input pixels
    # The same number of pixels is removed on both sides, so that the center stays in place.
    excess = [max(0, (have - int(np.ceil(side)) - 2 * _MARGIN) // 2) for have in image.shape]
    rows, columns = (slice(cut, have - cut) for cut, have in zip(excess, image.shape, strict=True))
    part = image[rows, columns].astype(np.float64)
    bad = part.size - np.count_nonzero(np.isfinite(part))
    if bad:
        raise UserError(f"{bad:,} of {part.size:,} pixels are NaN or infinite; exclude the image")
    for axis in (0, 1):
        have = part.shape[axis]
        cumulative = np.insert(np.cumsum(part, axis), 0, 0, axis)
        edges = have / 2 + (np.arange(size + 1) - size / 2) / zoom
        spline = CubicSpline(np.arange(have + 1), cumulative, axis)
        part = np.diff(spline(np.clip(edges, 0, have)), axis=axis) * zoom
    return part
