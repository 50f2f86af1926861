"""Batches of an epoch: order, padding, resumption and several runs."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from lensjax.data.batches import epoch_order, iterate_batches
from lensjax.data.epochs import epoch_batches
from lensjax.data.images import ImageSet


def image_set(num_images, dtype=np.uint16):
    rows = np.arange(num_images)
    pixels = np.broadcast_to(rows[:, None, None], (num_images, 2, 3)).astype(dtype)
    return ImageSet(pixels, (rows + 1).astype(np.float32), (rows % 3).astype(np.int32), tuple(map(str, rows)))


@hypothesis.given(st.integers(0, 50), st.integers(1, 60), st.integers(0, 2**32))
def test_every_image_has_weight_one_exactly_once(num_images, batch_size, seed):
    images = image_set(num_images)
    order = epoch_order(seed, 0, num_images)
    seen = []
    for batch in iterate_batches(images, order, batch_size):
        assert all(len(array) == batch_size for array in batch.values())
        assert set(batch["weights"].tolist()) <= {0, 1}
        seen += batch["pixels"][batch["weights"] == 1, 0, 0].tolist()
    assert seen == order.tolist()


def test_batch_arrays_are_of_the_same_images():
    images = image_set(10)
    for batch in iterate_batches(images, epoch_order(0, 0, 10), 4):
        rows = batch["pixels"][:, 0, 0].astype(int)
        np.testing.assert_array_equal(batch["scale"], rows + 1)
        np.testing.assert_array_equal(batch["labels"], rows % 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_batch_arrays_have_expected_types(dtype):
    batch = next(iterate_batches(image_set(3, dtype), np.arange(3), 4))
    assert batch["pixels"].dtype == dtype
    assert (batch["scale"].dtype, batch["labels"].dtype, batch["weights"].dtype) == (
        np.float32,
        np.int32,
        np.float32,
    )


def test_last_batch_is_padded_at_weight_zero():
    last = list(iterate_batches(image_set(6), np.arange(6), 4))[-1]
    assert last["pixels"][:, 0, 0].tolist() == [4, 5, 4, 5]
    assert last["weights"].tolist() == [1, 1, 0, 0]
    assert (last["scale"] > 0).all()


@pytest.mark.parametrize("start", range(5))
def test_resumed_epoch_has_the_remaining_batches(start):
    images, options = image_set(10), (3, [1], 2)
    complete = list(iterate_batches(images, epoch_order(1, 2, 10), 3))
    rest = list(epoch_batches(images, *options, start=start, share=slice(1, 3)))
    assert len(rest) == len(complete) - start
    for batch, expected in zip(rest, complete[start:], strict=True):
        for name in expected:
            np.testing.assert_array_equal(batch[name], expected[name][1:3])


def test_batches_of_several_runs_have_run_axis():
    images = image_set(10)
    runs = [list(epoch_batches(images, 4, [seed], 0)) for seed in (5, 6)]
    for together, *each in zip(epoch_batches(images, 4, [5, 6], 0), *runs, strict=True):
        for name in together:
            expected = np.stack([batch[name] for batch in each], axis=1)
            np.testing.assert_array_equal(together[name], expected)


def test_order_depends_only_on_seed_and_epoch():
    orders = [tuple(epoch_order(*key, 20)) for key in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[1] == tuple(epoch_order(0, 1, 20))
