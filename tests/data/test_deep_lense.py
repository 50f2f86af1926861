"""Prepared TensorFlow Datasets data sets: contents, damage and the command that writes them."""

import json
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from helpers.data_files import SIZE, fractional_image, npy_bytes, write_folder, write_zip

from lensjax.data.deep_lense import open_dataset, prepare_dataset
from lensjax.data.reference_layout import read_reference_layout
from lensjax.errors import UserError
from lensjax.main import run


def read_prepared(path, image_size):
    source = open_dataset(path, image_size)
    return source.read(source.parts)


def assert_same(sets, expected):
    assert list(sets) == list(expected)
    for split, images in expected.items():
        assert sets[split].names == images.names
        for field in ("pixels", "scale", "labels"):
            read, original = getattr(sets[split], field), getattr(images, field)
            assert read.dtype == original.dtype
            np.testing.assert_array_equal(read, original)


@pytest.fixture
def prepared(tmp_path, files):
    return prepare_dataset(write_zip(tmp_path / "dataset.zip", files), tmp_path / "tfds", SIZE)


@pytest.mark.parametrize("fractional", [(), ("val/no/1.npy",), ("val/no/1.npy", "train/vort/1.npy")])
def test_prepared_images_are_identical_to_the_source(tmp_path, files, fractional):
    files |= {name: npy_bytes(fractional_image(1)) for name in fractional}
    files |= {name.replace("val/", "test/"): files[name] for name in files if "val/" in name}
    source = write_zip(tmp_path / "dataset.zip", files)
    data_dir = tmp_path / "tfds"
    folder = prepare_dataset(source, data_dir, SIZE)
    assert folder == data_dir / "deep_lense" / "1.0.0"
    expected = read_reference_layout(source, SIZE)
    for path in (data_dir, data_dir / "deep_lense", folder):
        assert_same(read_prepared(path, SIZE), expected)


def test_tfds_reads_the_data_set(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared)
    assert builder.name == "deep_lense"
    assert builder.info.features["label"].names == ["no", "sphere", "vort"]
    example = builder.as_data_source("train")[0]
    assert example["pixels"].dtype == np.uint16
    assert example["name"] == b"train/no/1.npy"


def test_preparation_is_silent_and_leaves_no_other_files(tmp_path, files, capfd, monkeypatch):
    source = write_zip(tmp_path / "dataset.zip", files)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    prepare_dataset(source, tmp_path / "tfds", SIZE)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["deep_lense"]
    assert list(temporary.iterdir()) == []


def test_prepared_data_set_is_never_overwritten(tmp_path, prepared):
    with pytest.raises(UserError, match=r"deep_lense/1\.0\.0 already exists; remove it or choose"):
        prepare_dataset(tmp_path / "dataset.zip", tmp_path / "tfds", SIZE)


def test_bad_image_leaves_no_data_set(tmp_path, files):
    files["val/no/1.npy"] = b"hello"
    with pytest.raises(UserError, match=r"val/no/1\.npy: not a \.npy file"):
        prepare_dataset(write_folder(tmp_path / "dataset", files), tmp_path / "tfds", SIZE)
    assert not (tmp_path / "tfds").exists()


def test_unwritable_folder_is_reported(tmp_path, files):
    (tmp_path / "tfds").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        prepare_dataset(write_zip(tmp_path / "dataset.zip", files), tmp_path / "tfds", SIZE)


def test_folder_without_data_set_is_reported(tmp_path):
    with pytest.raises(UserError, match="contains no prepared deep_lense data set; prepare one with"):
        read_prepared(tmp_path, SIZE)
    with pytest.raises(UserError, match="no such folder"):
        read_prepared(tmp_path / "nowhere", SIZE)


def test_different_image_size_is_reported(prepared):
    with pytest.raises(UserError, match=r"shape \(8, 8\), expected \(9, 9\); set config\.data\."):
        read_prepared(prepared, 9)


def test_other_data_set_is_reported(prepared):
    (prepared / "metadata.json").unlink()
    with pytest.raises(UserError, match="not a deep_lense data set"):
        read_prepared(prepared, SIZE)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
def test_damaged_metadata_is_reported(prepared, name):
    file = prepared / name
    file.write_text(json.dumps(json.loads(file.read_text()))[:-5])
    with pytest.raises(UserError, match="damaged or incomplete data set"):
        read_prepared(prepared, SIZE)


@pytest.mark.parametrize("damage", ["truncated", "missing", "empty"])
def test_damaged_records_are_reported(prepared, damage):
    (file,) = prepared.glob("*-train.array_record*")
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    with pytest.raises(UserError, match="damaged or incomplete data set"):
        read_prepared(prepared, SIZE)


def test_only_deep_lense_imports_tfds():
    code = (
        "import sys, lensjax.data.source, lensjax.data.batches;sys.exit('tensorflow_datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def tool(*arguments):
    return run(["prepare-tfds", *map(str, arguments)])


def test_command_prepares_a_data_set(tmp_path, files, capsys):
    source, data_dir = write_zip(tmp_path / "dataset.zip", files), tmp_path / "tfds"
    assert tool("--source", source, f"--data-dir={data_dir}", "--image-size=8") == 0
    assert f"config.data.source=tfds:{data_dir}" in capsys.readouterr().out
    assert_same(read_prepared(data_dir, SIZE), read_reference_layout(source, SIZE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--source and --data-dir must be given"),
        (["--source", "nowhere.zip", "--data-dir", "x"], "nowhere.zip: no such file or folder"),
        (["--sorce=a", "--data-dir", "x"], "Unknown command line flag 'sorce'"),
        (["--source=a", "--data-dir=x", "--image-size=big"], "image-size"),
        (["--source=a", "--data-dir=x", "--image-size=0"], "image-size"),
        (["dataset.zip"], "'dataset.zip' is not a flag"),
    ],
)
def test_invalid_command_gives_one_line_and_code_2(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert tool(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_help_lists_every_flag(capsys):
    assert tool("--help") == 0
    lines = capsys.readouterr().out.split("\n")
    flags = [line.split()[0] for line in lines if line.startswith("  --")]
    assert flags == ["--source", "--data-dir", "--image-size"]
