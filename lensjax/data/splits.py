"""Which images train, which choose the best epoch, and which give the final figures."""

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Bool, Int

from lensjax.config import check_choice
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


def select(
    sets: Mapping[str, ImageSet | StreamedImages],
    selection: str,
    *,
    validation_fraction: float,
    seed: int,
) -> Splits:
    """The splits of a source that has "train", "val" and perhaps "test".

    "reference", the published protocol, chooses the best epoch and reports on the same images, val.
    "held_out" reports on images that chose nothing: where there is no "test", val becomes the test set
    and a part of train, the same share of each class, becomes the validation set.

    Args:
      sets: the source's own parts.
      selection: one of `SELECTIONS`.
      validation_fraction: share of each class of train that is held out, where there is no "test".
      seed: chooses which images those are.

    Raises:
      UserError: unknown selection, or too few images in a class.
    """
    check_choice("config.data.selection", selection, SELECTIONS)
    train, val = sets["train"], _in_memory(sets["val"])
    if selection == "reference":
        return Splits(train, validation=val, test=val)
    if "test" in sets:
        return Splits(train, validation=val, test=_in_memory(sets["test"]))
    held_out = _stratified_part(train.labels, validation_fraction, seed)
    validation = _in_memory(train.subset(np.flatnonzero(held_out)))
    return Splits(train.subset(np.flatnonzero(~held_out)), validation=validation, test=val)


def _in_memory(images: ImageSet | StreamedImages) -> ImageSet:
    return images.loaded() if isinstance(images, StreamedImages) else images


def part_of(split: Split, selection: str, available: Collection[str]) -> str:
    """Which of a source's own parts holds the images of a split: all `select` would look at for it.

    Args:
      split: which split.
      selection: one of `SELECTIONS`.
      available: the parts that the source has.
    """
    if split == "train":
        return "train"
    if selection == "held_out" and "test" not in available:
        return "train" if split == "validation" else "val"
    return "test" if selection == "held_out" and split == "test" else "val"


def select_from(
    part: ImageSet,
    split: Split,
    selection: str,
    available: Collection[str],
    *,
    validation_fraction: float,
    seed: int,
) -> ImageSet:
    """The split that `select` would give, from the part that `part_of` names.

    Args:
      part: its images.
      split, selection, available: see `part_of`.
      validation_fraction, seed: see `select`.

    Raises:
      UserError: too few images in a class.
    """
    divided = selection == "held_out" and "test" not in available and split != "test"
    if not divided:
        return part
    held_out = _stratified_part(part.labels, validation_fraction, seed)
    return part.subset(np.flatnonzero(held_out == (split == "validation")))


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
