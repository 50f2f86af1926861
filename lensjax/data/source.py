"""Loads the images of the splits from the source in `config.data`."""

import math
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from lensjax.config import FIT_CHOICES, check_choice
from lensjax.data.duplicates import warn_about_duplicates
from lensjax.data.fresh import FreshImages
from lensjax.data.images import CLASSES, ImageSet, Split
from lensjax.data.reference_layout import open_reference_layout
from lensjax.data.residuals import add_residuals, fit_splits
from lensjax.data.simulated import FRESH, fresh_images, simulated_images
from lensjax.data.splits import SELECTIONS, Source, Splits, TrainingImages, select_splits
from lensjax.data.streamed import StreamedImages
from lensjax.errors import UserError
from lensjax.runtime.paths import user_path
from lensjax.runtime.progress import log

MEMORY_SHARE = 0.5  # largest fraction of the machine's memory for training images
FORMS = (
    "a folder or .zip with train/ and val/, tfds:FOLDER of a prepared data set, "
    "or simulated:PRESET such as simulated:common_test, or simulated:common_test?fresh"
)


def load_splits(data_config: ConfigDict, accept: Callable[[Splits], object] | None = None) -> Splits:
    """Loads the images of all splits and logs the number of images in each class.

    Args:
      data_config: the `data` section of a config.
      accept: called with the images before lenses are fitted to them, which can take long; it may raise an
        error.

    Returns:
      The images, with residuals if the config includes lens fits. Validation and test images are in memory.

    Raises:
      UserError: if the source is not of a known form, does not exist, or contains invalid files.
    """
    images = _read_splits(data_config, ("train", "validation", "test"))
    splits = Splits(images["train"], validation=_load(images["validation"]), test=_load(images["test"]))
    for name, part in vars(splits).items():
        log.info("%-10s %s", name, describe(part))
    if not data_config.source.startswith("simulated:"):
        warn_about_duplicates(
            {name: part for name, part in vars(splits).items() if isinstance(part, ImageSet)}
        )
    if accept is not None:
        accept(splits)
    return fit_splits(splits, data_config.fit)


def load_split(data_config: ConfigDict, split: Split) -> ImageSet:
    """Loads the images of one split, without simulating or fitting those of the others.

    They are the same images as those of `load_splits`.

    Args:
      data_config: the `data` section of a config.
      split: the split to load.

    Returns:
      The images, in memory, with residuals if the config includes lens fits.

    Raises:
      UserError: see `load_splits`; also if the split is "train" and training images are never repeated.
    """
    images = _load(_read_splits(data_config, (split,))[split])
    log.info("%-10s %s", split, describe(images))
    if not data_config.source.startswith("simulated:"):
        warn_about_duplicates({split: images})
    return add_residuals(images, data_config.fit, name=split)


def _read_splits(data_config: ConfigDict, splits: Sequence[Split]) -> dict[Split, TrainingImages]:
    check_choice("config.data.selection", data_config.selection, SELECTIONS)
    check_choice("config.data.fit", data_config.fit, FIT_CHOICES)
    return select_splits(
        _open(data_config),
        splits,
        data_config.selection,
        validation_fraction=data_config.validation_fraction,
        seed=data_config.seed,
    )


def _load(images: TrainingImages) -> ImageSet:
    if isinstance(images, FreshImages):
        raise UserError("--split=train: the run's training images are never repeated; choose another split")
    return images.load() if isinstance(images, StreamedImages) else images


def _open(data_config: ConfigDict) -> Source:
    scheme, rest = _split_scheme(data_config.source)
    if data_config.residence == "disk" and scheme != "tfds":
        raise UserError(
            "config.data.residence=disk needs a prepared data set; create one with "
            "lensjax prepare-tfds and set config.data.source=tfds:FOLDER"
        )
    if scheme == "simulated":
        return _open_simulation(rest, data_config)
    path = user_path(rest)
    if scheme == "tfds":
        from lensjax.data.deep_lense import open_dataset  # TensorFlow Datasets is slow to import

        limits = {"disk": 0.0, "host": math.inf}
        memory = limits.get(data_config.residence, MEMORY_SHARE * _memory())
        return open_dataset(path, data_config.image_size, memory=memory)
    return open_reference_layout(path, data_config.image_size)


def _open_simulation(preset: str, data_config: ConfigDict) -> Source:
    split_of: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}
    scenes = {"seed": data_config.seed, "image_size": data_config.image_size}

    def simulate(split: Split) -> TrainingImages:
        num_images = data_config[f"num_{split}"]
        if split == "train" and preset.endswith(FRESH):
            return fresh_images(preset, num_images=num_images, **scenes)
        return simulated_images(preset, split=split, num_images=num_images, **scenes)

    def read(parts: Collection[str]) -> dict[str, TrainingImages]:
        return {part: simulate(split_of[part]) for part in parts}

    return Source(tuple(split_of), read)


def _memory() -> float:
    """Memory of the machine, bytes; infinite if the system does not report it."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def describe(images: TrainingImages) -> str:
    """Describes an image set in one line: number of images, classes, size, and storage."""
    if isinstance(images, FreshImages):
        size = images.preset.instrument.image_size
        return f"{len(images):,} images per epoch, never repeated, {size} x {size} pixels"
    per_class = ", ".join(
        f"{count:,} {name}" for name, count in zip(CLASSES, images.class_counts(), strict=True)
    )
    if isinstance(images, StreamedImages):
        (height, width), storage = images.shape, "read from disk"
    else:
        height, width = images.pixels.shape[1:]
        storage = "photon counts" if images.pixels.dtype == "uint16" else "float32"
    return f"{len(images):,} images ({per_class}), {height} x {width} pixels, {storage}"


def _split_scheme(source: str) -> tuple[str, str]:
    """Splits a source into its scheme ("tfds", "simulated" or, for a path, "") and the rest."""
    match = re.fullmatch(r"(tfds|simulated):(.+)", source)
    if match:
        return match[1], match[2]
    # A single letter before a colon is a Windows drive.
    looks_like_scheme = re.fullmatch(r"tfds|simulated|[A-Za-z][A-Za-z0-9_+.-]+:.*", source)
    if not source or (looks_like_scheme and not Path(source).exists()):
        raise UserError(f"config.data.source={source!r}: not a source of images; specify {FORMS}")
    return "", source
