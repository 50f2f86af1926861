"""Images streamed from disk, compared with the same images in memory."""

import numpy as np
import pytest
from helpers.data_files import SIZE, write_zip

from lensjax.config import default_config
from lensjax.data.batches import batch_rows, epoch_order, iterate_batches
from lensjax.data.deep_lense import prepare_dataset
from lensjax.data.source import load_splits
from lensjax.data.streamed import StreamedImages
from lensjax.errors import UserError


@pytest.fixture
def config(tmp_path, files):
    prepare_dataset(write_zip(tmp_path / "dataset.zip", files), tmp_path / "tfds", SIZE)
    config = default_config().data
    config.source = f"tfds:{tmp_path / 'tfds'}"
    config.image_size = SIZE
    return config


def on_disk(config):
    config = config.copy_and_resolve_references()
    config.residence = "disk"
    return config


def assert_same(one, other):
    assert one.names == other.names
    for field in ("pixels", "scale", "labels"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("selection", ["held_out", "reference"])
def test_only_training_images_are_streamed(config, selection):
    config.selection = selection
    memory, disk = load_splits(config), load_splits(on_disk(config))
    assert isinstance(disk.train, StreamedImages)
    assert disk.train.class_counts() == memory.train.class_counts()
    assert_same(disk.train.load(), memory.train)
    assert_same(disk.validation, memory.validation)
    assert_same(disk.test, memory.test)


def test_streamed_batches_equal_those_in_memory(config):
    memory, disk = load_splits(config).train, load_splits(on_disk(config)).train
    order = epoch_order(3, 1, len(memory))
    expected = list(iterate_batches(memory, order, 2))
    rows, weights = batch_rows(order, 2)
    found = list(disk.batches(rows, weights))
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def test_fits_and_other_sources_cannot_be_streamed(config, tmp_path):
    with_fit = on_disk(config)
    with_fit.fit = "common_test"
    with pytest.raises(UserError, match=r"config\.data\.fit='common_test'.*residence=host"):
        load_splits(with_fit)
    other = on_disk(config)
    for source in (str(tmp_path / "dataset.zip"), "simulated:common_test", "simulated:common_test?fresh"):
        other.source = source
        with pytest.raises(UserError, match=r"residence=disk.*prepare-tfds"):
            load_splits(other)
