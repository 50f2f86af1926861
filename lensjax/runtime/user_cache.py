"""What is costly to make and follows from its inputs alone is kept in the user's cache folder."""

import contextlib
import hashlib
import os
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np
import platformdirs

import lensjax
from lensjax.runtime.progress import log

CACHE_VARIABLE = "LENSJAX_CACHE"


def folder(kind: str) -> Path:
    """Where things of a kind are kept: in the folder LENSJAX_CACHE names, or in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    whole = Path(named).expanduser() if named else platformdirs.user_cache_path("lensjax")
    return whole / kind


def digest(parts: Iterable[object], *, code: Iterable[str]) -> str:
    """SHA-256 over all that decides a result: its inputs, the code, versions, kind of device.

    Args:
      parts: the inputs; arrays and bytes count with all their content, anything else as it is written.
      code: folders of the package whose code makes the result.
    """
    key = hashlib.sha256()
    for part in (*parts, jax.__version__, np.__version__, jax.default_backend()):
        if isinstance(part, np.ndarray):
            key.update(f"{part.dtype} {part.shape}\n".encode())
            key.update(np.ascontiguousarray(part).data)
        else:
            key.update(f"{part}\n".encode())
    package = Path(lensjax.__file__).parent
    for part in code:
        for file in sorted((package / part).rglob("*.py")):
            key.update(f"{file.relative_to(package).as_posix()}\n".encode())
            key.update(file.read_bytes())
    return key.hexdigest()


def load(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray] | None:
    """The arrays in a cache file; None where it is missing, damaged or holds something else.

    Args:
      file: the cache file.
      shapes: of the arrays that it should hold.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            # Reading to the end of each array compares its checksum.
            arrays = {name: stored[name] for name in shapes}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("%s: damaged (%s); making it again", file, error)
        return None
    if any(array.shape != shapes[name] for name, array in arrays.items()):
        log.warning("%s: holds something else; making it again", file)
        return None
    return arrays


def save(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a cache file, whole or not at all; a folder that cannot be written is only a warning."""
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        temporary.replace(file)
    except OSError as error:
        log.warning(
            "%s: what was made cannot be kept (%s); it will be made again next time, unless %s names a "
            "folder that can be written",
            file.parent,
            error.strerror or error,
            CACHE_VARIABLE,
        )
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
