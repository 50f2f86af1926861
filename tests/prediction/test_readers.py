"""Readers of image files: exact pixels, skipped planes, false sizes, and endless sources."""

import bz2
import gzip
import io
import os
import struct
import time
import zipfile

import h5py
import numpy as np
import pytest
from astropy.io import fits
from helpers.image_files import bars, fits_bytes, h5_bytes, npy_bytes, npz_bytes, picture_bytes, write
from helpers.picture_files import png_bytes, tiff_bytes
from PIL import Image

from lensjax.errors import UserError
from lensjax.prediction import readers
from lensjax.prediction.files import read_images
from lensjax.prediction.readers.listing import find_images
from lensjax.prediction.readers.sizes import TargetSize, find_zoom

IMAGE = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)


def read(content, name, extension=None):
    """Names and pixels, or error messages, of all images in a file."""
    found = {}
    for entry in readers.entries(io.BytesIO(content), name, extension=extension):
        try:
            found[entry.part] = readers.load(entry)
        except UserError as error:
            found[entry.part] = str(error)
    return found


def rows(folder, target=None, **options):
    """Names and error messages of the rows of all files in a folder or archive."""
    listing = find_images(str(folder))
    images = read_images(listing, target or TargetSize(32), **options)
    return {image.name: image.error for image in images}


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_png_are_kept(color_type, channels):
    low = IMAGE % 200  # the high bytes are zero
    for image in (IMAGE, low):
        content = png_bytes(np.repeat(image[..., None], channels, 2), color_type)
        np.testing.assert_array_equal(read(content, "a.png")[""], image)
    if color_type == 2:
        colors = np.stack([low, low, low + 1], -1)  # equal high bytes
        assert read(png_bytes(colors, 2), "a.png")[""] == "is a color image; save a single channel"


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", "<i4", ">i4", "<f4", ">f4"])
def test_every_tiff_type_is_read_exactly(kind, deflate):
    values = np.random.default_rng(1).uniform(-1, 1, (20, 30))
    dtype = np.dtype(kind)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    image = (values * float(limits.max) if limits.min else abs(values) * float(limits.max)).astype(dtype)
    np.testing.assert_array_equal(read(tiff_bytes(image, deflate=deflate), "a.tif")[""], image)


@pytest.mark.parametrize("deflate", [False, True])
def test_tiff_colors_and_inverted_values_are_exact(deflate):
    for order in "<>":
        colors = np.repeat(IMAGE[..., None], 3, 2).astype(f"{order}u2")
        np.testing.assert_array_equal(
            read(tiff_bytes(colors, photometric=2, deflate=deflate), "a.tif")[""], IMAGE
        )
    for image, largest in ((IMAGE.astype("<u2"), 65535), ((IMAGE % 256).astype("u1"), 255)):
        found = read(tiff_bytes(image, photometric=0, deflate=deflate), "a.tif")[""]
        np.testing.assert_array_equal(found, largest - image)
    content = tiff_bytes(IMAGE.astype("<f4"), photometric=0, deflate=deflate)
    assert "white as 0" in read(content, "a.tif")[""]


def test_animation_gives_one_error():
    content = picture_bytes("PNG", *(bars(seed).astype(np.uint8) for seed in range(3)))
    assert list(read(content, "a.png").values()) == ["is an animation; save each image to a file of its own"]


def packed_fits(image, **options):
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image, **options)]).writeto(stream)
    return stream.getvalue()


def test_compressed_fits_files_contain_the_same_image():
    image = IMAGE.astype(np.int32)
    for name, content in {
        "a.fits.gz": gzip.compress(fits_bytes(image)),
        "a.fit.bz2": bz2.compress(fits_bytes(image)),
        "a.fits.fz": packed_fits(image),
        "a.fits": packed_fits(np.stack([image, image[::-1]]), tile_shape=(2, 20, 30)),
    }.items():
        first = next(iter(read(content, name).values()))
        np.testing.assert_array_equal(first, image)


def test_auxiliary_planes_are_skipped():
    images = [IMAGE + number for number in range(7)]
    names = ("VIS_BGSUB", "VIS_PSF", "VIS_RMS", "NIR_H_BGSUB", "MASK1", "DQ", "")
    content = fits_bytes(*images, names=names)
    found = read(content, "a.fits")
    assert list(found) == [":VIS_BGSUB", ":NIR_H_BGSUB", ":7"]
    np.testing.assert_array_equal(found[":NIR_H_BGSUB"], images[3])
    for extension in ("vis_psf", "2"):
        np.testing.assert_array_equal(read(content, "a.fits", extension)[""], images[1])
    assert read(content, "a.fits", "Y")[""] == (
        "has no extension Y; available: VIS_BGSUB, VIS_PSF, VIS_RMS, NIR_H_BGSUB, MASK1, DQ, 7; "
        "correct --extension"
    )
    chips = fits.HDUList([fits.PrimaryHDU()] + [fits.ImageHDU(IMAGE, name="SCI", ver=ver) for ver in (1, 2)])
    stream = io.BytesIO()
    chips.writeto(stream)
    assert list(read(stream.getvalue(), "a.fits")) == [":SCI,1", ":SCI,2"]
    assert "contains only PSF, WHT" in read(fits_bytes(*images[:2], names=("PSF", "WHT")), "a.fits")[""]
    arrays = {"image": IMAGE, "psf": IMAGE[:9, :9], "noise_map": IMAGE}
    for name, content in {"a.npz": npz_bytes(**arrays), "a.h5": h5_bytes(**arrays)}.items():
        assert list(read(content, name)) == [":image"]
        assert list(read(content, name, "psf")) == [":psf"]


def test_hdf5_data_outside_the_file_are_not_read(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(256)) * 4)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = bars(0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("external", (32, 32), "u1", external=[(str(tmp_path / "secret"), 0, 1024)])
        layout = h5py.VirtualLayout((32, 32), "u2")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (32, 32))
        file.create_virtual_dataset("virtual", layout)
        file["link"] = h5py.ExternalLink("other.h5", "x")
        file.create_dataset("empty", (32, 32), "f4")
        file.create_dataset("sparse", (4, 32, 32), "f4", chunks=(1, 32, 32))[0] = bars(0)
        file["whole"] = bars(0)[None]
    found = rows(tmp_path / "a.h5")
    assert set(found) == {f"a.h5:{name}" for name in ("sparse", "whole")}
    assert found["a.h5:sparse"].startswith("only 1 of 4 chunks were written")
    assert found["a.h5:whole"] == ""
    for name, message in {
        "external": "in other files",
        "virtual": "in other files",
        "empty": "only 0 of",
    }.items():
        assert message in rows(tmp_path / "a.h5", extension=name)["a.h5:" + name]


def forged_npy(description, shape):
    stream = io.BytesIO()
    header = {"descr": description, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def forged_npz():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", forged_npy("<f4", (10**6, 32, 32)) + bytes(4096 * 20_000))
    return stream.getvalue()


def forged_card(content, name, value):
    place = content.index(f"{name:<8}= ".encode())
    return content[:place] + f"{name:<8}= {value:>20}".encode() + content[place + 30 :]


PRIMARY = io.BytesIO()
fits.PrimaryHDU(np.zeros((2, 32, 32), np.uint8)).writeto(PRIMARY)
STACK = PRIMARY.getvalue()
PACKED = packed_fits(bars(0).astype(np.int32))
FALSE_SIZES = {
    "bytes.fits.fz": (forged_card(PACKED, "ZVAL2", 10**6), "damaged header"),
    "tile.fits.fz": (forged_card(PACKED, "ZTILE2", 2), "damaged header"),
    "huge.fits.fz": (forged_card(PACKED, "ZNAXIS1", 10**9), "damaged header"),
    "fields.fits.fz": (forged_card(PACKED, "TFIELDS", 10**18), "damaged header"),
    "void.npy": (forged_npy("|V0", (10**9, 32, 32)), "contains |V0 values"),
    "text.npy": (forged_npy("<U0", (10**9, 32, 32)), "contains <U0 values"),
    "long.npy": (forged_npy("<f4", (10**9, 32, 32)), "truncated: 0 of"),
    "long.npz": (forged_npz(), "claims 81,920,128 bytes of pixels in"),
    "many.fits": (forged_card(STACK, "NAXIS3", 10**9), "truncated: "),
    "type.fits": (forged_card(STACK, "BITPIX", 7), "damaged header"),
    "negative.fits": (forged_card(STACK, "NAXIS3", -5), "damaged header"),
    "chunks.h5": (h5_bytes(x=np.zeros((1, 32, 32)))[:-1], "cannot be read as .h5"),
    "bands.npy": (npy_bytes(np.ones((32, 32, 5))), "5 bands along the last axis"),
    "small.npy": (npy_bytes(np.ones((999, 9, 40))), "999 images of shape (9, 40), expected (32, 32)"),
    "no_end.fits": (b"SIMPLE  =                    T".ljust(80) * 360_000, "a header has no END"),
    "no_end.fits.gz": (gzip.compress(b"SIMPLE  =                    T".ljust(80) * 10**6, 1), "has no END"),
    "bomb.fits.gz": (gzip.compress(bytes(2**27)), "expands to more than"),
}


@pytest.mark.parametrize("name", FALSE_SIZES)
def test_false_size_gives_one_row_at_once(tmp_path, name):
    content, message = FALSE_SIZES[name]
    start = time.process_time()
    ((_, error),) = rows(write(tmp_path, {name: content})).items()
    assert message in error
    assert time.process_time() - start < 2


def test_chunk_is_decompressed_once(tmp_path, monkeypatch):
    images = np.stack([bars(seed) for seed in range(50)])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=images, chunks=images.shape, compression="gzip")
    calls = []
    original = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda self, key: calls.append(key) or original(self, key)
    )
    assert list(rows(tmp_path / "a.h5").values()) == [""] * 50
    assert len(calls) == 1


def test_consecutive_failures_share_a_row(tmp_path):
    images = np.stack([bars(seed) for seed in range(60)])
    images[5:45] = 0
    write(tmp_path, {"a.npy": npy_bytes(images)})
    everything = list(rows(tmp_path).items())
    assert [name for name, _ in everything] == [f"a.npy[{index}]" for index in (*range(16), *range(45, 60))]
    assert everything[15][1].endswith("; the next 29 images of the file also failed")
    # Resumed after any row, the rest of the table is the same.
    for done, image in enumerate(read_images(find_images(str(tmp_path)), TargetSize(32)), 1):
        rest = rows(tmp_path, first_image=image.num_read)
        assert list(rest.items()) == everything[done:]


def test_links_to_folders_do_not_multiply(tmp_path):
    for name in "abcdefghijkl":
        write(tmp_path / name, {"x.npy": b""})
        for other in "abcdefghijkl":
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    (tmp_path / "here").symlink_to(".")
    listing = find_images(str(tmp_path))
    assert {f"{name}/x.npy" for name in "abcdefghijkl"} <= set(listing.names)
    assert len(listing.names) < 2500
    assert len(find_images(f"{tmp_path}/**/*.npy").names) < 2500


def test_recursive_pattern_matches_like_glob(tmp_path):
    write(
        tmp_path, dict.fromkeys(("a.npy", "n/a.npy", "n/m/b.npy", "n/m/a.fits", ".h/a.npy", "n/c.txt"), b"")
    )
    expected = {
        "**/*.npy": ["a.npy", "n/a.npy", "n/m/b.npy"],
        "n/**/a.*": ["n/a.npy", "n/m/a.fits"],
        "n/**": ["n/a.npy", "n/m/a.fits", "n/m/b.npy"],
        "**/m/*": ["n/m/a.fits", "n/m/b.npy"],
        "*/*.npy": ["n/a.npy"],
        "**/?/[ab].npy": ["n/a.npy", "n/m/b.npy"],
    }
    for pattern, names in expected.items():
        assert find_images(f"{tmp_path}/{pattern}").names == [f"{tmp_path}/{name}" for name in names]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["a.npy", "a.zip", "a.fits.gz"])
def test_named_pipes_do_not_block(tmp_path, name):
    os.mkfifo(tmp_path / name)
    try:
        message = rows(tmp_path / name)[name]
    except UserError as error:
        message = str(error)
    assert "not a regular file" in message


def test_other_files_are_counted(tmp_path):
    write(tmp_path, dict.fromkeys(("a.npy", "b.jpg", "c.JPG", "notes.txt", "LICENSE"), b""))
    assert find_images(str(tmp_path)).describe_skipped() == "2 .jpg, 1 without suffix, 1 .txt"
    with pytest.raises(UserError, match="its compression changes the noise"):
        find_images(str(tmp_path / "b.jpg"))


def uncompressed(kind, images):
    """A file with checksums and uncompressed pixels, which can be decoded whichever byte is changed."""
    stream = io.BytesIO()
    if kind == "png":
        Image.fromarray(images[0]).save(stream, "PNG", compress_level=0)
    else:
        np.savez(stream, images=images)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_wrong_checksum_is_an_error(kind):
    images = np.random.default_rng(1).integers(0, 65536, (3, 128, 128)).astype(np.uint16)
    content = uncompressed(kind, images)
    undamaged = read(content, f"a.{kind}")
    np.testing.assert_array_equal(np.stack(list(undamaged.values())), images[: len(undamaged)])
    places = np.random.default_rng(2).integers(0, len(content), 200)
    rejected = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1
        found = read(damaged, f"a.{kind}")
        errors = [value for value in found.values() if isinstance(value, str)]
        rejected += bool(errors)
        if not errors:  # the byte has no effect on the pixels, such as that of a date
            np.testing.assert_array_equal(np.stack(list(found.values())), images[: len(undamaged)])
        else:
            assert len(errors) == len(found)
    assert rejected > 150


def test_lossy_compression_in_tiff_is_an_error():
    for name in ("jpeg", "tiff_lzw"):
        stream = io.BytesIO()
        Image.fromarray(IMAGE.astype(np.uint8)).save(stream, "TIFF", compression=name)
        found = read(stream.getvalue(), "a.tif")[""]
        if name == "jpeg":
            assert found == "has lossy compression, which changes the noise; use lossless compression"
        else:
            np.testing.assert_array_equal(found, IMAGE.astype(np.uint8))


def test_extension_is_chosen_by_name_and_version():
    units = [fits.ImageHDU(IMAGE + number, name="SCI", ver=number) for number in (1, 2)]
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(stream)
    assert list(read(stream.getvalue(), "a.fits")) == [":SCI,1", ":SCI,2"]
    np.testing.assert_array_equal(read(stream.getvalue(), "a.fits", "sci,2")[""], IMAGE + 2)
    assert "no extension SCI,3" in read(stream.getvalue(), "a.fits", "SCI,3")[""]


def test_error_of_a_chosen_part_names_the_damage():
    archive = zip_content({"a.npy": npy_bytes(IMAGE), "b.npy": b"not an array"})
    assert list(read(archive, "a.npz", "a")) == [":a"]
    found = read(archive, "a.npz", "B")
    assert found == {":b": read(archive, "a.npz")[":b"]}
    assert "no extension" not in found[":b"]
    truncated = fits_bytes(IMAGE, IMAGE, names=("X", "Y"))[:-2880]
    found = read(truncated, "a.fits", "Y")[""]
    assert found.startswith("has no extension Y; available: X; correct --extension; truncated")


def test_arrays_of_the_same_name_are_an_error():
    content = zip_content({"a.npy": npy_bytes(IMAGE), "b/": b""})
    np.testing.assert_array_equal(read(content, "a.npz")[":a"], IMAGE)
    both = zip_content({"a.npy": npy_bytes(IMAGE), "a": npy_bytes(IMAGE + 1)})
    assert read(both, "a.npz") == {"": "has two arrays of the same name; write it again with np.savez"}


def zip_content(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def zip_with(tmp_path, edit=bytes, **files):
    content = zip_content({name.replace("_dot_", "."): content for name, content in files.items()})
    (tmp_path / "a.zip").write_bytes(edit(content))
    return tmp_path / "a.zip"


def test_only_invalid_archives_are_refused(tmp_path):
    def version(content):
        place = content.rindex(b"PK\x01\x02") + 6
        return content[:place] + struct.pack("<H", 99) + content[place + 2 :]

    def bad_utf8(content):
        place = content.rindex(b"PK\x01\x02")
        flags = content[: place + 8] + struct.pack("<H", 0x800) + content[place + 10 :]
        return flags.replace(b"n.npy", b"\xff.npy")

    for edit in (version, bad_utf8):
        with pytest.raises(UserError, match=r"truncated \(.*\); copy or download it again, or .* folder$"):
            rows(zip_with(tmp_path, edit, n_dot_npy=b""))
    with pytest.raises(UserError, match="more than 100 folders"):
        rows(zip_with(tmp_path, **{"a/" * 30_000 + "a.npy": b""}))
    digits = "1" * 5_000 + ".npy"
    assert rows(zip_with(tmp_path, **{digits: npy_bytes(bars(0))})) == {digits: ""}
    assert "claims 100,000,000 bytes" in rows(zip_with(tmp_path, a_dot_npy=bytes(10**8)))["a.npy"]


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e9, 0.0, -1.0, 1e-6])
def test_impossible_pixel_scales_are_refused(scale):
    with pytest.raises(UserError, match=r"must be from 0\.0005 to 0\.2 arcsec"):
        find_zoom(scale, 0.05, has_fit=False)
