"""Checks and conversion of the images, noise and mask of a fit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lensjax.errors import UserError
from lensjax.fitting.noise import Noise, unknown_noise

MIN_SIZE = 3  # pixels; the noise is estimated from second differences


def convert_inputs(images: Any, noise: Noise | None, mask: Any) -> tuple[Any, Noise, Any]:
    """Images in native byte order and at least float32, with one value of the noise for each, and a mask.

    Args:
      images, noise, mask: as for `fit_lens`.

    Returns:
      The images, the noise and the mask of booleans, as NumPy or JAX arrays.

    Raises:
      UserError: if a shape or the dtype of the images is wrong, or a known value of the noise is not positive
        and finite.
    """
    images = _native(images)
    if images.ndim != 4 or images.shape[-1] != 1:
        raise UserError(f"images have shape {images.shape}; expected (batch, height, width, 1)")
    if min(images.shape[1:3]) < MIN_SIZE:
        height, width = images.shape[1:3]
        raise UserError(f"images have {height} x {width} pixels; a fit needs {MIN_SIZE} x {MIN_SIZE} or more")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images have dtype {images.dtype}; convert them with images.astype('float32')")
    if jnp.finfo(images.dtype).bits < 32:
        images = images.astype(np.float32)
    dtype = jnp.result_type(images.dtype)  # float32 for float64 images, unless JAX uses 64 bits
    if noise is None:
        noise = unknown_noise(images.shape[:1], dtype)
    noise = Noise(
        gain=_each("noise.gain", noise.gain, images.shape[:1]).astype(dtype),
        background_rms=_each("noise.background_rms", noise.background_rms, images.shape[:1]).astype(dtype),
        from_counts=_each("noise.from_counts", noise.from_counts, images.shape[:1]).astype(bool),
    )
    for name, value in (("gain", noise.gain), ("background_rms", noise.background_rms)):
        if not isinstance(value, jax.core.Tracer):
            wrong = np.asarray((value <= 0) | (value == np.inf))
            if wrong.any():
                raise UserError(
                    f"noise.{name} is {value[np.argmax(wrong)]:g} for image {np.argmax(wrong)}; expected a "
                    "positive number in the unit of the image, or NaN if unknown"
                )
    if mask is None:
        return images, noise, np.ones(images.shape, bool)
    return images, noise, _each("mask", mask, images.shape) > 0


def _native(values: Any) -> Any:
    """An array in native byte order; JAX rejects others, such as those of FITS files.

    Masked values of a NumPy masked array become NaN.
    """
    if isinstance(values, jax.Array):
        return values
    if isinstance(values, np.ma.MaskedArray):
        dtype = values.dtype if values.dtype.kind == "f" else np.float32  # integers cannot be NaN
        values = np.ma.filled(values.astype(dtype), np.nan)
    array = np.asarray(values)
    return array.astype(array.dtype.newbyteorder("=")) if array.dtype.byteorder == ">" else array


def _each(name: str, values: Any, shape: tuple[int, ...]) -> Any:
    values = _native(values)
    try:
        broadcast = jnp.broadcast_to if isinstance(values, jax.Array) else np.broadcast_to
        return broadcast(values, shape)
    except ValueError:
        raise UserError(f"{name} has shape {values.shape}; expected {shape}") from None
