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
        files = [member for member in archive.infolist() if not member.is_dir()]
        members = {member.filename.removesuffix(".npy"): member for member in files}
        if len(members) < len(files):
            raise UserError("has two arrays of the same name; write it again with np.savez")
        for name, member in members.items():
            try:
                check_expansion(member.file_size, member.compress_size)
                with archive.open(member) as content:
                    shapes[name] = parse_header(content.read(PREAMBLE + MAX_HEADER))[0]
            except Exception as error:  # zipfile raises many kinds of errors for a damaged file
                errors[name] = describe_error(error)
        if extension is None:
            names = [*select_names(shapes, None), *errors]
        else:
            names = select_names({**shapes, **dict.fromkeys(errors, ())}, extension)
        for name in names:
            part = f":{name}"
            if name in errors:
                yield error_entry(errors[name], part)
                continue
            try:
                _check_checksum(archive, members[name])
                with archive.open(members[name]) as content:
                    length = members[name].file_size
                    yield from array_entries(cast(BufferedIOBase, content), length, check_size, part)
            except UserError as error:
                yield error_entry(str(error), part)


def _check_checksum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Reads an array to its end: zipfile verifies the checksum only if no part is skipped.

    Raises:
      UserError: if the array is damaged.
    """
    try:
        with archive.open(member) as content:
            while content.read(2**20):
                pass
    except Exception as error:  # decompressors raise many kinds of errors
        raise UserError(f"is damaged ({describe_error(error)}); copy or download it again") from None
