"""Images in a file that have not been read yet, and the interpretation of array shapes."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from lensjax.errors import UserError

COLOR_CHANNELS = (2, 3, 4)
MAX_PIXELS = 2**26  # per image; limits the memory that a damaged header can request


@dataclasses.dataclass(frozen=True)
class Entry:
    """An image that has not been read yet.

    Attributes:
      part: suffix that identifies the image within the file: "", "[3]", ":dataset[3]".
      load: returns the pixels, `[height, width]`; must be called before the next entry is requested.
    """

    part: str
    load: Callable[[], np.ndarray]


def error_entry(message: str, part: str = "") -> Entry:
    """An entry that raises `UserError(message)` when it is loaded."""

    def load() -> np.ndarray:
        raise UserError(message)

    return Entry(part, load)


def stack_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Number of images in an array, and their height and width.

    `(h, w)`, `(1, h, w)` and `(h, w, 1)` are one image; `(n, h, w)`, `(n, h, w, 1)` and `(n, 1, h, w)` are n.

    Raises:
      UserError: if the array has another shape or is empty.
    """
    hint = "save images as (height, width) or (number, height, width)"
    if 0 in shape:
        raise UserError(f"shape {shape}: contains no pixels; {hint}")
    if len(shape) == 2:
        return (1, *shape)
    if len(shape) == 3:
        if shape[0] > 1 and shape[2] == 1:
            return (1, *shape[:2])
        if shape[2] in COLOR_CHANNELS and min(shape[:2]) > max(COLOR_CHANNELS):
            raise UserError(f"shape {shape}: a color image; save a single channel")
        return shape
    if len(shape) == 4 and shape[3] == 1:
        return shape[:3]
    if len(shape) == 4 and shape[1] == 1:
        return (shape[0], *shape[2:])
    raise UserError(f"shape {shape}: not images; {hint}")


def stack_entries(
    shape: tuple[int, ...], read: Callable[[int], np.ndarray], part: str = ""
) -> Iterator[Entry]:
    """The images of one array.

    Args:
      shape: shape of the array.
      read: returns the pixels of the image at an index, in any shape; the index is 0 for an array that is
        a single image.
      part: name of the array within its file, with a leading colon; "" if it has none.

    Raises:
      UserError: if the array does not contain images, or an image has too many pixels.
    """
    number, height, width = stack_shape(shape)
    if height * width > MAX_PIXELS:
        raise UserError(f"shape {shape}: more than {MAX_PIXELS:,} pixels per image; crop to the lens")
    for index in range(number):
        name = f"{part}[{index}]" if number > 1 else part
        yield Entry(name, functools.partial(_plane, read, index, (height, width)))


def image_arrays(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the arrays that contain images, for files with several arrays.

    These are the arrays with three or more axes or, if there are none, those with two. All others are assumed
    to be labels and tables.
    """
    least = 3 if any(len(shape) >= 3 for shape in shapes.values()) else 2
    return [name for name, shape in shapes.items() if len(shape) >= least]


def _plane(read: Callable[[int], np.ndarray], index: int, shape: tuple[int, int]) -> np.ndarray:
    return read(index).reshape(shape)
