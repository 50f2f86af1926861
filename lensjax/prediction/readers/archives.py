"""Images in .npz files, read one array at a time without extraction."""

import zipfile
from collections.abc import Iterator
from io import BufferedIOBase
from typing import cast

from lensjax.data.npy import MAX_HEADER, PREAMBLE, parse_header
from lensjax.errors import UserError
from lensjax.prediction.readers.arrays import array_entries
from lensjax.prediction.readers.entry import Entry, error_entry, image_arrays


def read(stream: BufferedIOBase) -> Iterator[Entry]:
    """The images of a .npz file."""
    with zipfile.ZipFile(stream) as archive:
        shapes, errors = {}, {}
        for name in archive.namelist():
            try:
                with archive.open(name) as member:
                    shapes[name] = parse_header(member.read(PREAMBLE + MAX_HEADER))[0]
            except UserError as error:
                errors[name] = str(error)
        for name in [*image_arrays(shapes), *errors]:
            part = f":{name.removesuffix('.npy')}"
            if name in errors:
                yield error_entry(errors[name], part)
                continue
            length = archive.getinfo(name).file_size
            try:
                with archive.open(name) as member:
                    yield from array_entries(cast(BufferedIOBase, member), length, part)
            except UserError as error:
                yield error_entry(str(error), part)
