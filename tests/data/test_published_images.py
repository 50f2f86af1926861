"""Tests with published images from the folder $LENSJAX_PUBLISHED_SAMPLES."""

import numpy as np
import pytest

from lensjax.data.counts import recover_counts
from lensjax.data.images import CLASSES
from lensjax.data.npy import bytes_to_read, parse_image
from lensjax.data.reference_layout import read_class_folders


@pytest.fixture(scope="module")
def published_files(published_samples):
    files = [file for name in CLASSES for file in sorted((published_samples / name).glob("*.npy"))]
    assert files, f"{published_samples} has no images"
    return files


def test_published_images_are_read_unchanged(published_files):
    for file in published_files:
        stored = np.load(file, allow_pickle=False)
        assert (stored.dtype, stored.shape) == (np.float64, (1, 150, 150))
        assert (stored.min(), stored.max()) == (0, 1)
        data = file.read_bytes()
        assert len(data) < bytes_to_read(150)
        np.testing.assert_array_equal(parse_image(data, 150), stored[0])


def test_maximum_counts_are_684_to_893(published_files):
    for file in published_files:
        stored = np.load(file, allow_pickle=False)[0]
        counts, largest = recover_counts(stored)
        assert 684 <= largest <= 893
        np.testing.assert_array_equal(counts / largest, stored)
        quotient = counts.astype(np.float32) / np.float32(largest)
        np.testing.assert_array_equal(quotient, stored.astype(np.float32))


def test_published_images_are_stored_as_counts(published_samples, published_files):
    images = read_class_folders(published_samples, 150)
    assert images.pixels.dtype == np.uint16
    assert len(images) == len(published_files)
    for row, name in enumerate(images.names):
        stored = np.load(published_samples.parent / name, allow_pickle=False)[0].astype(np.float32)
        np.testing.assert_array_equal(images.images(slice(row, row + 1))[0, ..., 0], stored)
