"""Readers for image files; they load the images of a file one at a time, on demand."""

import importlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import PurePosixPath

import numpy as np

from lensjax.decoding import describe_error, suppress_warnings
from lensjax.errors import UserError
from lensjax.prediction.readers.entry import CheckSize, Entry, check_type, error_entry

# Reader module of each file kind, and the package that it needs.
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
_COMPRESSED = (".gz", ".bz2", ".fz")  # suffixes of compressed FITS files
SUFFIXES = (*_READERS, *(fits + packed for fits in (".fits", ".fit", ".fts") for packed in _COMPRESSED))


def file_kind(name: str) -> str | None:
    """Suffix that determines the reader, without .gz, .bz2 or .fz; None if it is not an image file."""
    lowered = name.lower()
    if not lowered.endswith(SUFFIXES):
        return None
    for suffix in _COMPRESSED:
        lowered = lowered.removesuffix(suffix)
    return PurePosixPath(lowered).suffix


def accept_any_size(shape: tuple[int, int]) -> None:
    """Accepts images of any height and width."""


def entries(
    stream: BufferedIOBase, name: str, check_size: CheckSize = accept_any_size, extension: str | None = None
) -> Iterator[Entry]:
    """The images in a file, in order; if reading fails, the last entry raises the error.

    Args:
      stream: the file; must stay open and seekable while entries are loaded.
      name: name of the file; its suffix, one of `SUFFIXES`, determines the reader.
      check_size: raises UserError if images of a height and width cannot be used, so that a stack of such
        images gives only one error.
      extension: name, number or "name,version" of the only FITS extension to read, or name of the only HDF5
        dataset or .npz array; None for all.
    """
    kind = file_kind(name)
    assert kind is not None  # for the type checker: other files are not listed
    module, package = _READERS[kind]
    found = False
    try:
        read = importlib.import_module(f"lensjax.prediction.readers.{module}").read
        with suppress_warnings():
            for entry in read(stream, check_size, extension):
                found = True
                yield entry
    except UserError as error:
        yield error_entry(str(error))
    except ImportError as error:
        yield error_entry(f'needs {package or error.name}: pip install "lensjax[formats]"')
    except Exception as error:  # decoders can raise any exception for a damaged file
        yield error_entry(
            f"cannot be read as {kind}: {describe_error(error)}; check the file or copy it again"
        )
    else:
        if not found:
            yield error_entry("contains no image")


def load(entry: Entry) -> np.ndarray:
    """Pixels of an entry, `[height, width]`, as stored.

    Raises:
      UserError: if they cannot be read, or are not real numbers of at most 64 bits.
    """
    try:
        with suppress_warnings():
            pixels = np.asarray(entry.load())
    except UserError:
        raise
    except Exception as error:  # as in `entries`
        raise UserError(
            f"cannot be read: {describe_error(error)}; check the file or copy it again"
        ) from error
    return validate_pixels(pixels)


def validate_pixels(pixels: np.ndarray) -> np.ndarray:
    """Pixels in native byte order, with booleans as integers.

    Raises:
      UserError: if they are not real numbers of at most 64 bits.
    """
    check_type(pixels.dtype)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
