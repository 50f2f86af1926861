"""Images in FITS files: all image extensions, or only those named SCI if there are any."""

import gzip
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import Any

import numpy as np
from astropy.io import fits

from lensjax.errors import UserError
from lensjax.prediction.readers.entry import Entry, error_entry, stack_entries, stack_shape

GZIP_MAGIC = b"\x1f\x8b"


def read(stream: BufferedIOBase) -> Iterator[Entry]:
    """The images of a FITS file, gzipped or not. BSCALE and BZERO are applied; BLANK becomes NaN."""
    compressed = stream.read(2) == GZIP_MAGIC
    stream.seek(0)
    plain = gzip.GzipFile(fileobj=stream) if compressed else stream
    with fits.open(plain, memmap=False, ignore_missing_simple=False) as units:
        images = {index: unit for index, unit in enumerate(units) if unit.is_image and len(unit.shape) >= 2}
        science = {index: unit for index, unit in images.items() if unit.name == "SCI"}
        chosen = science or images
        if not chosen:
            raise UserError("contains no image, or is truncated before it; copy it again")
        for index, unit in chosen.items():
            part = f":{index}" if len(chosen) > 1 else ""
            try:
                yield from stack_entries(unit.shape, _plane_reader(unit), part)
            except UserError as error:
                yield error_entry(str(error), part)


def _plane_reader(unit: Any) -> Callable[[int], np.ndarray]:
    """A function that reads one image of the unit, given its index."""
    one_image = stack_shape(unit.shape)[0] == 1
    return lambda index: unit.section[...] if one_image else unit.section[index]
