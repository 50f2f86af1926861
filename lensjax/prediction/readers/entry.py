"""One image of a file, and how the shape of an array says how many there are."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from lensjax.errors import UserError

COLOURS = (2, 3, 4)
MAX_PIXELS = 2**26  # of one image: what a header may ask memory for


@dataclasses.dataclass(frozen=True)
class Entry:
    """An image still to be read.

    Attributes:
      part: what follows the file's name to tell its images apart: "", "[3]", ":dataset[3]".
      load: gives the pixels, `[height, width]`; to be called before the next entry is asked for.
    """

    part: str
    load: Callable[[], np.ndarray]


def unreadable(message: str, part: str = "") -> Entry:
    """An entry in place of an image, which says what is wrong when it is loaded."""

    def load() -> np.ndarray:
        raise UserError(message)

    return Entry(part, load)


def stack_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """How many images an array holds, and their height and width.

    `(h, w)`, `(1, h, w)` and `(h, w, 1)` are one image; `(n, h, w)`, `(n, h, w, 1)` and `(n, 1, h, w)` are n.

    Raises:
      UserError: the array is none of these, or empty.
    """
    hint = "save images as (height, width) or (number, height, width)"
    if 0 in shape:
        raise UserError(f"shape {shape}: holds no pixels; {hint}")
    if len(shape) == 2:
        return (1, *shape)
    if len(shape) == 3:
        if shape[0] > 1 and shape[2] == 1:
            return (1, *shape[:2])
        if shape[2] in COLOURS and min(shape[:2]) > max(COLOURS):
            raise UserError(f"shape {shape}: a colour picture; save the brightness alone")
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
      shape: of the array.
      read: gives its part at an index of its first axis, of any shape with the image's pixels; of an
        array that is one image, the whole at index 0.
      part: the array's own name within its file, with a colon before it; "" without one.
    """
    number, height, width = stack_shape(shape)
    if height * width > MAX_PIXELS:
        raise UserError(
            f"shape {shape}: more than {MAX_PIXELS:,} pixels an image; cut the lens out"
        )
    for index in range(number):
        place = f"{part}[{index}]" if number > 1 else part
        yield Entry(place, functools.partial(_plane, read, index, (height, width)))


def image_arrays(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Which arrays of a file with several hold images.

    Those with three axes or more, if there are any, else those with two; the others are labels and tables.
    """
    least = 3 if any(len(shape) >= 3 for shape in shapes.values()) else 2
    return [name for name, shape in shapes.items() if len(shape) >= least]


def _plane(read: Callable[[int], np.ndarray], index: int, shape: tuple[int, int]) -> np.ndarray:
    return read(index).reshape(shape)
