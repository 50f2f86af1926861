"""Loading one split: the same images as with all splits, without reading other parts."""

import numpy as np
import pytest
from helpers.data_files import SIZE, count_image, npy_bytes, write_folder

from lensjax.config import default_config
from lensjax.data.deep_lense import prepare_dataset
from lensjax.data.images import CLASSES
from lensjax.data.source import load_split, load_splits
from lensjax.errors import UserError

SPLITS = ("train", "validation", "test")


def data_config(source, selection):
    config = default_config().data
    config.update(source=source, selection=selection, image_size=SIZE, validation_fraction=0.3)
    return config


def write_parts(folder, parts):
    names = [f"{part}/{name}/{index}.npy" for part in parts for name in CLASSES for index in range(4)]
    files = {name: npy_bytes(count_image(seed)) for seed, name in enumerate(names)}
    return write_folder(folder, files)


def assert_same(one, other):
    assert one.names == other.names
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.images(), other.images())


@pytest.mark.parametrize("selection", ["held_out", "reference"])
@pytest.mark.parametrize("parts", [("train", "val"), ("train", "val", "test")])
def test_single_split_equals_that_of_all_splits(tmp_path, parts, selection):
    folder = write_parts(tmp_path / "data", parts)
    prepared = f"tfds:{prepare_dataset(folder, tmp_path / 'tfds', SIZE)}"
    splits = load_splits(data_config(str(folder), selection))
    for source, residence in ((str(folder), "auto"), (prepared, "auto"), (prepared, "disk")):
        config = data_config(source, selection)
        config.residence = residence
        for split in SPLITS:
            assert_same(load_split(config, split), getattr(splits, split))


@pytest.mark.parametrize("selection", ["held_out", "reference"])
def test_single_simulated_split_equals_that_of_all_splits(selection):
    config = data_config("simulated:common_test", selection)
    config.update(image_size=150, num_train=6, num_validation=3, num_test=3)
    splits = load_splits(config)
    for split in SPLITS:
        assert_same(load_split(config, split), getattr(splits, split))
    config.source += "?fresh"
    assert_same(load_split(config, "test"), splits.test)
    with pytest.raises(UserError, match="never repeated; choose another split"):
        load_split(config, "train")


def test_errors_in_other_splits_are_ignored(tmp_path):
    folder = write_parts(tmp_path / "data", ("train", "val"))
    (folder / "train" / "no" / "0.npy").write_bytes(b"damaged")
    config = data_config(str(folder), "held_out")
    assert len(load_split(config, "test")) == 12
    for split in ("train", "validation"):
        with pytest.raises(UserError, match=r"0\.npy"):
            load_split(config, split)
