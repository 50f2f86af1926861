"""Division of a source into training, validation and test images."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from lensjax.data.images import CLASSES, ImageSet
from lensjax.data.splits import Source, select_splits
from lensjax.errors import UserError

SPLITS = ("train", "validation", "test")


def image_set(name, *counts):
    labels = np.repeat(np.arange(3, dtype=np.int32), counts)
    return ImageSet(
        np.arange(len(labels) * 4, dtype=np.uint16).reshape(-1, 2, 2),
        np.ones(len(labels), np.float32),
        labels,
        tuple(f"{name}/{row}" for row in range(len(labels))),
    )


def select_from(sets, selection="held_out", fraction=0.1, seed=0, splits=SPLITS):
    """Images of the splits by name, and names of the parts that were read."""
    parts = []

    def read(names):
        parts.extend(names)
        return {name: sets[name] for name in names}

    source = Source(tuple(sets), read)
    return select_splits(source, splits, selection, validation_fraction=fraction, seed=seed), parts


def held_out(sets, **options):
    return select_from(sets, **options)[0]


def test_reference_validates_and_tests_on_val():
    sets = {name: image_set(name, 5, 5, 5) for name in ("train", "val", "test")}
    splits, parts = select_from(sets, "reference")
    assert splits["train"] is sets["train"]
    assert splits["validation"] is sets["val"]
    assert splits["test"] is sets["val"]
    assert parts == ["train", "val"]


def test_held_out_uses_test_part_if_present():
    sets = {name: image_set(name, 5, 5, 5) for name in ("train", "val", "test")}
    splits = held_out(sets)
    assert splits["train"] is sets["train"]
    assert splits["validation"] is sets["val"]
    assert splits["test"] is sets["test"]


@hypothesis.given(st.tuples(*[st.integers(4, 60)] * 3), st.floats(0.01, 0.6), st.integers(0, 2**32))
def test_held_out_validation_is_stratified_part_of_train(counts, fraction, seed):
    sets = {"train": image_set("train", *counts), "val": image_set("val", 1, 1, 1)}
    splits = held_out(sets, fraction=fraction, seed=seed)
    train, validation = splits["train"], splits["validation"]
    assert splits["test"] is sets["val"]
    assert set(train.names) | set(validation.names) == set(sets["train"].names)
    assert len(train) + len(validation) == sum(counts)
    for count, part in zip(counts, validation.class_counts(), strict=True):
        assert part == max(1, round(fraction * count))
    for part in (train, validation):
        rows = [int(name.split("/")[1]) for name in part.names]
        np.testing.assert_array_equal(part.pixels, sets["train"].pixels[rows])
        np.testing.assert_array_equal(part.labels, sets["train"].labels[rows])


def test_held_out_images_depend_on_seed():
    sets = {"train": image_set("train", 50, 50, 50), "val": image_set("val", 1, 1, 1)}
    names = [held_out(sets, seed=seed)["validation"].names for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.1), (4, 0.9)])
def test_too_small_class_error_has_advice(count, fraction):
    sets = {"train": image_set("train", 9, count, 9), "val": image_set("val", 1, 1, 1)}
    with pytest.raises(UserError) as caught:
        held_out(sets, fraction=fraction)
    assert str(caught.value).startswith(f"class {CLASSES[1]}: no images are left in train/ if ")
    assert "config.data.selection=reference" in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "selection", "needed"),
    [
        (("train", "val"), "held_out", ("train", "train", "val")),
        (("train", "val", "test"), "held_out", ("train", "val", "test")),
        (("train", "val", "test"), "reference", ("train", "val", "val")),
    ],
)
def test_only_needed_parts_are_read(parts, selection, needed):
    sets = {name: image_set(name, 5, 5, 5) for name in parts}
    together, _ = select_from(sets, selection)
    for split, part in zip(SPLITS, needed, strict=True):
        single, read = select_from(sets, selection, splits=(split,))
        assert read == [part]
        assert list(single) == [split]
        assert single[split].names == together[split].names
