"""Images in .npz files, read one array at a time without extraction."""

import zipfile
from collections.abc import Iterator
from io import BufferedIOBase
from typing import cast

from lensjax.data.npy import MAX_HEADER, PREAMBLE, parse_header
from lensjax.decoding import check_expansion, describe_error
from lensjax.errors import UserError
from lensjax.prediction.readers.arrays import array_entries
from lensjax.prediction.readers.entry import CheckSize, Entry, error_entry, select_names


def read(stream: BufferedIOBase, check_size: CheckSize, extension: str | None = None) -> Iterator[Entry]:
    """The images of a .npz file, or those of the array `extension`."""
    with zipfile.ZipFile(stream) as archive:
        shapes, errors = {}, {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            try:
                check_expansion(member.file_size, member.compress_size)
                with archive.open(member) as content:
                    shapes[name] = parse_header(content.read(PREAMBLE + MAX_HEADER))[0]
            except Exception as error:  # zipfile raises many kinds of errors for a damaged file
                errors[name] = describe_error(error)
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        for name in [*select_names(shapes, extension), *(errors if extension is None else ())]:
            part = f":{name}"
            if name in errors:
                yield error_entry(errors[name], part)
                continue
            try:
                with archive.open(members[name]) as content:
                    length = members[name].file_size
                    yield from array_entries(cast(BufferedIOBase, content), length, check_size, part)
            except UserError as error:
                yield error_entry(str(error), part)
