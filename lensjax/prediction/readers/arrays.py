"""Images in .npy files: single images, or stacks that are read one image at a time. Nothing is unpickled."""

import math
from collections.abc import Iterator
from io import BufferedIOBase

import numpy as np

from lensjax.data.npy import MAX_HEADER, PICKLE_MESSAGE, PREAMBLE, parse_header
from lensjax.decoding import stream_length
from lensjax.errors import UserError
from lensjax.prediction.readers.entry import CheckSize, Entry, check_type, stack_entries, stack_shape


def read(stream: BufferedIOBase, check_size: CheckSize, extension: str | None = None) -> Iterator[Entry]:
    """The images of a .npy file, which has no extensions."""
    del extension
    length = stream_length(stream)
    yield from array_entries(stream, length, check_size)


def array_entries(
    stream: BufferedIOBase, length: int, check_size: CheckSize, part: str = ""
) -> Iterator[Entry]:
    """The images of one array.

    Args:
      stream: seekable stream at the start of the .npy data.
      length: length of the .npy data, bytes.
      check_size: raises UserError if images of a height and width cannot be used.
      part: name of the array within its file, with a leading colon; "" if it has none.

    Raises:
      UserError: if the array is damaged, contains Python objects, or does not contain images.
    """
    shape, fortran_order, dtype, offset = parse_header(stream.read(PREAMBLE + MAX_HEADER))
    if dtype.hasobject:
        raise UserError(PICKLE_MESSAGE)
    check_type(dtype)
    number, height, width = stack_shape(shape)
    expected, found = math.prod(shape) * dtype.itemsize, length - offset
    if found < expected:
        raise UserError(
            f"truncated: {max(found, 0):,} of {expected:,} bytes of pixels; copy or download it again"
        )
    if found > expected:
        raise UserError("has extra bytes after the array; save one array per file with np.save")
    if fortran_order and number > 1:
        raise UserError(
            "is a stack in Fortran order; convert it with np.save(path, np.ascontiguousarray(images))"
        )
    size = height * width * dtype.itemsize

    def load(index: int) -> np.ndarray:
        stream.seek(offset + index * size)
        pixels = np.frombuffer(stream.read(size), dtype)
        return pixels.reshape((height, width), order="F" if fortran_order else "C")

    yield from stack_entries(shape, dtype, load, check_size, part)
