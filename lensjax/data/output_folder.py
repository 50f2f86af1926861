"""Writes data sets to folders: only complete files, and never into the folder of another data set."""

import functools
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lensjax.errors import UserError, naming
from lensjax.json_text import encode_json


def claim_folder(folder: Path, manifest: str, wanted: Mapping[str, Any]) -> None:
    """Writes the manifest of a new folder, or checks that of an existing one.

    Args:
      folder: the folder; it is created if it does not exist.
      manifest: name of the manifest, a JSON file.
      wanted: contents of the manifest: everything that determines the contents of the folder.

    Raises:
      UserError: see `check_folder`.
    """
    check_folder(folder, manifest, wanted)
    if not (folder / manifest).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / manifest, encode_json(wanted, indent=1).encode())


def check_folder(folder: Path, manifest: str, wanted: Mapping[str, Any]) -> None:
    """Checks that a folder is new, or has a manifest with the given values; see `claim_folder`.

    Raises:
      UserError: if the folder has a different or damaged manifest, or other files and no manifest, or is a
        file.
    """
    file = folder / manifest
    if file.exists():
        try:
            found = json.loads(file.read_text())
            differing = [name for name in wanted if found.get(name) != wanted[name]]
        except (ValueError, AttributeError):
            raise UserError(f"{file} is damaged; choose another --output") from None
        if differing:
            name = differing[0]
            raise UserError(
                f"{folder}: was created with a different {name} ({str(found.get(name))[:40]}, not "
                f"{str(wanted[name])[:40]}); choose another --output"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and was not created by this command; choose another --output")


def write_image(file: Path, image: Float[np.ndarray, "height width"]) -> None:
    """Writes an image in the published form: a .npy file, float64 of shape `(1, height, width)`."""
    stream = io.BytesIO()
    np.save(stream, image.astype(np.float64, copy=False)[None])
    write_file(file, stream.getbuffer())


def is_written(file: Path, size: int) -> bool:
    """Returns whether `write_image` has written a complete image; a power failure can leave a shorter file.

    Args:
      file: the file.
      size: height and width of the image, pixels.
    """
    return file.is_file() and file.stat().st_size == _image_length(size)


@functools.lru_cache
def _image_length(size: int) -> int:
    stream = io.BytesIO()
    np.save(stream, np.zeros((1, size, size)))
    return stream.tell()


def write_file(file: Path, data: bytes | memoryview) -> None:
    """Writes a file through a temporary file, so that an interruption leaves no incomplete file."""
    temporary = file.with_name(file.name + ".part")
    with naming(file):
        temporary.unlink(missing_ok=True)  # a link must not be followed
        with temporary.open("xb") as stream:
            stream.write(data)
        temporary.replace(file)
