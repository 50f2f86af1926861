import os
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from helpers.data_files import (
    SIZE,
    count_image,
    fractional_image,
    npy_bytes,
    write_folder,
    write_zip,
)

from lensjax.data.reference_layout import read_reference_layout
from lensjax.errors import UserError


def error_of(path, image_size=SIZE):
    with pytest.raises(UserError) as caught:
        read_reference_layout(path, image_size)
    return str(caught.value)


BAD_FILES = {
    "empty": (b"", "is empty (0 bytes); copy or download it again"),
    "text": (b"hello", "is not a .npy file; convert it with np.save(path, image)"),
    "truncated": (
        npy_bytes(count_image(0))[:-100],
        "truncated: 412 of 512 bytes of pixels; copy or download it again",
    ),
    "shape": (
        npy_bytes(np.eye(64)),
        "shape (64, 64), expected (8, 8); set config.data.image_size=64 for Model II to IV images",
    ),
    "nan": (
        npy_bytes(np.where(np.eye(SIZE), np.nan, 1.0)),
        "8 of 64 pixels are NaN or infinite; leave the image out or replace them by numbers",
    ),
    "infinite": (
        npy_bytes(np.where(np.eye(SIZE), np.inf, 1.0)),
        "8 of 64 pixels are NaN or infinite; leave the image out or replace them by numbers",
    ),
    "constant": (
        npy_bytes(np.full((SIZE, SIZE), 0.5)),
        "every pixel is 0.5, so it cannot be scaled to 0..1 and shows no lens; leave the image out",
    ),
    "pickle": (
        npy_bytes(np.array([count_image(0), 1e-23], dtype=object)),
        "holds pickled Python objects, and pickles are never loaded because they can run code; "
        "re-save the image alone with np.save(path, np.asarray(image, dtype=float))",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_with_its_path_and_what_to_do(make_source, files, kind):
    files["train/sphere/2.npy"], message = BAD_FILES[kind]
    source = make_source(files)
    assert error_of(source) == f"{source}/train/sphere/2.npy: {message}"


def test_a_file_of_another_kind_is_told(make_source, files):
    files["val/no/notes.txt"] = b"hello"
    source = make_source(files)
    message = "is not a .npy file; convert it with np.save(path, image) or remove it"
    assert error_of(source) == f"{source}/val/no/notes.txt: {message}"


def test_a_folder_within_a_class_is_told(make_source, files):
    files["train/no/more/3.npy"] = npy_bytes(count_image(0))
    source = make_source(files)
    assert error_of(source) == f"{source}/train/no/more: is a folder; put the images beside it"


def test_all_bad_files_are_counted_and_ten_named(make_source, files):
    for index in range(10, 22):
        files[f"train/vort/{index}.npy"] = b"hello"
    files["val/no/1.npy"] = b"hello"
    lines = error_of(make_source(files)).split("\n")
    assert lines[0].endswith(": 13 problems in 24 images:")
    assert [line.split(":")[0].strip() for line in lines[1:11]] == [
        f"train/vort/{index}.npy" for index in range(10, 20)
    ]
    assert lines[11:] == ["  and 3 more"]


def test_bad_files_are_told_also_in_a_split_of_float32(make_source, files):
    files["train/no/1.npy"] = npy_bytes(fractional_image(0))
    files["train/vort/2.npy"] = b"hello"
    files["val/vort/2.npy"] = b"hello"
    lines = error_of(make_source(files)).split("\n")
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "train/vort/2.npy",
        "val/vort/2.npy",
    ]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_told_with_what_was_found(make_source, files, split):
    kept = {name: content for name, content in files.items() if not name.startswith(split)}
    source = make_source(kept)
    found = "val" if split == "train" else "train"
    assert error_of(source) == (
        f"{source}: has no {split}/ (found {found}); "
        "give the folder or zip archive that holds train/ and val/"
    )


def test_an_empty_source_is_told(make_source):
    assert "has no train/ and val/ (found no folders)" in error_of(make_source({"a.txt": b""}))


def test_a_missing_class_is_told_with_its_other_name(make_source, files):
    kept = {name: content for name, content in files.items() if not name.startswith("val/sphere")}
    source = make_source(kept)
    assert error_of(source) == (
        f"{source}/val: has no class folder sphere (or cdm); each class needs images in each split"
    )


def test_an_empty_class_folder_is_told(make_source, files):
    kept = {name: content for name, content in files.items() if not name.startswith("val/vort")}
    source = make_source({**kept, "val/vort/": b""})
    assert error_of(source) == (
        f"{source}/val/vort: has no .npy files; each class needs images in each split"
    )


def test_a_folder_of_no_class_is_told(make_source, files):
    files["train/spheres/1.npy"] = files["train/sphere/1.npy"]
    assert "train/spheres: is none of the classes no, sphere, vort" in error_of(make_source(files))


def test_an_image_outside_the_class_folders_is_told(make_source, files):
    files["train/1.npy"] = files["train/no/1.npy"]
    source = make_source({**files, "train/README.txt": b"about"})
    assert error_of(source) == f"{source}/train/1.npy: is in no class folder; move it into one"


def test_a_class_under_two_names_is_told(make_source, files):
    files["train/cdm/1.npy"] = files["train/sphere/1.npy"]
    message = error_of(make_source(files))
    assert "train/sphere: is the same class as train/cdm; keep one of them" in message


def test_a_source_that_is_not_there_is_told(tmp_path):
    source = tmp_path / "nowhere.zip"
    assert error_of(source) == f"{source}: no such file or folder; check config.data.source"


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_a_file_that_is_no_archive_is_told(tmp_path, content):
    source = tmp_path / "dataset.zip"
    source.write_bytes(content)
    assert error_of(source).startswith(f"{source}: not a zip archive, or one cut short")


def test_a_truncated_archive_is_told(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    source.write_bytes(source.read_bytes()[:-500])
    assert error_of(source).startswith(f"{source}: not a zip archive, or one cut short")


@pytest.mark.parametrize(
    "name", ["../train/no/3.npy", "train/../../3.npy", "/train/no/3.npy", "..\\3.npy", "C:\\3.npy"]
)
def test_an_archive_that_points_outside_itself_is_refused(tmp_path, files, name):
    source = write_zip(tmp_path / "dataset.zip", {**files, name: npy_bytes(count_image(0))})
    message = error_of(source)
    assert f"refused, because its entry {name!r} points outside the archive" in message
    assert "\n" not in message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_entries_of_one_name_is_told(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("train/no/1.npy", npy_bytes(count_image(7)))
    assert "has two entries named train/no/1.npy" in error_of(source)


def edit_entry(source, name, *, local=None, central=None):
    """Overwrites bytes of an entry's two headers: {offset: bytes} each."""
    with zipfile.ZipFile(source) as archive:
        start = archive.getinfo(name).header_offset
    data = bytearray(source.read_bytes())
    directory = data.rindex(name.encode()) - 46
    for base, edits in ((start, local or {}), (directory, central or {})):
        for offset, value in edits.items():
            data[base + offset : base + offset + len(value)] = value
    source.write_bytes(bytes(data))


def test_an_encrypted_entry_is_told(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    edit_entry(source, "val/no/2.npy", local={6: b"\x01"}, central={8: b"\x01"})
    assert error_of(source) == (
        f"{source}/val/no/2.npy: is encrypted; make the archive again without a password"
    )


def test_an_entry_with_a_wrong_checksum_is_told(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    wrong = struct.pack("<I", zlib.crc32(files["val/no/2.npy"]) ^ 1)
    edit_entry(source, "val/no/2.npy", local={14: wrong}, central={16: wrong})
    message = error_of(source)
    assert message.startswith(f"{source}/val/no/2.npy: is damaged inside the archive (Bad CRC-32")
    assert message.endswith("copy or download the archive again")


def test_an_entry_whose_bytes_are_damaged_is_told(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    edit_entry(source, "val/no/2.npy", local={45: b"\xff" * 40})
    assert f"{source}/val/no/2.npy: is damaged inside the archive" in error_of(source)


def test_an_entry_packed_by_an_unknown_method_is_told(tmp_path, files):
    source = write_zip(tmp_path / "dataset.zip", files)
    edit_entry(source, "val/no/2.npy", local={8: b"\x63\x00"}, central={10: b"\x63\x00"})
    assert f"{source}/val/no/2.npy: cannot be unpacked" in error_of(source)


def test_an_entry_that_unpacks_to_far_more_is_read_only_so_far(tmp_path, files):
    bomb = npy_bytes(np.zeros((1, 100))) + b"\0" * 50_000_000
    source = write_zip(tmp_path / "dataset.zip", {**files, "train/no/3.npy": bomb})
    tracemalloc.start()
    try:
        message = error_of(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "train/no/3.npy: shape (1, 100), expected (8, 8)" in message
    assert peak < 2_000_000


def test_a_broken_link_is_told(tmp_path, files):
    source = write_folder(tmp_path / "dataset", files)
    (source / "train/no/3.npy").symlink_to(source / "nowhere.npy")
    message = error_of(source)
    assert message == f"{source}/train/no/3.npy: is a broken link or no file at all; remove it"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_told_and_not_waited_for(tmp_path, files):
    source = write_folder(tmp_path / "dataset", files)
    os.mkfifo(source / "train/no/3.npy")
    assert "is a broken link or no file at all" in error_of(source)


def test_a_link_to_itself_is_told(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path)
    assert "\n" not in error_of(tmp_path)


def test_an_unreadable_file_is_told(tmp_path, files, monkeypatch):
    source = write_folder(tmp_path / "dataset", files)
    opened = type(source).open

    def refuse(path, *arguments, **named):
        if path.name == "2.npy" and path.parts[-3:-1] == ("val", "no"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **named)

    monkeypatch.setattr(type(source), "open", refuse)
    assert error_of(source) == f"{source}/val/no/2.npy: cannot be read: Permission denied"


def test_an_unreadable_folder_is_told(tmp_path, files, monkeypatch):
    source = write_folder(tmp_path / "dataset", files)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sphere"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert error_of(source) == f"{source}/train/sphere: cannot be read: Permission denied"
