"""Which images train a model, which choose its best epoch, and which give the final figures."""

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
    """The three parts of a data set, by what they are for.

    Attributes:
      train: what the parameters are fitted to.
      validation: what chooses the best epoch.
      test: what the final figures are measured on.
    """

    train: TrainingImages
    validation: ImageSet
    test: ImageSet


@dataclasses.dataclass(frozen=True)
class Source:
    """An open source of images, from which no image has been read.

    Attributes:
      parts: the parts that the source has: "train", "val" and, in some sources, "test".
      read: takes names of parts, reads only those parts, and returns their images by name.
    """

    parts: Collection[str]
    read: Callable[[Collection[str]], Mapping[str, TrainingImages]]


def select(
    source: Source,
    splits: Sequence[Split],
    selection: str,
    *,
    validation_fraction: float,
    seed: int,
) -> dict[Split, TrainingImages]:
    """Reads the images of some splits, and only the parts of the source that they need.

    "reference" is the published protocol: val is both the validation set and the test set. With "held_out",
    the test images choose nothing. If the source has no "test", val becomes the test set, and a random part
    of train, with the same share of each class, becomes the validation set.

    Args:
      source: the source.
      splits: the splits to read.
      selection: one of `SELECTIONS`.
      validation_fraction: share of each class of train that becomes the validation set.
      seed: seed of the random choice of these images.

    Returns:
      The images of each split. They do not depend on which other splits are read.

    Raises:
      UserError: the source cannot be read, or a class has too few images to divide it.
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
        # For the type checker: a source of fresh images has a test part.
        assert not isinstance(train, FreshImages)
        held_out = _stratified_part(train.labels, validation_fraction, seed)
        for split in splits:
            if split != "test":
                rows = np.flatnonzero(held_out == (split == "validation"))
                images[split] = train.subset(rows)
    return images


def _stratified_part(
    labels: Int[np.ndarray, " n"], fraction: float, seed: int
) -> Bool[np.ndarray, " n"]:
    """A mask over the images: a random part of each class, at least one image of it."""
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label, name in enumerate(CLASSES):
        rows = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(rows)))
        if count >= len(rows):
            raise UserError(
                f"class {name} has {len(rows)} images in train/, and holding out {count} of them for "
                "validation leaves none; add images, add a test/ folder to the source, lower "
                "config.data.validation_fraction, or set config.data.selection=reference"
            )
        held_out[generator.choice(rows, count, replace=False)] = True
    return held_out
