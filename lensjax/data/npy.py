"""Parses lens images in .npy files: validates them, never unpickles them, and scales them to [0, 1]."""

import functools
import io
import math

import numpy as np
from jaxtyping import Float, Shaped

from lensjax.errors import UserError

MAX_HEADER = 10_000  # NumPy's limit on headers that it parses, bytes
PREAMBLE = 12  # size of magic string, version and header length, bytes
PICKLE_MESSAGE = (
    "contains pickled Python objects, which are never loaded because they can run code; "
    "convert DeepLenseSim's files with lensjax import, or save only the image with "
    "np.save(path, image.astype(float))"
)


def bytes_to_read(image_size: int) -> int:
    """Number of bytes to read from a .npy file: enough for the image, or to detect that the file is invalid.

    This limits the memory for the file, regardless of its header.
    """
    return PREAMBLE + MAX_HEADER + 8 * image_size**2 + 1


def parse_image(data: bytes, image_size: int) -> Float[np.ndarray, "{image_size} {image_size}"]:
    """Parses the image in a .npy file and scales it to the range 0 to 1.

    An image that already has this range is returned unchanged; others are min-max scaled in float64.

    Args:
      data: the file, or its first `bytes_to_read(image_size)` bytes. The array must have the shape
        `(1, h, w)`, `(h, w)` or `(h, w, 1)` and an integer or float type of at most 64 bits.
      image_size: expected height and width, pixels.

    Returns:
      The image, float32 or float64.

    Raises:
      UserError: if the file is not valid. The message does not contain the file's name.
    """
    shape, fortran_order, dtype, offset = parse_header(data)
    if dtype.hasobject:
        raise UserError(PICKLE_MESSAGE)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UserError(f"contains {dtype} values; save it as floats or integers of at most 64 bits")
    _check_shape(shape, image_size)
    expected, found = image_size**2 * dtype.itemsize, len(data) - offset
    if found < expected:
        raise UserError(
            f"truncated: {max(found, 0):,} of {expected:,} bytes of pixels; copy or download it again"
        )
    if found > expected:
        raise UserError("extra bytes after the array; save one image per file with np.save")
    image = np.frombuffer(data, dtype, count=image_size**2, offset=offset)
    image = image.reshape((image_size, image_size), order="F" if fortran_order else "C")
    return min_max_scale(image.astype(dtype.newbyteorder("="), copy=False))


def min_max_scale(image: Shaped[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Scales an image linearly, the smallest pixel to 0 and the largest to 1.

    Raises:
      UserError: if pixels are not finite, or all are equal.
    """
    with np.errstate(invalid="ignore"):
        low, high = image.min(), image.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        count = image.size - np.count_nonzero(np.isfinite(image))
        raise UserError(
            f"{count:,} of {image.size:,} pixels are NaN or infinite; remove the image or "
            "replace them with finite values"
        )
    if low == high:
        raise UserError(
            f"every pixel is {low}, so the image shows no lens and cannot be scaled to [0, 1]; remove it"
        )
    if image.dtype.kind in "iu":
        # Differences of 64-bit integers are correct modulo 2^64, whatever the sign.
        steps = image.astype(np.uint64) - low.astype(np.uint64)
        return steps.astype(np.float64) / float(int(high) - int(low))
    if low == 0 and high == 1:
        return image if image.dtype.itemsize >= 4 else image.astype(np.float32)
    wide = image.astype(np.float64)
    low, high = float(low), float(high)
    if not math.isfinite(high - low):
        wide, low, high = wide / 2, low / 2, high / 2
    return (wide - low) / (high - low)


def parse_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Parses the header of a .npy file.

    Args:
      data: the file, or at least its header.

    Returns:
      Shape of the array, whether it is in Fortran order, its type, and the offset of its data in the file,
      bytes.

    Raises:
      UserError: if the header is not valid. The message does not contain the file's name.
    """
    if not data:
        raise UserError("empty file (0 bytes); copy or download it again")
    if not data.startswith(np.lib.format.MAGIC_PREFIX):
        raise UserError("not a .npy file; convert it with np.save(path, image)")
    length_bytes = 2 if data[6:7] == b"\x01" else 4
    offset = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    if offset > PREAMBLE + MAX_HEADER:
        raise UserError("damaged header; copy or download it again")
    if len(data) < offset:
        raise UserError("truncated within the header; copy or download it again")
    return *_parse_header_text(data[:offset]), offset


@functools.lru_cache(maxsize=64)  # nearly all files of a data set have the same header
def _parse_header_text(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    stream = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream, max_header_size=MAX_HEADER)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream, max_header_size=MAX_HEADER)
    # Malicious headers raise many kinds of errors (SyntaxError, TypeError, RecursionError, ...).
    except Exception as error:
        raise UserError("damaged header; copy or download it again") from error
    raise UserError(
        f"unsupported .npy version {version[0]}.{version[1]}; convert it with np.save(path, image)"
    )


def _check_shape(shape: tuple[int, ...], image_size: int) -> None:
    plane = shape
    if len(shape) == 3 and shape[0] == 1:
        plane = shape[1:]
    elif len(shape) == 3 and shape[2] == 1:
        plane = shape[:2]
    expected = (image_size, image_size)
    if plane == expected:
        return
    message = f"shape {plane}, expected {expected}"
    if len(plane) != 2:
        raise UserError(f"{message} or {(1, *expected)}; save one image per file")
    if plane[0] != plane[1] or plane[0] < 1:
        raise UserError(f"{message}; crop it to a square")
    models = " for Model II to IV images" if plane[0] == 64 else ""
    setting = "config.data.image_size, or --image-size of prepare-tfds"
    raise UserError(f"{message}; set the image size ({setting}) to {plane[0]}{models}")
