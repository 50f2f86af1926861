"""Images in .npy files: one, or a stack of which only one at a time is read. Nothing is unpickled."""

import math
import os
from collections.abc import Iterator
from io import BufferedIOBase

import numpy as np

from lensjax.data.npy import MAX_HEADER, PICKLE_MESSAGE, PREAMBLE, parse_header
from lensjax.errors import UserError
from lensjax.prediction.readers.entry import Entry, stack_entries, stack_shape


def read(stream: BufferedIOBase) -> Iterator[Entry]:
    """The images of a .npy file."""
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    yield from array_entries(stream, length)


def array_entries(stream: BufferedIOBase, length: int, part: str = "") -> Iterator[Entry]:
    """The images of one array.

    Args:
      stream: at the start of what np.save wrote; seekable.
      length: how many bytes that is.
      part: the array's own name within its file, with a colon before it; "" without one.

    Raises:
      UserError: it is damaged, holds Python objects, or no images.
    """
    shape, fortran_order, dtype, offset = parse_header(stream.read(PREAMBLE + MAX_HEADER))
    if dtype.hasobject:
        raise UserError(PICKLE_MESSAGE)
    number, height, width = stack_shape(shape)
    expected, found = math.prod(shape) * dtype.itemsize, length - offset
    if found < expected:
        raise UserError(
            f"truncated: {max(found, 0):,} of {expected:,} bytes of pixels; copy or download it again"
        )
    if found > expected:
        raise UserError("has more bytes after its array; save one array a file with np.save")
    if fortran_order and number > 1:
        raise UserError(
            "is a stack in Fortran order; save it again with np.save(path, np.ascontiguousarray(images))"
        )
    size = height * width * dtype.itemsize

    def load(index: int) -> np.ndarray:
        stream.seek(offset + index * size)
        pixels = np.frombuffer(stream.read(size), dtype)
        return pixels.reshape((height, width), order="F" if fortran_order else "C")

    yield from stack_entries(shape, load, part)
