"""Small images in the published layout, written as a folder or as a zip archive."""

import io
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

SIZE = 8


def npy_bytes(array: np.ndarray) -> bytes:
    """Content of a .npy file that contains the array."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def count_image(seed: int, largest: int = 800) -> np.ndarray:
    """Image like the published images: photon counts from 0 to `largest`, divided by `largest`."""
    counts = np.random.default_rng(seed).integers(0, largest + 1, (SIZE, SIZE))
    counts[0, :2] = 0, largest
    return (counts / largest)[None]


def fractional_image(seed: int) -> np.ndarray:
    """Image from 0 to 1 that does not consist of scaled counts."""
    image = np.random.default_rng(seed).uniform(size=(SIZE, SIZE))
    image[0, :2] = 0, 1
    return image


def write_folder(path: pathlib.Path, files: Mapping[str, bytes]) -> pathlib.Path:
    """Writes files into a folder; names that end with a slash become empty folders."""
    for name, content in files.items():
        file = path / name
        if name.endswith("/"):
            file.mkdir(parents=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def write_zip(path: pathlib.Path, files: Mapping[str, bytes]) -> pathlib.Path:
    """Writes files into a compressed zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
