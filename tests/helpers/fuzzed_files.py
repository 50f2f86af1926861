"""Valid files of every kind that commands read, and readers that must survive damage to them."""

import pathlib
import tempfile
import warnings
import zipfile

import h5py
import numpy as np
from astropy.io import fits

from helpers.deeplensesim_files import pair_npy
from helpers.image_files import bars, every_kind, fits_bytes, h5_bytes, npy_bytes, picture_bytes
from helpers.picture_files import png_bytes, tiff_bytes
from lensjax.data.deeplensesim import parse_file
from lensjax.data.npy import parse_image
from lensjax.errors import UserError
from lensjax.prediction.files import read_images
from lensjax.prediction.readers.listing import find_images
from lensjax.prediction.readers.sizes import TargetSize

SIZE = 32
MAX_ROWS = 200


def valid_files(folder: pathlib.Path) -> dict[str, bytes]:
    """One valid file of each kind, by a name whose suffix is that of the kind.

    Args:
      folder: folder for temporary files.
    """
    image, stack = bars(0), np.stack([bars(seed) for seed in range(3)])
    kinds = every_kind(image)
    with h5py.File(folder / "packed.h5", "w") as file:
        file.create_dataset("x", data=stack, chunks=(2, SIZE, SIZE), compression="gzip")
    with zipfile.ZipFile(folder / "many.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/plain.npy", "a/one.fits", "b/sixteen.png"):
            archive.writestr(name, kinds[name.rpartition("/")[2]])
    packed = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(stack.astype(np.int32), name="SCI")])
    packed.writeto(folder / "packed.fits.fz")
    shrunk = fits.CompImageHDU(image.astype(np.int32), compression_type="HCOMPRESS_1", hcomp_scale=1)
    fits.HDUList([fits.PrimaryHDU(), shrunk]).writeto(folder / "shrunk.fits.fz")
    return {
        "image.npy": npy_bytes(image),
        "stack.npy": npy_bytes(stack.astype(np.float32)),
        "image.npz": kinds["one.npz"],
        "stack.fits": fits_bytes(stack, image, names=("SCI", "DQ")),
        "image.fits.gz": kinds["one.fits.gz"],
        "image.fits.bz2": kinds["one.fits.bz2"],
        "packed.fits.fz": (folder / "packed.fits.fz").read_bytes(),
        "shrunk.fits.fz": (folder / "shrunk.fits.fz").read_bytes(),
        "gray.png": picture_bytes("PNG", image),
        "color.png": png_bytes(np.repeat(image[..., None], 3, 2), 2),
        "image.tif": tiff_bytes(image.astype("<u2"), deflate=True),
        "pages.tif": picture_bytes("TIFF", *stack),
        "photo.png": picture_bytes("JPEG", (image % 256).astype(np.uint8)),
        "plain.h5": h5_bytes(x=stack, labels=np.arange(3)),
        "packed.h5": (folder / "packed.h5").read_bytes(),
        "many.zip": (folder / "many.zip").read_bytes(),
        "pair.pickle": pair_npy(image, 1e-23),
    }


def survive(name: str, content: bytes) -> str:
    """Reads a damaged file as a command does.

    Args:
      name: name of the file in `valid_files`.
      content: the damaged file.

    Returns:
      "read" if all images could be read, else "rejected".

    Raises:
      AssertionError: if a message has several lines, or there are too many rows.
      Exception: if the reader raises anything but a UserError, which is a bug in the reader.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            errors = _errors(name, content)
        except UserError as error:
            errors = [str(error)]
    assert len(errors) <= MAX_ROWS, f"{len(errors)} rows"
    assert not any("\n" in error for error in errors), errors
    return "rejected" if any(errors) else "read"


def _errors(name: str, content: bytes) -> list[str]:
    if name.endswith(".pickle"):
        parse_file(content)
        parse_image(content, SIZE)
        return [""]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / name
        path.write_bytes(content)
        images = read_images(find_images(str(path)), TargetSize(SIZE))
        return [image.error for _, image in zip(range(MAX_ROWS + 1), images, strict=False)]
