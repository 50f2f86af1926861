"""Images in .npz files, array by array, read in place."""

import zipfile
from collections.abc import Iterator
from io import BufferedIOBase
from typing import cast

from lensjax.data.npy import MAX_HEADER, PREAMBLE, parse_header
from lensjax.errors import UserError
from lensjax.prediction.readers.arrays import array_entries
from lensjax.prediction.readers.entry import Entry, image_arrays, unreadable


def read(stream: BufferedIOBase) -> Iterator[Entry]:
    """The images of a .npz file."""
    with zipfile.ZipFile(stream) as archive:
        shapes, wrong = {}, {}
        for name in archive.namelist():
            try:
                with archive.open(name) as member:
                    shapes[name] = parse_header(member.read(PREAMBLE + MAX_HEADER))[0]
            except UserError as error:
                wrong[name] = str(error)
        for name in [*image_arrays(shapes), *wrong]:
            part = f":{name.removesuffix('.npy')}"
            if name in wrong:
                yield unreadable(wrong[name], part)
                continue
            length = archive.getinfo(name).file_size
            try:
                with archive.open(name) as member:
                    yield from array_entries(cast(BufferedIOBase, member), length, part)
            except UserError as error:
                yield unreadable(str(error), part)
