"""Image files of the field, whatever their kind: what lies in each, image by image, read when asked for."""

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import PurePosixPath

import numpy as np

from lensjax.errors import UserError
from lensjax.prediction.readers.entry import Entry, unreadable

# The module that reads each kind, and the package it needs that lensjax itself can do without.
_READERS = {
    ".npy": ("arrays", None),
    ".npz": ("archives", None),
    ".fits": ("fits_files", "astropy"),
    ".fit": ("fits_files", "astropy"),
    ".fts": ("fits_files", "astropy"),
    ".png": ("pictures", "pillow"),
    ".tif": ("pictures", "pillow"),
    ".tiff": ("pictures", "pillow"),
    ".h5": ("hdf5", "h5py"),
    ".hdf5": ("hdf5", "h5py"),
}
SUFFIXES = (*_READERS, ".fits.gz", ".fit.gz", ".fts.gz")


def kind_of(name: str) -> str | None:
    """The suffix that says how a file is read, without .gz; None where it is no image's."""
    lowered = name.lower()
    if not lowered.endswith(SUFFIXES):
        return None
    return PurePosixPath(lowered.removesuffix(".gz")).suffix


def entries(stream: BufferedIOBase, name: str) -> Iterator[Entry]:
    """The images in a file, in order; a file that cannot be read is one entry that says so.

    Args:
      stream: the file, open and seekable for as long as entries are loaded.
      name: its name, whose suffix says what kind it is: one of `SUFFIXES`.
    """
    kind = kind_of(name)
    assert kind is not None  # for the type checker: only such files are listed
    module, package = _READERS[kind]
    found = False
    try:
        read = importlib.import_module(f"lensjax.prediction.readers.{module}").read
        with quiet():
            for entry in read(stream):
                found = True
                yield entry
    except UserError as error:
        yield unreadable(str(error))
    except ImportError as error:
        yield unreadable(f'needs {package or error.name}: pip install "lensjax[formats]"')
    except Exception as error:  # a damaged file makes its decoder fail in any way
        yield unreadable(f"cannot be read as {kind}: {_reason(error)}; copy or make it again")
    else:
        if not found:
            yield unreadable("holds no image")


def load(entry: Entry) -> np.ndarray:
    """The pixels of an entry, `[height, width]`, as they are stored.

    Raises:
      UserError: they cannot be read, or are no real numbers of at most 64 bits.
    """
    try:
        with quiet():
            pixels = np.asarray(entry.load())
    except UserError:
        raise
    except Exception as error:  # as above
        raise UserError(f"cannot be read: {_reason(error)}; copy or make it again") from error
    return checked(pixels)


def checked(pixels: np.ndarray) -> np.ndarray:
    """Pixels in this machine's byte order.

    Raises:
      UserError: they are no real numbers of at most 64 bits.
    """
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    if pixels.dtype.kind not in "iuf" or pixels.dtype.itemsize > 8:
        raise UserError(
            f"holds {pixels.dtype} values; save it as floats or integers of at most 64 bits"
        )
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps decoders from warning of what does not matter: odd keywords, unknown tags."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
