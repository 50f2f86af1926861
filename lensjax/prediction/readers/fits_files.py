"""Images in FITS files: the SCI extensions or, if there are none, all but auxiliary planes such as masks."""

from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

import numpy as np
from astropy.io import fits

from lensjax.decoding import is_auxiliary
from lensjax.errors import UserError
from lensjax.fits_units import check_compressed, open_units
from lensjax.prediction.readers.entry import (
    CheckSize,
    Entry,
    error_entry,
    raise_no_extension,
    read_in_blocks,
    skip_auxiliary,
    stack_entries,
    stack_shape,
)


def read(stream: BufferedIOBase, check_size: CheckSize, extension: str | None = None) -> Iterator[Entry]:
    """The images of a FITS file, compressed or not. BSCALE and BZERO are applied; BLANK becomes NaN.

    Args:
      stream: the file.
      check_size: raises UserError if images of a height and width cannot be used.
      extension: name, number or "name,version" of the only extension to read; None for all.
    """
    with open_units(stream) as units:
        images = units.images
        names = {index: str(unit.header.get("EXTNAME", "")).strip() for index, unit in images.items()}
        try:
            chosen = _choose(names, images, extension)
        except UserError as error:
            raise UserError(f"{error}; {units.problem}" if units.problem else str(error)) from None
        for index in chosen:
            part = _part(names, images, chosen, index)
            try:
                yield from _entries(images[index], units.length, check_size, part)
            except UserError as error:
                yield error_entry(str(error), part)
        if units.problem and extension is None:
            yield error_entry(units.problem, f":{units.number}" if chosen else "")
        elif not chosen:
            raise UserError("contains no image")


def _choose(names: dict[int, str], images: dict[int, Any], extension: str | None) -> list[int]:
    """Numbers of the extensions to read."""
    if extension is not None:
        wanted = extension.casefold()
        chosen = [
            index
            for index, name in names.items()
            if wanted in (name.casefold(), f"{name},{images[index].ver}".casefold(), str(index))
        ]
        if not chosen:
            raise_no_extension(extension, [name or str(index) for index, name in names.items()])
        return chosen
    science = [index for index, name in names.items() if name.upper() == "SCI"]
    if not science:
        skip_auxiliary(list(names.values()))
    return science or [index for index, name in names.items() if not is_auxiliary(name)]


def _part(names: dict[int, str], images: dict[int, Any], chosen: list[int], index: int) -> str:
    """Name of an extension in the table: EXTNAME if it is unique, else with EXTVER, else the number."""
    if len(chosen) == 1:
        return ""

    def with_version(index: int) -> str:
        return f"{names[index]},{images[index].ver}"

    others = [other for other in chosen if other != index]
    if not names[index] or with_version(index) in map(with_version, others):
        return f":{index}"
    return f":{with_version(index) if names[index] in [names[other] for other in others] else names[index]}"


def _entries(unit: Any, length: int, check_size: CheckSize, part: str) -> Iterator[Entry]:
    number, height, width = stack_shape(unit.shape)
    dtype = np.dtype(np.float64)  # the widest type that BSCALE and BZERO produce
    check_compressed(unit, length)
    rows = int(unit.tile_shape[0]) if number > 1 and isinstance(unit, fits.CompImageHDU) else 1

    def read(first: int, last: int) -> np.ndarray:
        return unit.section[...][None] if number == 1 else unit.section[first:last]

    load = read_in_blocks(read, number, rows, height * width * dtype.itemsize)
    yield from stack_entries(unit.shape, dtype, load, check_size, part)
