"""Images of another size than a classifier's: refused, cut out, or resampled to its pixels."""

import dataclasses

import numpy as np
from jaxtyping import Float, Shaped
from scipy.interpolate import CubicSpline

from lensjax.data.npy import min_max_scale
from lensjax.errors import UserError

_MARGIN = 4  # own pixels around the field that a spline sees


@dataclasses.dataclass(frozen=True)
class Target:
    """What a classifier takes, and what may be done to images to make them so.

    Attributes:
      size: height and width, pixels.
      crop: whether the middle of larger images is cut out.
      zoom: own pixels' scale over that of the classifier's images; None where images are not resampled.
    """

    size: int
    crop: bool = False
    zoom: float | None = None


def fitted(
    image: Shaped[np.ndarray, "height width"], target: Target
) -> Float[np.ndarray, "{target.size} {target.size}"]:
    """The image as the classifier takes it, its smallest pixel 0 and its largest 1.

    Raises:
      UserError: its size is another and may not be changed, or it shows no more than noise: pixels that
        are not finite, or all equal.
    """
    if target.zoom is not None:
        return min_max_scale(resampled(image, target.zoom, target.size))
    size = (target.size, target.size)
    if image.shape != size:
        found = f"shape {image.shape}, expected {size}"
        if min(image.shape) < target.size:
            hint = "--pixel-scale resamples images whose pixels are larger"
            raise UserError(f"{found}; {hint}")
        if not target.crop:
            hint = "--fit-size=crop cuts out the middle, --pixel-scale resamples"
            raise UserError(f"{found}; {hint}")
        image = middle(image, *size)
    return min_max_scale(image)


def middle(
    image: Shaped[np.ndarray, "height width"], height: int, width: int
) -> Shaped[np.ndarray, "new_height new_width"]:
    """The middle of an image, no larger than it; where it cannot be centred, half a pixel up and left."""
    top, left = (
        max(0, have - want) // 2 for have, want in zip(image.shape, (height, width), strict=True)
    )
    return image[top : top + height, left : left + width]


def resampled(
    image: Shaped[np.ndarray, "height width"], zoom: float, size: int
) -> Float[np.ndarray, "{size} {size}"]:
    """The middle of an image on pixels of another scale: the mean brightness over each.

    The flux along an axis is summed up, a cubic spline is laid through the sums, and differences of it are
    the new pixels: flux is conserved, finer pixels are averaged, coarser ones interpolated.

    Args:
      image: brightness.
      zoom: its pixels' side over that of the new pixels.
      size: height and width of the result, new pixels.

    Raises:
      UserError: the image does not cover the result, or its pixels there are not finite.
    """
    side = size / zoom  # of the result, own pixels
    if side > min(image.shape) * (1 + 1e-9):
        raise UserError(
            f"shape {image.shape} covers {min(image.shape) * zoom:.1f} pixels of the run's, "
            f"which needs {size}; cut out a larger field"
        )
    # By an even number of pixels, so that the centre stays where it is.
    excess = [max(0, (have - int(np.ceil(side)) - 2 * _MARGIN) // 2) for have in image.shape]
    rows, columns = (slice(cut, have - cut) for cut, have in zip(excess, image.shape, strict=True))
    part = image[rows, columns].astype(np.float64)
    bad = part.size - np.count_nonzero(np.isfinite(part))
    if bad:
        raise UserError(f"{bad:,} of {part.size:,} pixels are NaN or infinite; leave the image out")
    for axis in (0, 1):
        have = part.shape[axis]
        sums = np.insert(np.cumsum(part, axis), 0, 0, axis)
        edges = have / 2 + (np.arange(size + 1) - size / 2) / zoom
        spline = CubicSpline(np.arange(have + 1), sums, axis)
        part = np.diff(spline(np.clip(edges, 0, have)), axis=axis) * zoom
    return part
