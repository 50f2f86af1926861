"""Checks and converts images, noise maps and masks."""

from typing import Any

import numpy as np
from jax.typing import ArrayLike

from lensjax.errors import UserError

_MASKING_NOISE = 1e4  # in units of the noise of ordinary pixels
_ORDINARY = 5.0  # percentile of ordinary noise; low, because more than half of the pixels may be masked


def pixels(name: str, values: Any) -> np.ndarray:
    """Converts values to a float64 array with two axes; masked values become NaN.

    Args:
      name: name of the array in messages.
      values: numbers `[rows, columns]`, `[1, rows, columns]` or `[rows, columns, 1]`.

    Returns:
      The array `[rows, columns]`.

    Raises:
      UserError: if the values are not real numbers, have a unit, have a mask of their own that NumPy does not
        apply, or have another shape.
    """
    for attribute in ("unit", "mask"):
        found = getattr(values, attribute, None)
        if found is not None and not callable(found) and not isinstance(values, np.ma.MaskedArray):
            raise UserError(
                f"{name} has a {attribute}; give plain arrays, in the same unit, and the mask separately"
            )
    array = np.ma.asanyarray(values) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise UserError(f"{name} contains {array.dtype} values; expected an array of real numbers")
    array = array.astype(np.float64)
    if isinstance(array, np.ma.MaskedArray):
        array = array.filled(np.nan)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or not array.size:
        raise UserError(f"{name} has shape {array.shape}; expected one plane, (rows, columns)")
    return array


def mask_plane(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """True for valid pixels `[rows, columns]`.

    Args:
      mask: True or 1 for valid pixels, False or 0 for others; masked and NaN values count as 0.
      shape: shape of the image.

    Raises:
      UserError: if the mask is not such an array, or has other values, such as bit flags.
    """
    plane = plane_like("mask", mask, shape)
    plane = np.where(np.isnan(plane), 0, plane)
    if not np.isin(plane, (0, 1)).all():
        raise UserError(
            "mask has values other than 0 and 1, such as bit flags; give 1 for valid pixels, 0 for others"
        )
    return plane > 0


def plane_like(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Converts values as `pixels` does, and checks that they have the shape of the image.

    Args:
      name: name of the array in messages.
      values: numbers, see `pixels`.
      shape: shape of the image.

    Returns:
      The array `[rows, columns]`.

    Raises:
      UserError: if `pixels` rejects the values, or they have another shape.
    """
    array = pixels(name, values)
    if array.shape != shape:
        raise UserError(
            f"{name} has shape {array.shape}, but the image has shape {shape}; give one value per pixel"
        )
    return array


def check_noise(noise: ArrayLike, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Checks a noise map, and replaces the noise of invalid pixels with the median.

    Args:
      noise: standard deviation of each pixel `[rows, columns]`, or one number.
      valid: True for pixels that are valid so far `[rows, columns]`.

    Returns:
      The noise and the valid pixels `[rows, columns]`, and a note if large values mark invalid
      pixels, else "".

    Raises:
      UserError: if the noise of a valid pixel is zero or negative, or the shape differs.
    """
    if np.ndim(noise) == 0:
        noise = np.full(valid.shape, noise)
    noise = plane_like("noise", noise, valid.shape)
    valid = valid & np.isfinite(noise)
    wrong = np.count_nonzero(noise[valid] <= 0)
    if wrong:
        raise UserError(
            f"noise is zero or negative in {wrong:,} of {valid.sum():,} valid pixels; set it to inf or mask "
            "these pixels"
        )
    if not valid.any():
        return noise, valid, ""
    limit = _MASKING_NOISE * np.percentile(noise[valid], _ORDINARY)
    masked = np.count_nonzero(noise[valid] > limit)
    valid &= noise <= limit
    note = f"mask: pixels with noise above {limit:.3g} are invalid: {masked:,}" if masked else ""
    return np.where(valid, noise, np.median(noise[valid])), valid, note
