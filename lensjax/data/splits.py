"""Division of a data set into training, validation and test images."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from lensjax.data.fresh import FreshImages
from lensjax.data.images import CLASSES, ImageSet, Split
from lensjax.data.streamed import StreamedImages
from lensjax.errors import UserError

SELECTIONS = ("held_out", "reference")
TrainingImages = ImageSet | FreshImages | StreamedImages


@dataclasses.dataclass(frozen=True)
class Splits:
    """Images of the three splits.

    Attributes:
      train: images to train on.
      validation: images that select the best epoch.
      test: images for the final metrics.
    """

    train: TrainingImages
    validation: ImageSet
    test: ImageSet


@dataclasses.dataclass(frozen=True)
class Source:
    """A source of images, which are read on request.

    Attributes:
      parts: names of the source's parts: "train", "val" and, in some sources, "test".
      read: reads the parts with the given names and returns their images by name.
    """

    parts: Collection[str]
    read: Callable[[Collection[str]], Mapping[str, TrainingImages]]


def select_splits(
    source: Source, splits: Sequence[Split], selection: str, *, validation_fraction: float, seed: int
) -> dict[Split, TrainingImages]:
    """Reads the images of the given splits, and only the parts of the source that they need.

    "reference" is the published protocol: val is both the validation set and the test set. With "held_out",
    test images are used only for the final metrics. If the source has no "test", val becomes the test set,
    and a stratified random part of train becomes the validation set.

    Args:
      source: the source.
      splits: the splits to read.
      selection: one of `SELECTIONS`.
      validation_fraction: fraction of each class in train that becomes the validation set.
      seed: seed of the random choice of validation images.

    Returns:
      The images of each split. They do not depend on which other splits are read.

    Raises:
      UserError: if the source cannot be read, or a class has too few images to divide.
    """
    part_of: dict[Split, str]
    if selection == "reference":
        part_of = {"train": "train", "validation": "val", "test": "val"}
    elif "test" in source.parts:
        part_of = {"train": "train", "validation": "val", "test": "test"}
    else:
        part_of = {"train": "train", "validation": "train", "test": "val"}
    sets = source.read(list(dict.fromkeys(part_of[split] for split in splits)))
    images = {split: sets[part_of[split]] for split in splits}
    if part_of["validation"] == "train" and "train" in sets:
        train = sets["train"]
        # For the type checker: sources of fresh images have a test part.
        assert not isinstance(train, FreshImages)
        held_out = _draw_validation(train.labels, validation_fraction, seed)
        for split in splits:
            if split != "test":
                rows = np.flatnonzero(held_out == (split == "validation"))
                images[split] = train.subset(rows)
    return images


def _draw_validation(labels: Int[np.ndarray, " n"], fraction: float, seed: int) -> Bool[np.ndarray, " n"]:
    """Mask that is true for a random part of each class, at least one image per class."""
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label, name in enumerate(CLASSES):
        rows = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(rows)))
        if count >= len(rows):
            raise UserError(
                f"class {name}: no images are left in train/ if {count:,} of {len(rows):,} are held out for "
                "validation; add images, add a test/ folder to the source, reduce "
                "config.data.validation_fraction, or set config.data.selection=reference"
            )
        held_out[generator.choice(rows, count, replace=False)] = True
    return held_out
