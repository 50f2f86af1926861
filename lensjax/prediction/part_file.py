"""A table that is written batch by batch and can be resumed after an interruption."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from lensjax.errors import UserError
from lensjax.json_text import encode_json
from lensjax.workdir import seal, unseal, write_atomically

SAVE_INTERVAL = 1.0  # seconds between two saves of the progress


@dataclasses.dataclass
class TableProgress:
    """Progress of a prediction.

    Attributes:
      file: index of the file that the last row belongs to.
      image: number of images of that file that the rows cover.
      good, bad: number of images with and without a prediction.
      marked: number of images with a prediction that are outside the classifier's domain.
      length: length of the table so far, bytes.
    """

    file: int = 0
    image: int = 0
    good: int = 0
    bad: int = 0
    marked: int = 0
    length: int = 0


@dataclasses.dataclass
class PartialTable:
    """An unfinished table, `OUTPUT.part`, with its description and progress in `OUTPUT.part.json`.

    Attributes:
      path: path of the unfinished table.
      about: settings that determine the content, by name.
      progress: progress so far.
    """

    path: Path
    about: dict[str, object]
    progress: TableProgress
    _stream: BinaryIO
    _hash: Any  # SHA-256 of the table so far
    _saved: float = -math.inf

    def append(self, text: bytes, progress: TableProgress) -> None:
        """Appends rows. A crash loses at most one `SAVE_INTERVAL` of rows; resuming removes a partial row.

        Args:
          text: encoded rows.
          progress: progress after these rows; its `length` is set here.
        """
        self._stream.write(text)
        self._hash.update(text)
        progress.length = self._stream.tell()
        self.progress = progress
        # fsync is slow, so the progress is not saved after every batch.
        if time.monotonic() > self._saved + SAVE_INTERVAL:
            self.save()

    def save(self) -> None:
        """Flushes all rows to disk and records the progress."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        done = dataclasses.asdict(self.progress) | {"table_sha256": self._hash.hexdigest()}
        content = seal({"about": self.about, "done": done})
        write_atomically(_progress_path(self.path), encode_json(content, indent=2) + "\n")
        self._saved = time.monotonic()


def part_path(output: Path) -> Path:
    """Path of the unfinished table of an output."""
    return output.with_name(output.name + ".part")


def _progress_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


@contextlib.contextmanager
def open_part(
    output: Path, about: Mapping[str, object], header: bytes, *, overwrite: bool
) -> Iterator[PartialTable]:
    """Opens the unfinished table of an output: a new table, or that of an interrupted command.

    Args:
      output: path of the finished table.
      about: settings that determine the content, by name.
      header: first line of a new table.
      overwrite: if True, a finished table, or an unfinished one that is damaged or has other settings, is
        replaced.

    Raises:
      UserError: if the output exists or cannot be written, or the unfinished table has other settings, is
        damaged, is a link or is in use.
    """
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists; choose another --output, or add --overwrite")
    path = part_path(output)
    about = dict(about)
    lock_path = path.with_name(path.name + ".lock")
    for each in (path, lock_path):
        if each.is_symlink():
            raise UserError(f"{each} is a link; delete it, or choose another --output")
    try:
        with FileLock(lock_path).acquire(blocking=False):
            progress = _read_progress(path, about, overwrite)
            if not progress:
                path.unlink(missing_ok=True)
            with path.open("r+b" if progress else "xb") as stream:
                part = PartialTable(path, about, progress or TableProgress(), stream, hashlib.sha256())
                if progress:
                    part._hash = _hash_start(path, progress.length)
                    stream.truncate(progress.length)
                    stream.seek(progress.length)
                else:
                    part.append(header, TableProgress())
                try:
                    yield part
                finally:
                    part.save()
    except Timeout:
        raise UserError(f"{output} is being written by another process") from None
    except OSError as error:  # for example missing permission or a full disk
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from None


def finish(part: PartialTable, output: Path, finished: Path) -> None:
    """Moves the finished table to its final path and removes the files needed to resume.

    Args:
      part: the table, closed.
      output: final path.
      finished: file to move to `output`.
    """
    finished.replace(output)
    lock_path = part.path.with_name(part.path.name + ".lock")
    for path in (part.path, _progress_path(part.path), lock_path):
        path.unlink(missing_ok=True)


def _read_progress(path: Path, about: Mapping[str, object], overwrite: bool) -> TableProgress | None:
    """Progress of an earlier command with the same settings; None if there is none."""
    if not path.exists() or not _progress_path(path).exists():
        return None
    try:
        content = json.loads(_progress_path(path).read_text(encoding="utf-8"))
        if "sha256" not in content:
            raise ValueError("no checksum")
        content = unseal(content)
        earlier, done = content["about"], content["done"]
        table_digest = done.pop("table_sha256")
        progress = TableProgress(**done)
        if path.stat().st_size < progress.length:
            raise ValueError("it is shorter than recorded")
        if _hash_start(path, progress.length).hexdigest() != table_digest:
            raise ValueError("its content has changed")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if overwrite:
            return None
        raise UserError(f"{path}: damaged ({error}); delete it to start again, or add --overwrite") from None
    differences = [
        f"{name} was {earlier.get(name)!r} and is {about.get(name)!r}"
        for name in sorted({*earlier, *about})
        if earlier.get(name) != about.get(name)
    ]
    if not differences:
        return progress
    if overwrite:
        return None
    raise UserError(
        f"{path} belongs to another prediction: {'; '.join(differences)}; delete it, add --overwrite, or "
        "choose another --output"
    )


def _hash_start(path: Path, length: int) -> Any:
    """SHA-256 of the first `length` bytes of a file, as a hash object that accepts further data."""
    key = hashlib.sha256()
    with path.open("rb") as stream:
        while length and (block := stream.read(min(length, 1 << 20))):
            key.update(block)
            length -= len(block)
    return key
