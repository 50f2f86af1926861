"""Selection of a source by `config.data`, and logging of its splits."""

import logging
import pathlib

import numpy as np
import pytest
from helpers.data_files import SIZE, write_folder, write_zip

from lensjax.config import default_config
from lensjax.data import source
from lensjax.data.deep_lense import prepare_dataset
from lensjax.data.image_record import check_images, read_record
from lensjax.data.images import ImageSet
from lensjax.data.source import load_splits
from lensjax.errors import UserError


def data_config(source, **values):
    config = default_config().data
    config.update({"source": str(source), "image_size": SIZE, "validation_fraction": 0.4, **values})
    return config


@pytest.fixture
def simulated(monkeypatch):
    """Replaces the simulator; returns the list of its calls."""
    calls = []

    def simulated_images(preset, *, split, num_images, seed, image_size):
        calls.append((preset, split, num_images, seed, image_size))
        labels = (np.arange(num_images) % 3).astype(np.int32)
        pixels = np.zeros((num_images, SIZE, SIZE), np.uint16)
        scale = np.ones(num_images, np.float32)
        return ImageSet(pixels, scale, labels, tuple(map(str, range(num_images))))

    monkeypatch.setattr(source, "simulated_images", simulated_images)
    return calls


def test_folder_zip_and_tfds_give_the_same_splits(tmp_path, files):
    archive = write_zip(tmp_path / "dataset.zip", files)
    prepare_dataset(archive, tmp_path / "tfds", SIZE)
    sources = (archive, write_folder(tmp_path / "dataset", files), f"tfds:{tmp_path / 'tfds'}")
    first, *others = [load_splits(data_config(path)) for path in sources]
    assert first.train.class_counts() == first.validation.class_counts() == (1, 1, 1)
    assert first.test.class_counts() == (2, 2, 2)
    for other in others:
        for split in ("train", "validation", "test"):
            one, same = getattr(first, split), getattr(other, split)
            np.testing.assert_array_equal(one.pixels, same.pixels)
            assert one.names == same.names


def change_pixel(splits):
    splits.train.pixels[0, 0, 0] += 1


def change_scale(splits):
    splits.validation.scale[-1] += 1


def change_label(splits):
    splits.train.labels[:2] = splits.train.labels[1::-1]


@pytest.mark.parametrize("change", [change_pixel, change_scale, change_label])
def test_run_accepts_only_the_images_of_its_record(tmp_path, files, change):
    splits = load_splits(data_config(write_folder(tmp_path / "dataset", files)))
    run = tmp_path / "run"
    (run / "checkpoints" / "1").mkdir(parents=True)
    check_images(run, "dataset", splits)
    check_images(run, "dataset", splits)
    change(splits)
    with pytest.raises(UserError, match=r"run was trained on other images than dataset now contains"):
        check_images(run, "dataset", splits)
    (run / "images.json").write_text((run / "images.json").read_text().replace('"images": 3', '"images": 4'))
    with pytest.raises(UserError, match=r"images\.json: damaged .* delete it if the images have not changed"):
        read_record(run)
    (run / "checkpoints" / "1").rmdir()  # nothing has been trained
    check_images(run, "dataset", splits)
    assert read_record(run)["train"]["images"] == 3


def test_record_is_the_same_for_images_on_disk(tmp_path, files):
    archive = write_zip(tmp_path / "dataset.zip", files)
    prepare_dataset(archive, tmp_path / "tfds", SIZE)
    run = tmp_path / "run"
    (run / "checkpoints" / "1").mkdir(parents=True)
    for residence in ("disk", "host"):
        check_images(run, "tfds", load_splits(data_config(f"tfds:{tmp_path / 'tfds'}", residence=residence)))
    record = read_record(run)
    assert record["train"]["pixels"] is None
    assert record["validation"]["pixels"] is not None
    check_images(run, "zip", load_splits(data_config(archive)))


def test_simulated_images_are_not_recorded(tmp_path, simulated):
    check_images(tmp_path, "simulated:common_test", load_splits(data_config("simulated:common_test")))
    assert not any(tmp_path.iterdir())


def test_held_out_simulated_splits_are_independent(simulated):
    values = {"num_train": 9, "num_validation": 6, "num_test": 3, "seed": 5}
    splits = load_splits(data_config("simulated:common_test", **values))
    assert simulated == [
        ("common_test", "train", 9, 5, SIZE),
        ("common_test", "validation", 6, 5, SIZE),
        ("common_test", "test", 3, 5, SIZE),
    ]
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [9, 6, 3]


def test_reference_simulated_splits_share_validation_and_test(simulated):
    splits = load_splits(data_config("simulated:common_test", selection="reference", num_train=9))
    assert [split for _, split, *_ in simulated] == ["train", "validation"]
    assert splits.validation is splits.test


def test_splits_are_logged_with_class_counts(tmp_path, files, caplog):
    with caplog.at_level(logging.INFO, "lensjax"):
        load_splits(data_config(write_folder(tmp_path / "dataset", files)))
    lines = [record.getMessage() for record in caplog.records if record.name == "lensjax"]
    assert lines == [
        "train      3 images (1 no, 1 sphere, 1 vort), 8 x 8 pixels, photon counts",
        "validation 3 images (1 no, 1 sphere, 1 vort), 8 x 8 pixels, photon counts",
        "test       6 images (2 no, 2 sphere, 2 vort), 8 x 8 pixels, photon counts",
    ]


@pytest.mark.parametrize(
    "text", ["", "simulated", "simulated:", "simulate:common_test", "tfds", "tfds:", "https://a.b/data.zip"]
)
def test_unknown_source_error_lists_known_forms(text):
    with pytest.raises(UserError) as caught:
        load_splits(data_config(text))
    assert str(caught.value) == (
        f"config.data.source={text!r}: not a source of images; specify {source.FORMS}"
    )


def test_path_may_look_like_a_scheme(tmp_path, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(pathlib.Path("run:1"), files)
    assert len(load_splits(data_config("run:1")).test) == 6


def test_tilde_is_the_home_folder(tmp_path, files, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_zip(tmp_path / "dataset.zip", files)
    assert len(load_splits(data_config("~/dataset.zip")).test) == 6


def test_prepared_data_set_without_prefix_is_reported(tmp_path, files):
    folder = prepare_dataset(write_zip(tmp_path / "dataset.zip", files), tmp_path / "tfds", SIZE)
    for path in (folder, tmp_path / "tfds"):
        with pytest.raises(UserError, match=r"set config\.data\.source=tfds:"):
            load_splits(data_config(path))


def test_unknown_selection_is_reported_before_reading():
    with pytest.raises(UserError, match=r"config\.data\.selection='heldout': not one of .*'held_out'"):
        load_splits(data_config("nowhere", selection="heldout"))


def test_missing_source_is_reported():
    with pytest.raises(UserError, match="no such file or folder"):
        load_splits(data_config("nowhere.zip"))
