"""Files that appear whole or not at all."""

import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path

import safetensors

from lensjax.errors import UserError


def check_new(path: Path, *, overwrite: bool) -> None:
    """Refuses a path that holds something which may not be replaced.

    Raises:
      UserError: it is a folder, or a file and `overwrite` is not set.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise UserError(
            f"{path} is there already; name another file, or replace it with --overwrite"
        )


def write_whole(path: Path, write: Callable[[Path], None], *, overwrite: bool) -> None:
    """Writes a file under another name first; its folder is made if it is not there.

    Args:
      path: where the file goes.
      write: writes it to the path that it is given.
      overwrite: whether a file that is there already may be replaced.

    Raises:
      UserError: the file is there already, or cannot be written.
    """
    check_new(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        check_new(path, overwrite=overwrite)
        temporary.replace(path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be written: {reason}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
