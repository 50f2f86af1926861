"""Checks the zip archives of PyTorch, because PyTorch's own reader ignores their checksums."""

import zipfile
from pathlib import Path

# Weights cannot be compressed much further; a larger ratio is a zip bomb.
MAX_EXPANSION = 20


def check_archive(path: Path) -> None:
    """Checks the CRC-32 of every entry of a zip archive; does nothing for PyTorch's older format.

    Raises:
      ValueError: if an entry is damaged or much larger than the file, or if the file is a damaged archive.
    """
    with path.open("rb") as stream:
        if not stream.read(4).startswith(b"PK"):
            return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_EXPANSION * path.stat().st_size:
                raise ValueError("its entries claim to be much larger than the file")
            if len({entry.filename for entry in entries}) < len(entries):
                raise ValueError("two entries have the same name")
            damaged = archive.testzip()
    except Exception as error:  # a damaged archive can raise almost any error
        raise ValueError(str(error)[:120]) from None
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
