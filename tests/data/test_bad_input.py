"""Messages for damaged files, missing folders and unsafe archives in the published layout."""

import os
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from helpers.data_files import SIZE, count_image, fractional_image, npy_bytes, write_folder, write_zip

from lensjax.data.reference_layout import read_reference_layout
from lensjax.errors import UserError


def error_message(path, image_size=SIZE):
    with pytest.raises(UserError) as caught:
        read_reference_layout(path, image_size)
    return str(caught.value)


BAD_FILES = {
    "empty": (b"", "empty file (0 bytes); copy or download it again"),
    "text": (b"hello", "not a .npy file; convert it with np.save(path, image)"),
    "truncated": (
        npy_bytes(count_image(0))[:-100],
        "truncated: 412 of 512 bytes of pixels; copy or download it again",
    ),
    "shape": (
        npy_bytes(np.eye(64)),
        "shape (64, 64), expected (8, 8); set the image size (config.data.image_size, or --image-size of "
        "prepare-tfds) to 64 for Model II to IV images",
    ),
    "nan": (
        npy_bytes(np.where(np.eye(SIZE), np.nan, 1.0)),
        "8 of 64 pixels are NaN or infinite; remove the image or replace them with finite values",
    ),
    "infinite": (
        npy_bytes(np.where(np.eye(SIZE), np.inf, 1.0)),
        "8 of 64 pixels are NaN or infinite; remove the image or replace them with finite values",
    ),
    "constant": (
        npy_bytes(np.full((SIZE, SIZE), 0.5)),
        "every pixel is 0.5, so the image shows no lens and cannot be scaled to [0, 1]; remove it",
    ),
    "pickle": (
        npy_bytes(np.array([count_image(0), 1e-23], dtype=object)),
        "contains pickled Python objects, which are never loaded because they can run code; "
        "convert DeepLenseSim's files with lensjax import, or save only the image with "
        "np.save(path, image.astype(float))",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_file_error_has_path_and_advice(make_source, files, kind):
    files["train/sphere/2.npy"], message = BAD_FILES[kind]
    source = make_source(files)
    assert error_message(source) == f"{source}/train/sphere/2.npy: {message}"


def test_file_of_other_type_is_reported(make_source, files):
    files["val/no/notes.txt"] = b"hello"
    source = make_source(files)
    message = "not a .npy file; convert it with np.save(path, image) or remove it"
    assert error_message(source) == f"{source}/val/no/notes.txt: {message}"


def test_folder_inside_class_folder_is_reported(make_source, files):
    files["train/no/more/3.npy"] = npy_bytes(count_image(0))
    source = make_source(files)
    assert error_message(source) == f"{source}/train/no/more: unexpected folder; move its images up"


def test_error_counts_bad_files_and_lists_ten(make_source, files):
    for index in range(10, 22):
        files[f"train/vort/{index}.npy"] = b"hello"
    files["val/no/1.npy"] = b"hello"
    lines = error_message(make_source(files)).split("\n")
    assert lines[0].endswith(": 13 problems in 24 images:")
    assert [line.split(":")[0].strip() for line in lines[1:11]] == [
        f"train/vort/{index}.npy" for index in range(10, 20)
    ]
    assert lines[11:] == ["  and 3 more"]


def test_bad_files_of_float32_split_are_reported(make_source, files):
    files["train/no/1.npy"] = npy_bytes(fractional_image(0))
    files["train/vort/2.npy"] = b"hello"
    files["val/vort/2.npy"] = b"hello"
    lines = error_message(make_source(files)).split("\n")
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["train/vort/2.npy", "val/vort/2.npy"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_split_is_reported_with_existing_ones(make_source, files, split):
    remaining = {name: content for name, content in files.items() if not name.startswith(split)}
    source = make_source(remaining)
    found = "val" if split == "train" else "train"
    assert error_message(source) == (
        f"{source}: no {split}/ (found {found}); "
        "specify the folder or zip archive that contains train/ and val/"
    )


def test_empty_source_is_reported(make_source):
    assert ": no train/ and val/ (found no folders)" in error_message(make_source({"a.txt": b""}))


def test_missing_class_is_reported_with_its_alias(make_source, files):
    remaining = {name: content for name, content in files.items() if not name.startswith("val/sphere")}
    source = make_source(remaining)
    assert error_message(source) == (
        f"{source}/val: no class folder sphere (or cdm); each class needs images in each split"
    )


def test_empty_class_folder_is_reported(make_source, files):
    remaining = {name: content for name, content in files.items() if not name.startswith("val/vort")}
    source = make_source({**remaining, "val/vort/": b""})
    assert error_message(source) == (
        f"{source}/val/vort: no .npy files; each class needs images in each split"
    )


def test_folder_of_unknown_class_is_reported(make_source, files):
    files["train/spheres/1.npy"] = files["train/sphere/1.npy"]
    assert "train/spheres: not one of the classes no, sphere, vort" in error_message(make_source(files))


def test_image_outside_class_folders_is_reported(make_source, files):
    files["train/1.npy"] = files["train/no/1.npy"]
    source = make_source({**files, "train/README.txt": b"about"})
    assert error_message(source) == f"{source}/train/1.npy: not in a class folder; move it into one"


def test_class_under_two_names_is_reported(make_source, files):
    files["train/cdm/1.npy"] = files["train/sphere/1.npy"]
    message = error_message(make_source(files))
    assert "train/sphere: same class as train/cdm; keep only one of them" in message


def test_missing_source_is_reported(tmp_path):
    source = tmp_path / "nowhere.zip"
    assert error_message(source) == f"{source}: no such file or folder; check the path"


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_file_that_is_not_an_archive_is_reported(tmp_path, content):
    source = tmp_path / "dataset.zip"
    source.write_bytes(content)
    assert error_message(source).startswith(f"{source}: not a zip archive, or truncated")


def test_truncated_archive_is_reported(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    source.write_bytes(source.read_bytes()[:-500])
    assert error_message(source).startswith(f"{source}: not a zip archive, or truncated")


@pytest.mark.parametrize(
    "name", ["../train/no/3.npy", "train/../../3.npy", "/train/no/3.npy", "..\\3.npy", "C:\\3.npy"]
)
def test_archive_entry_outside_the_archive_is_rejected(tmp_path, files, name):
    source = write_zip(tmp_path / "dataset.zip", {**files, name: npy_bytes(count_image(0))})
    message = error_message(source)
    assert f"the entry {name!r} points outside the archive" in message
    assert "\n" not in message


@pytest.mark.parametrize("end", ["", "x.npy"], ids=["folder", "file"])
@pytest.mark.parametrize("depth", [100, 101])
def test_archive_entry_may_be_in_100_folders(tmp_path, files, depth, end):
    source = write_zip(tmp_path / "dataset.zip", {**files, "a/" * depth + end: b""})
    if depth == 100:
        read_reference_layout(source, SIZE)
    else:
        assert "has more than 100 folders; create the archive again" in error_message(source)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_archive_entry_is_reported(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("train/no/1.npy", npy_bytes(count_image(7)))
    assert "two entries are named train/no/1.npy" in error_message(source)


def edit_entry(source, name, *, local=None, central=None):
    """Overwrites bytes of an entry's two headers, given as {offset: bytes}."""
    with zipfile.ZipFile(source) as archive:
        start = archive.getinfo(name).header_offset
    data = bytearray(source.read_bytes())
    directory = data.rindex(name.encode()) - 46
    for base, edits in ((start, local or {}), (directory, central or {})):
        for offset, value in edits.items():
            data[base + offset : base + offset + len(value)] = value
    source.write_bytes(bytes(data))


def test_encrypted_entry_is_reported(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    edit_entry(source, "val/no/2.npy", local={6: b"\x01"}, central={8: b"\x01"})
    assert error_message(source) == (
        f"{source}/val/no/2.npy: encrypted; create the archive again without a password"
    )


def test_entry_with_wrong_checksum_is_reported(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    wrong = struct.pack("<I", zlib.crc32(files["val/no/2.npy"]) ^ 1)
    edit_entry(source, "val/no/2.npy", local={14: wrong}, central={16: wrong})
    message = error_message(source)
    assert message.startswith(f"{source}/val/no/2.npy: damaged in the archive (Bad CRC-32")
    assert message.endswith("copy or download the archive again")


def test_damaged_entry_is_reported(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    edit_entry(source, "val/no/2.npy", local={45: b"\xff" * 40})
    assert f"{source}/val/no/2.npy: damaged in the archive" in error_message(source)


def test_unknown_compression_method_is_reported(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    edit_entry(source, "val/no/2.npy", local={8: b"\x63\x00"}, central={10: b"\x63\x00"})
    assert f"{source}/val/no/2.npy: cannot decompress" in error_message(source)


def test_zip_bomb_is_read_only_partially(tmp_path, files):
    bomb = npy_bytes(np.zeros((1, 100))) + b"\0" * 50_000_000
    source = write_zip(tmp_path / "dataset.zip", {**files, "train/no/3.npy": bomb})
    tracemalloc.start()
    try:
        message = error_message(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "train/no/3.npy: shape (1, 100), expected (8, 8)" in message
    assert peak < 2_000_000


def test_broken_link_is_reported(tmp_path, files):
    source = write_folder(tmp_path / "dataset", files)
    (source / "train/no/3.npy").symlink_to(source / "nowhere.npy")
    message = error_message(source)
    assert message == f"{source}/train/no/3.npy: broken link or not a regular file; remove it"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_is_reported_without_blocking(tmp_path, files):
    source = write_folder(tmp_path / "dataset", files)
    os.mkfifo(source / "train/no/3.npy")
    assert "broken link or not a regular file" in error_message(source)


def test_recursive_link_is_reported(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path)
    assert "\n" not in error_message(tmp_path)


def test_unreadable_file_is_reported(tmp_path, files, monkeypatch):
    source = write_folder(tmp_path / "dataset", files)
    opened = type(source).open

    def refuse(path, *arguments, **named):
        if path.name == "2.npy" and path.parts[-3:-1] == ("val", "no"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **named)

    monkeypatch.setattr(type(source), "open", refuse)
    assert error_message(source) == f"{source}/val/no/2.npy: cannot read: Permission denied"


def test_unreadable_folder_is_reported(tmp_path, files, monkeypatch):
    source = write_folder(tmp_path / "dataset", files)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sphere"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert error_message(source) == f"{source}/train/sphere: cannot read: Permission denied"


@pytest.mark.parametrize(
    ("name", "right"), [("No", "no"), ("Vort", "vort"), ("spheres", "sphere"), ("CDM ", "cdm")]
)
def test_misspelled_class_folder_error_has_advice(tmp_path, files, name, right):
    found = {path.replace("train/no/", f"train/{name}/"): content for path, content in files.items()}
    message = error_message(write_folder(tmp_path / "dataset", found))
    assert f"train/{name}: not one of the classes" in message
    assert f"; rename it to {right}" in message


def test_misspelled_split_error_has_advice(tmp_path, files):
    found = {path.replace("val/", "Valid/").replace("train/", "Train/"): data for path, data in files.items()}
    message = error_message(write_folder(tmp_path / "dataset", found))
    assert message.endswith("rename Train to train, Valid to val")


def test_missing_splits_error_suggests_import(make_source, files):
    found = {
        path.removeprefix("train/").replace("vort/", "axion/"): content
        for path, content in files.items()
        if "train/" in path
    }
    assert error_message(make_source(found)).endswith(
        "(found axion, no, sphere); divide the images into splits with lensjax import, and use its output"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_as_source_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "dataset.zip")
    assert "not a regular file" in error_message(tmp_path / "dataset.zip")
