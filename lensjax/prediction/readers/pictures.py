"""Images in PNG and TIFF files of 1 to 32 bits, one page at a time."""

import functools
from collections.abc import Iterator
from io import BufferedIOBase
from typing import IO, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from lensjax.errors import UserError
from lensjax.prediction.readers.entry import MAX_PIXELS, Entry

GRAY_MODES = ("1", "L", "I", "F")
SAMPLE_FORMAT = 339  # TIFF tag; (1,) means unsigned


def read(stream: BufferedIOBase) -> Iterator[Entry]:
    """The images of a PNG or TIFF file. Gray images stored as color are accepted; transparency is ignored."""
    try:
        opened = Image.open(cast(IO[bytes], stream), formats=("PNG", "TIFF"))
    except UnidentifiedImageError:
        raise UserError("is not a PNG or TIFF image of at most 32 bits; save it as .npy") from None
    with opened as picture:
        number = getattr(picture, "n_frames", 1)

        def load(index: int) -> np.ndarray:
            picture.seek(index)
            if picture.width * picture.height > MAX_PIXELS:
                raise UserError(f"more than {MAX_PIXELS:,} pixels per image; crop to the lens")
            if picture.mode in GRAY_MODES or picture.mode.startswith("I;16"):
                pixels = np.asarray(picture)
                unsigned = getattr(picture, "tag_v2", {}).get(SAMPLE_FORMAT) == (1,)
                return pixels.view(np.uint32) if picture.mode == "I" and unsigned else pixels
            colors = np.asarray(picture.convert("RGB"))
            if (colors != colors[..., :1]).any():
                raise UserError("is a color image; save a single channel")
            return colors[..., 0]

        for index in range(number):
            name = f"[{index}]" if number > 1 else ""
            yield Entry(name, functools.partial(load, index))
