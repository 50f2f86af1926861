"""Images in FITS files: of each image extension, or of those named SCI where there are some."""

import gzip
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import Any

import numpy as np
from astropy.io import fits

from lensjax.errors import UserError
from lensjax.prediction.readers.entry import Entry, stack_entries, stack_shape, unreadable

GZIP = b"\x1f\x8b"


def read(stream: BufferedIOBase) -> Iterator[Entry]:
    """The images of a FITS file, gzipped or not. BSCALE, BZERO and BLANK (which becomes NaN) are applied."""
    packed = stream.read(2) == GZIP
    stream.seek(0)
    plain = gzip.GzipFile(fileobj=stream) if packed else stream
    with fits.open(plain, memmap=False, ignore_missing_simple=False) as units:
        images = {
            index: unit
            for index, unit in enumerate(units)
            if unit.is_image and len(unit.shape) >= 2
        }
        science = {index: unit for index, unit in images.items() if unit.name == "SCI"}
        chosen = science or images
        if not chosen:
            raise UserError("holds no image, or is cut short before it; copy it again")
        for index, unit in chosen.items():
            part = f":{index}" if len(chosen) > 1 else ""
            try:
                yield from stack_entries(unit.shape, _plane_of(unit), part)
            except UserError as error:
                yield unreadable(str(error), part)


def _plane_of(unit: Any) -> Callable[[int], np.ndarray]:
    """A function of an index that reads one image of the unit, and of a stack no more than that."""
    one_image = stack_shape(unit.shape)[0] == 1
    return lambda index: unit.section[...] if one_image else unit.section[index]
