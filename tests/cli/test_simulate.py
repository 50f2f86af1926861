"""The command simulate: its files, resumption, and errors."""

import csv
import pathlib

import numpy as np
import pytest

from lensjax import simulation
from lensjax.cli.simulate import main
from lensjax.data.reference_layout import read_reference_layout
from lensjax.errors import UserError


def words(folder, **changes):
    values = {"preset": "common_test", "train": 36, "val": 6, "seed": 1, "output": folder} | changes
    return [f"--{name}={value}" for name, value in values.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "set"
    main(words(folder))
    return folder


@pytest.mark.parametrize(("name", "split"), [("train", "train"), ("val", "validation")])
def test_written_images_are_read_back_unchanged(folder, name, split):
    number = {"train": 36, "val": 6}[name]
    made = simulation.simulate_split("common_test", seed=1, split=split, num_images=number)
    found = read_reference_layout(folder, 150)[name]
    rows = [int(pathlib.Path(file).stem) for file in found.names]
    assert found.pixels.dtype == np.uint16
    np.testing.assert_array_equal(found.pixels, made.pixels[rows])
    np.testing.assert_array_equal(found.scale, made.scale[rows])
    np.testing.assert_array_equal(found.labels, made.labels[rows])
    file = np.load(folder / found.names[0])
    assert (file.dtype, file.shape) == (np.float64, (1, 150, 150))
    assert (file.min(), file.max()) == (0, 1)


def test_truth_table_matches_each_scene(folder):
    with (folder / "truth.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    scenes = simulation.simulate_split("common_test", seed=1, split="train", num_images=36).scenes
    assert len(rows) == 42
    assert all((folder / row["file"]).is_file() for row in rows)
    for name in ("theta_E", "gamma1", "gamma2", "source_x", "source_y", "source_e1", "source_e2"):
        values = [float(row[name]) for row in rows[:36]]
        np.testing.assert_allclose(values, getattr(scenes, name), rtol=1e-5, atol=1e-7)
    masses = [float(row["mass_24_theta_E"]) for row in rows[:36]]
    np.testing.assert_allclose(masses, scenes.masses[:, 24, 0], rtol=1e-5)
    assert rows[1]["class"] == "sphere"


def test_rerun_writes_only_missing_and_truncated_files(folder):
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.npy")}
    lost = folder / "val" / "vort" / "0000005.npy"
    content = lost.read_bytes()
    lost.unlink()
    other = folder.parent / "other"
    other.write_text("unchanged")
    for name in (lost.with_name(lost.name + ".part"), folder / "truth.part"):
        name.symlink_to(other)
    short = folder / "val" / "no" / "0000000.npy"
    whole = short.read_bytes()
    short.write_bytes(whole[:1000])  # as after a power failure
    main(words(folder))
    assert lost.read_bytes() == content
    assert short.read_bytes() == whole
    assert other.read_text() == "unchanged"
    kept = [file for file in before if file.parts[-3] == "train"]
    assert all(file.stat().st_mtime_ns == before[file] for file in kept)


@pytest.mark.parametrize(
    ("changes", "named"), [({"seed": 2}, "seed"), ({"preset": "model_1"}, "preset"), ({"train": 72}, "train")]
)
def test_different_set_in_same_folder_is_rejected(folder, changes, named):
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match=f"was created with a different {named}"):
        main(words(folder, **changes))
    assert sorted(folder.rglob("*")) == before


def test_folder_with_other_files_is_rejected(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and was not created by this command"):
        main(words(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset=common_test"], "--output or --montage is required"),
        (["--output=x", "--train=2", "--val=3"], "--train must be at least 3"),
        (["--preset=comon_test", "--montage=x.png"], "did you mean common_test"),
        (["--format=zip", "--output=x"], "format"),
        (["--output=x", "--train=3", "--val=3", "--overwrite"], "--overwrite needs --montage"),
        (["--montage=x.png", "--train=30"], "--train needs --output"),
        (["--montage=x.png", "--format=array_record"], "--format needs --output"),
    ],
)
def test_invalid_commands_are_reported(arguments, message):
    with pytest.raises(UserError, match=message):
        main(arguments)


def test_array_record_contains_the_same_images(tmp_path):
    pytest.importorskip("tensorflow_datasets", exc_type=ImportError)
    from lensjax.data.deep_lense import open_dataset

    main(words(tmp_path / "set", train=6, val=3, format="array_record"))
    made = simulation.simulate_split("common_test", seed=1, split="train", num_images=6)
    found = open_dataset(tmp_path / "set", 150).read(["train"])["train"]
    np.testing.assert_array_equal(found.pixels, made.pixels)
    np.testing.assert_array_equal(found.labels, made.labels)
    assert (tmp_path / "set" / "truth.csv").is_file()


def test_contact_sheet_is_written(tmp_path):
    from matplotlib.image import imread

    main(["--montage", str(tmp_path / "new" / "sheet.png")])
    sheet = imread(tmp_path / "new" / "sheet.png")
    assert sheet.shape[0] > 300
    assert sheet[..., :3].std() > 0.1


def test_existing_contact_sheet_is_replaced_only_with_overwrite(tmp_path):
    sheet = tmp_path / "sheet.png"
    sheet.write_text("mine")
    words = ["--montage", str(sheet)]
    with pytest.raises(UserError, match=r"sheet\.png already exists; .*--overwrite"):
        main([*words, "--output", str(tmp_path / "set"), "--train=3", "--val=3"])
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert sheet.read_text() == "mine"
    main([*words, "--overwrite"])
    assert sheet.read_bytes().startswith(b"\x89PNG")
