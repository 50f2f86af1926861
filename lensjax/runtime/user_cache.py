"""Cache files in the user's cache folder, for expensive results that depend only on their inputs."""

import contextlib
import fcntl
import hashlib
import os
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np
import platformdirs

import lensjax
from lensjax.runtime.paths import user_path
from lensjax.runtime.progress import log

CACHE_VARIABLE = "LENSJAX_CACHE"
KINDS = ("simulated", "fits")  # folders of cache files
COMPILED = "compiled"  # folder of compiled programs
_PART = ".part"  # suffix of files that are being written


def folder(kind: str) -> Path:
    """Cache folder for one kind of result, inside $LENSJAX_CACHE or the user's default cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    root = user_path(given) if given else platformdirs.user_cache_path("lensjax")
    return root / kind


def digest(parts: Iterable[object], *, code: Iterable[str]) -> str:
    """SHA-256 of everything that determines a result: inputs, code, versions and device type.

    Args:
      parts: the inputs. Arrays are hashed by type, shape and content, other objects by their `str`.
      code: folders of the package that contain the code that computes the result.
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
    """Reads the arrays of a cache file.

    Args:
      file: the cache file.
      shapes: expected arrays, with their shapes.

    Returns:
      The arrays by name; None if the file is missing, damaged or has different arrays.
    """
    try:
        arrays = read(file, shapes)
    except FileNotFoundError:
        return None
    except Exception as error:  # NumPy's parser raises almost any type for a damaged header
        log.warning("%s: damaged cache file (%s); recomputing its content", file, error)
        return None
    if any(array.shape != shapes[name] for name, array in arrays.items()):
        log.warning("%s: unexpected arrays in cache file; recomputing its content", file)
        return None
    return arrays


def read(file: Path, names: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Reads arrays of a cache file and verifies their checksums.

    Args:
      file: the cache file.
      names: names of the arrays; all arrays if empty.

    Returns:
      The arrays by name.

    Raises:
      Exception: of any type if the file is missing or damaged.
    """
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        for name in names or [member.removesuffix(".npy") for member in archive.namelist()]:
            with archive.open(f"{name}.npy") as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
                # The checksum is verified at the end of the stream.
                if stream.read(1):
                    raise ValueError(f"{name} has more bytes than its header states")
    return arrays


def leftovers(folder: Path) -> list[Path]:
    """Files in a cache folder that killed processes did not finish; processes lock the files they write."""
    found = []
    for path in sorted(folder.glob(f"*{_PART}")):
        if not path.is_file():
            continue
        with contextlib.suppress(OSError), path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            found.append(path)
    return found


def save(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a cache file atomically. If the folder is not writable, only logs a warning."""
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}{_PART}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for path in leftovers(file.parent):
            path.unlink(missing_ok=True)
        with temporary.open("xb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            np.savez(stream, allow_pickle=False, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        log.warning(
            "%s: cannot write cache file (%s); its content will be recomputed next time. Set %s to a "
            "writable folder",
            file.parent,
            error.strerror or error,
            CACHE_VARIABLE,
        )
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
