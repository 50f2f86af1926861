"""Images in a file that have not been read yet, and the interpretation of array shapes."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from lensjax.decoding import MAX_BLOCK, MAX_PIXELS, is_auxiliary
from lensjax.errors import UserError

COLOR_CHANNELS = (2, 3, 4)
MAX_BANDS = 16  # along the last axis of an array of one image in several filters
CheckSize = Callable[[tuple[int, int]], None]
"""Raises UserError if images of a height and width cannot be used."""


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


def check_type(dtype: np.dtype) -> None:
    """Checks that pixels of a type can be used.

    Raises:
      UserError: if they are not real numbers of 8 to 64 bits.
    """
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise UserError(f"contains {dtype} values; save them as floats or integers of at most 64 bits")


def stack_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Number of images in an array, and their height and width.

    `(h, w)`, `(1, h, w)` and `(h, w, 1)` are one image; `(n, h, w)`, `(n, h, w, 1)` and `(n, 1, h, w)` are n.

    Raises:
      UserError: if the array has another shape, is empty, or has the shape of a color or multiband image.
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
        if shape[2] <= MAX_BANDS < min(shape[:2]):
            raise UserError(f"shape {shape}: {shape[2]} bands along the last axis; {hint}")
        return shape
    if len(shape) == 4 and shape[3] == 1:
        return shape[:3]
    if len(shape) == 4 and shape[1] == 1:
        return (shape[0], *shape[2:])
    raise UserError(f"shape {shape}: not images; {hint}")


def stack_entries(
    shape: tuple[int, ...],
    dtype: np.dtype,
    read: Callable[[int], np.ndarray],
    check_size: CheckSize,
    part: str = "",
) -> Iterator[Entry]:
    """The images of one array.

    Args:
      shape: shape of the array.
      dtype: type of the pixels.
      read: returns the pixels of the image at an index, in any shape; the index is 0 for an array that is
        a single image.
      check_size: raises UserError if images of a height and width cannot be used.
      part: name of the array within its file, with a leading colon; "" if it has none.

    Raises:
      UserError: if the array does not contain images that can be used.
    """
    check_type(dtype)
    number, height, width = stack_shape(shape)
    if height * width > MAX_PIXELS:
        raise UserError(f"shape {shape}: more than {MAX_PIXELS:,} pixels per image; crop to the lens")
    try:
        check_size((height, width))
    except UserError as error:
        raise UserError(f"{number:,} images of {error}" if number > 1 else str(error)) from None
    for index in range(number):
        name = f"{part}[{index}]" if number > 1 else part
        yield Entry(name, functools.partial(_plane, read, index, (height, width)))


def read_in_blocks(
    read: Callable[[int, int], np.ndarray], number: int, rows: int, size: int
) -> Callable[[int], np.ndarray]:
    """A function that reads one image of a stack that is compressed in blocks of several images.

    Each block is decompressed only once if the images are read in order.

    Args:
      read: returns the images from one index to another.
      number: number of images.
      rows: number of images in a block.
      size: size of an image, bytes.

    Raises:
      UserError: if a block is too large to be decompressed at once.
    """
    rows = max(1, min(rows, number))
    if rows * size > MAX_BLOCK:
        raise UserError(
            f"a compressed block has {rows:,} images, {rows * size:,} bytes; compress each image separately"
        )

    @functools.lru_cache(maxsize=1)
    def block(index: int) -> np.ndarray:
        return read(index * rows, min((index + 1) * rows, number))

    return lambda index: block(index // rows)[index % rows]


def select_names(shapes: Mapping[str, tuple[int, ...]], chosen: str | None) -> list[str]:
    """Names of the arrays that contain images, for files with several arrays.

    These are the arrays with three or more axes or, if there are none, those with two. All others are assumed
    to be labels and tables. Auxiliary planes, such as masks, are recognized by their names and skipped.

    Args:
      shapes: shape of each array, by name.
      chosen: name of the only array to read; None for all.

    Raises:
      UserError: if there is no array `chosen`, or all arrays are auxiliary planes.
    """
    if chosen is not None:
        found = [name for name in shapes if name.casefold() == chosen.casefold()]
        return found or raise_no_extension(chosen, list(shapes))
    images = skip_auxiliary([name for name, shape in shapes.items() if len(shape) >= 2])
    least = 3 if any(len(shapes[name]) >= 3 for name in images) else 2
    return [name for name in images if len(shapes[name]) >= least]


def skip_auxiliary(names: list[str]) -> list[str]:
    """The names that do not belong to auxiliary planes, such as masks and point-spread functions.

    Raises:
      UserError: if all names belong to auxiliary planes.
    """
    images = [name for name in names if not is_auxiliary(name)]
    if names and not images:
        raise UserError(f"contains only {_listed(names)}; choose one with --extension if it is an image")
    return images


def raise_no_extension(chosen: str, names: list[str]) -> list[str]:
    """Raises the error for an `--extension` that a file does not have."""
    raise UserError(f"has no extension {chosen}; available: {_listed(names) or 'none'}; correct --extension")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")


def _plane(read: Callable[[int], np.ndarray], index: int, shape: tuple[int, int]) -> np.ndarray:
    return read(index).reshape(shape)
