"""Small files like those of DeepLenseSim, and pickles that run code."""

import io
import os
import pathlib
import pickle

import numpy as np

from helpers.data_files import SIZE, npy_bytes

FOLDERS = ("no_sub", "cdm", "axion")


class MakesFolder:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def count_image(seed: int, size: int = SIZE) -> np.ndarray:
    """Image of Model I: photon counts."""
    return np.random.default_rng(seed).integers(0, 800, (size, size))


def pair(*elements: object) -> np.ndarray:
    """One-dimensional object array of the elements, even if they are arrays of the same shape."""
    array = np.empty(len(elements), object)
    for place, element in enumerate(elements):
        array[place] = element
    return array


def object_npy(payload: bytes, shape: tuple = (2,)) -> bytes:
    """Content of a .npy file with an object array, pickled as `payload`."""
    stream = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + payload


def pair_npy(image: np.ndarray, mass: object, numpy_version: int = 2) -> bytes:
    """Content of an axion file as saved by NumPy 1 or 2."""
    array = pair(image, mass)
    if numpy_version == 2:
        return npy_bytes(array)
    # NumPy 1.17 to 1.26 used protocol 3 and the old name of the package.
    payload = pickle.dumps(array, protocol=3).replace(b"numpy._core", b"numpy.core")
    return object_npy(payload)


def model_files(number: int = 8, size: int = SIZE) -> dict[str, bytes]:
    """Files of one model by path, `number` of each class, with random names like those of DeepLenseSim."""
    files = {}
    for label, folder in enumerate(FOLDERS):
        for index in range(number):
            seed = number * label + index
            image = count_image(seed, size)
            # The published names have 128-bit numbers.
            name = f"{folder}/{folder}_sim_{seed * 0x9E3779B97F4A7C15 % 2**64 + 2**100}.npy"
            if folder == "axion":
                files[name] = pair_npy(image, axion_mass(seed), numpy_version=1 + index % 2)
            else:
                files[name] = npy_bytes(image[None] if index % 2 else image.astype(float))
    return files


def axion_mass(seed: int) -> np.float64:
    """Axion mass from DeepLenseSim's distribution, eV."""
    return 10 ** np.random.default_rng(seed).uniform(-24, -22)
