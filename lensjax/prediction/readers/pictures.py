"""Images in PNG and TIFF files of 1 to 32 bits, page by page."""

import functools
from collections.abc import Iterator
from io import BufferedIOBase
from typing import IO, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from lensjax.errors import UserError
from lensjax.prediction.readers.entry import MAX_PIXELS, Entry

GREY = ("1", "L", "I", "F")
SAMPLE_FORMAT = 339  # TIFF's tag; (1,) says unsigned


def read(stream: BufferedIOBase) -> Iterator[Entry]:
    """The images of a PNG or TIFF file. Grey that is stored as colour is taken; transparency is left out."""
    try:
        opened = Image.open(cast(IO[bytes], stream), formats=("PNG", "TIFF"))
    except UnidentifiedImageError:
        raise UserError(
            "is not a PNG or TIFF picture of at most 32 bits; save it as .npy"
        ) from None
    with opened as picture:
        number = getattr(picture, "n_frames", 1)

        def load(index: int) -> np.ndarray:
            picture.seek(index)
            if picture.width * picture.height > MAX_PIXELS:
                raise UserError(f"more than {MAX_PIXELS:,} pixels an image; cut the lens out")
            if picture.mode in GREY or picture.mode.startswith("I;16"):
                pixels = np.asarray(picture)
                unsigned = getattr(picture, "tag_v2", {}).get(SAMPLE_FORMAT) == (1,)
                return pixels.view(np.uint32) if picture.mode == "I" and unsigned else pixels
            colours = np.asarray(picture.convert("RGB"))
            if (colours != colours[..., :1]).any():
                raise UserError("is a colour picture; save the brightness alone")
            return colours[..., 0]

        for index in range(number):
            place = f"[{index}]" if number > 1 else ""
            yield Entry(place, functools.partial(load, index))
