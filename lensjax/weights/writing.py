"""Writes files atomically."""

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import safetensors

from lensjax.errors import UserError


def check_output_path(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Checks that a file can be written without replacing something by accident.

    Raises:
      UserError: if the path is a folder, or the file exists and `overwrite` is false.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; specify a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} already exists; choose another file, or replace it with --overwrite")


def write_file(path: str | os.PathLike[str], write: Callable[[Path], object], *, overwrite: bool) -> None:
    """Writes a file atomically, through a temporary file. Creates its folder if needed.

    Args:
      path: the file.
      write: writes the content to the path that it is called with.
      overwrite: whether to replace an existing file.

    Raises:
      UserError: if the path is a folder, or the file already exists or cannot be written.
    """
    path = Path(path)
    check_output_path(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())  # otherwise a power failure could leave an empty file
        check_output_path(path, overwrite=overwrite)
        temporary.replace(path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot write: {reason}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
