import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from helpers.data_files import SIZE, fractional_image, npy_bytes, write_folder, write_zip

from lensjax.cli import prepare_tfds
from lensjax.data.deep_lense import open_prepared, prepare
from lensjax.data.reference_layout import read_reference_layout
from lensjax.errors import UserError



def read_prepared(path, image_size):
    source = open_prepared(path, image_size)
    return source.read(source.parts)


def assert_same(sets, wanted):
    assert list(sets) == list(wanted)
    for split, images in wanted.items():
        assert sets[split].names == images.names
        for field in ("pixels", "scale", "labels"):
            read, original = getattr(sets[split], field), getattr(images, field)
            assert read.dtype == original.dtype
            np.testing.assert_array_equal(read, original)


@pytest.fixture
def prepared(tmp_path, files):
    return prepare(write_zip(tmp_path / "dataset.zip", files), tmp_path / "tfds", SIZE)


@pytest.mark.parametrize(
    "fractional", [(), ("val/no/1.npy",), ("val/no/1.npy", "train/vort/1.npy")]
)
def test_a_prepared_archive_is_read_back_bit_for_bit(tmp_path, files, fractional):
    files |= {name: npy_bytes(fractional_image(1)) for name in fractional}
    files |= {name.replace("val/", "test/"): files[name] for name in files if "val/" in name}
    source = write_zip(tmp_path / "dataset.zip", files)
    data_dir = tmp_path / "tfds"
    folder = prepare(source, data_dir, SIZE)
    assert folder == data_dir / "deep_lense" / "1.0.0"
    wanted = read_reference_layout(source, SIZE)
    for path in (data_dir, data_dir / "deep_lense", folder):
        assert_same(read_prepared(path, SIZE), wanted)


def test_the_data_set_is_one_that_tfds_itself_reads(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared)
    assert builder.name == "deep_lense"
    assert builder.info.features["label"].names == ["no", "sphere", "vort"]
    example = builder.as_data_source("train")[0]
    assert example["pixels"].dtype == np.uint16
    assert example["name"] == b"train/no/1.npy"


def test_preparing_says_nothing_of_its_own_and_leaves_nothing_else(
    tmp_path, files, capfd, monkeypatch
):
    source = write_zip(tmp_path / "dataset.zip", files)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    prepare(source, tmp_path / "tfds", SIZE)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["deep_lense"]
    assert list(temporary.iterdir()) == []


def test_a_prepared_data_set_is_never_overwritten(tmp_path, prepared):
    with pytest.raises(UserError, match=r"deep_lense/1\.0\.0: is there already; remove it or give"):
        prepare(tmp_path / "dataset.zip", tmp_path / "tfds", SIZE)


def test_a_bad_image_leaves_no_data_set(tmp_path, files):
    files["val/no/1.npy"] = b"hello"
    with pytest.raises(UserError, match=r"val/no/1\.npy: is not a \.npy file"):
        prepare(write_folder(tmp_path / "dataset", files), tmp_path / "tfds", SIZE)
    assert not (tmp_path / "tfds").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path, files):
    (tmp_path / "tfds").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        prepare(write_zip(tmp_path / "dataset.zip", files), tmp_path / "tfds", SIZE)


def test_a_folder_without_a_data_set_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no prepared data set deep_lense; prepare one with"):
        read_prepared(tmp_path, SIZE)
    with pytest.raises(UserError, match="no such folder"):
        read_prepared(tmp_path / "nowhere", SIZE)


def test_images_of_another_size_are_told(prepared):
    with pytest.raises(UserError, match=r"shape \(8, 8\), expected \(9, 9\); set config\.data\."):
        read_prepared(prepared, 9)


def test_another_data_set_is_told(prepared):
    (prepared / "metadata.json").unlink()
    with pytest.raises(UserError, match="is not the data set deep_lense"):
        read_prepared(prepared, SIZE)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
def test_damaged_descriptions_are_told(prepared, name):
    file = prepared / name
    file.write_text(json.dumps(json.loads(file.read_text()))[:-5])
    with pytest.raises(UserError, match="is damaged or incomplete"):
        read_prepared(prepared, SIZE)


@pytest.mark.parametrize("damage", ["truncated", "missing", "empty"])
def test_damaged_records_are_told(prepared, damage):
    (file,) = prepared.glob("*-train.array_record*")
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    with pytest.raises(UserError, match="is damaged or incomplete"):
        read_prepared(prepared, SIZE)


def test_no_other_part_of_the_data_package_loads_tfds():
    code = (
        "import sys, lensjax.data.source, lensjax.data.batches;"
        "sys.exit('tensorflow_datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def tool(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["prepare_tfds.py", *map(str, arguments)])
        return prepare_tfds.run()

    return run


def test_the_command_prepares_what_it_says(tool, tmp_path, files, capsys):
    source, data_dir = write_zip(tmp_path / "dataset.zip", files), tmp_path / "tfds"
    assert tool("--source", source, f"--data-dir={data_dir}", "--image-size=8") == 0
    assert f"config.data.source=tfds:{data_dir}" in capsys.readouterr().out
    assert_same(read_prepared(data_dir, SIZE), read_reference_layout(source, SIZE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--source and --data-dir are required"),
        (["--source", "nowhere.zip", "--data-dir", "x"], "nowhere.zip: no such file or folder"),
        (["--sorce=a", "--data-dir", "x"], "Unknown command line flag 'sorce'"),
        (["--source=a", "--data-dir=x", "--image-size=big"], "image_size"),
        (["--source=a", "--data-dir=x", "--image-size=0"], "image_size"),
        (["dataset.zip"], "'dataset.zip' is not a flag"),
    ],
)
def test_a_mistake_in_the_command_is_one_line_and_code_2(
    tool, arguments, message, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert tool(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert message in said.err


def test_help_names_every_flag_and_nothing_more(tool, capsys):
    assert tool("--help") == 0
    lines = capsys.readouterr().out.split("\n")
    flags = [line.split()[0] for line in lines if line.startswith("  --")]
    assert flags == ["--source", "--data-dir", "--image-size"]
