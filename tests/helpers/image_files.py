"""One image in every file format that prediction reads."""

import bz2
import gzip
import io
import pathlib

import h5py
import numpy as np
from astropy.io import fits
from PIL import Image


def bars(seed: int, size: int = 32) -> np.ndarray:
    """Photon counts with three bright bars at random rows."""
    generator = np.random.default_rng(seed)
    counts = generator.poisson(200, (size, size))
    for place in generator.integers(0, size, 3):
        counts[place] += 900
    return counts.astype(np.uint16)


def npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def fits_bytes(*arrays: np.ndarray, names: tuple[str, ...] = ("",)) -> bytes:
    stream = io.BytesIO()
    units = [fits.ImageHDU(array, name=name) for array, name in zip(arrays, names, strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(stream)
    return stream.getvalue()


def picture_bytes(kind: str, *pages: np.ndarray) -> bytes:
    stream = io.BytesIO()
    first, *others = map(Image.fromarray, pages)
    more = {"save_all": True, "append_images": others} if others else {}
    first.save(stream, kind, **more)
    return stream.getvalue()


def npz_bytes(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def h5_bytes(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return stream.getvalue()


def every_kind(image: np.ndarray) -> dict[str, bytes]:
    """Files from which only the given image is read, by name."""
    packed = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image.astype(np.int32))]).writeto(packed)
    return {
        "plain.npy": npy_bytes(image),
        "published.npy": npy_bytes(image[None].astype(float)),
        "last.npy": npy_bytes(image[..., None].astype(np.float32)),
        "fortran.npy": npy_bytes(np.asfortranarray(image)),
        "big_endian.NPY": npy_bytes(image.astype(">i8")),
        "one.npz": npz_bytes(image=image, labels=np.arange(3)),
        "one.fits": fits_bytes(image),
        "one.fits.gz": gzip.compress(fits_bytes(image.astype(np.float32))),
        "one.fits.bz2": bz2.compress(fits_bytes(image.astype(np.float32))),
        "packed.fits.fz": packed.getvalue(),
        "hubble.fits": fits_bytes(image, 0.1 * image, names=("SCI", "ERR")),
        "sixteen.png": picture_bytes("PNG", image),
        "sixteen.tif": picture_bytes("TIFF", image),
        "float.tiff": picture_bytes("TIFF", image.astype(np.float32)),
        "one.h5": h5_bytes(image=image, names=np.array([b"a"]), labels=np.arange(3)),
    }


def bad_files(image: np.ndarray) -> dict[str, tuple[bytes, str]]:
    """Invalid files and parts of their error messages, by name."""
    holes, stack = image.astype(float), fits_bytes(image)
    holes[3, :2] = np.nan
    pickled = np.empty(1, object)
    pickled[0] = image
    stream = io.BytesIO()
    np.save(stream, pickled, allow_pickle=True)
    colors = np.zeros((*image.shape, 3), np.uint8)
    colors[..., 0] = image % 256
    return {
        "text.npy": (b"not an image\n", "not a .npy file"),
        "empty.npy": (b"", "empty file"),
        "cut.npy": (npy_bytes(image)[:-9], "truncated"),
        "longer.npy": (npy_bytes(image) + b"more", "extra bytes after the array"),
        "pickled.npy": (stream.getvalue(), "pickled Python objects"),
        "nan.npy": (npy_bytes(holes), "2 of 1,024 pixels are NaN"),
        "flat.npy": (npy_bytes(np.ones_like(image)), "every pixel is 1"),
        "complex.npy": (npy_bytes(image + 1j), "complex128 values"),
        "small.npy": (npy_bytes(image[:9, :9]), "shape (9, 9), expected (32, 32)"),
        "none.npy": (npy_bytes(np.zeros((0, 32, 32))), "contains no pixels"),
        "row.npy": (npy_bytes(np.arange(9)), "shape (9,): not images"),
        "cut.fits": (stack[: len(stack) - 1000], "truncated: 1,880 of 2,048 bytes of pixels"),
        "cut_early.fits": (stack[:2900], "a header has no END"),
        "text.fits": (b"not SIMPLE", "is not a FITS file"),
        "cut.fits.gz": (gzip.compress(stack)[:200], "compressed data are truncated"),
        "cut.png": (picture_bytes("PNG", image)[:300], "truncated"),
        "text.tif": (b"II*", "is not a PNG or TIFF image"),
        "colors.png": (picture_bytes("PNG", colors), "is a color image"),
        "cut.h5": (h5_bytes(image=image)[:900], "cannot be read as .h5"),
        "labels.h5": (h5_bytes(labels=np.arange(3)), "contains no image"),
        "text.npz": (b"PK", "cannot be read as .npz"),
    }


def write(folder: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    """Writes files into a folder, by name."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
