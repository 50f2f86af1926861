"""A table that is written batch by batch, and goes on after a stop where it ended."""

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from lensjax.errors import UserError
from lensjax.workdir import write_atomically

SECONDS = 1.0  # between two notes of how far a table is


@dataclasses.dataclass
class Done:
    """How far a prediction is.

    Attributes:
      file: index of the file that the last row is of.
      image: how many images of that file have rows.
      good, bad: images classified, and not.
      length: of the table so far, bytes.
    """

    file: int = 0
    image: int = 0
    good: int = 0
    bad: int = 0
    length: int = 0


@dataclasses.dataclass
class Part:
    """An unfinished table, `OUTPUT.part`, and beside it `OUTPUT.part.json`, which says what it is of.

    Attributes:
      path: the unfinished table.
      about: what decides its content, by name.
      done: how far it is.
    """

    path: Path
    about: dict[str, object]
    done: Done
    _stream: BinaryIO
    _saved: float = -math.inf

    def append(self, text: bytes, done: Done) -> None:
        """Adds rows. A stop at any time leaves them whole or leaves them out, at most the last second's."""
        self._stream.write(text)
        done.length = self._stream.tell()
        self.done = done
        # Disks take their time to say that all is safe.
        if time.monotonic() > self._saved + SECONDS:
            self.save()

    def save(self) -> None:
        """Puts all that was added on disk, and notes how far that is."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        content = {"about": self.about, "done": dataclasses.asdict(self.done)}
        write_atomically(_note(self.path), json.dumps(content, indent=2) + "\n")
        self._saved = time.monotonic()


def part_of(output: Path) -> Path:
    """Where a table lies before it is finished."""
    return output.with_name(output.name + ".part")


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


@contextlib.contextmanager
def opened(
    output: Path, about: Mapping[str, object], head: bytes, *, overwrite: bool
) -> Iterator[Part]:
    """The unfinished table of an output, new or as an earlier command with the same words left it.

    Args:
      output: what the finished table will be called.
      about: what decides its content, by name.
      head: what a new table starts with.
      overwrite: whether a finished table, and an unfinished one of other words, are replaced.

    Raises:
      UserError: the output is finished already, or what lies there is of other words, damaged or in use.
    """
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists; name another file with --output, or add --overwrite")
    path = part_of(output)
    about = dict(about)
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        with lock.acquire(blocking=False):
            done = _earlier(path, about, overwrite)
            with path.open("r+b" if done else "wb") as stream:
                part = Part(path, about, done or Done(), stream)
                if done:
                    stream.truncate(done.length)
                    stream.seek(done.length)
                else:
                    part.append(head, Done())
                try:
                    yield part
                finally:
                    part.save()
    except Timeout:
        raise UserError(f"{output} is being written by another process") from None
    except OSError as error:  # no permission, a full disk
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from None


def finish(part: Part, output: Path, finished: Path) -> None:
    """Gives the finished table its name, and removes what was kept to go on from.

    Args:
      part: the table, closed.
      output: its name.
      finished: the file that gets it.
    """
    finished.replace(output)
    for path in (part.path, _note(part.path), part.path.with_name(part.path.name + ".lock")):
        path.unlink(missing_ok=True)


def _earlier(path: Path, about: Mapping[str, object], overwrite: bool) -> Done | None:
    """How far an earlier command came; None where there was none."""
    if not path.exists() or not _note(path).exists():
        return None
    try:
        found = json.loads(_note(path).read_text())
        then, done = found["about"], Done(**found["done"])
        if path.stat().st_size < done.length:
            raise ValueError("it is shorter than it was")
    except (ValueError, TypeError, KeyError) as error:
        if overwrite:
            return None
        raise UserError(f"{path}: damaged ({error}); remove it to start again") from None
    differences = [
        f"{name} was {then.get(name)!r} and is {about.get(name)!r}"
        for name in sorted({*then, *about})
        if then.get(name) != about.get(name)
    ]
    if not differences:
        return done
    if overwrite:
        return None
    raise UserError(
        f"{path} is of another prediction: {'; '.join(differences)}; remove it, add --overwrite, or name "
        "another --output"
    )
