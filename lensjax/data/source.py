"""From `config.data` to the images of the three splits."""

import math
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from lensjax.config import FITS, check_choice
from lensjax.console import log
from lensjax.data.fitted import fit_splits, with_residuals
from lensjax.data.fresh import FreshImages
from lensjax.data.images import CLASSES, ImageSet, Split
from lensjax.data.reference_layout import read_reference_layout
from lensjax.data.simulated import FRESH, fresh_images, simulated_images
from lensjax.data.splits import (
    SELECTIONS,
    Splits,
    TrainingImages,
    part_of,
    select,
    select_from,
)
from lensjax.data.streamed import StreamedImages
from lensjax.errors import UserError

MEMORY_SHARE = 0.5  # of a machine's memory that training images may take up
FORMS = (
    "a folder or .zip with train/ and val/, tfds:FOLDER of a prepared data set, "
    "or simulated:PRESET such as simulated:common_test, or simulated:common_test?fresh"
)


def load_splits(data_config: ConfigDict) -> Splits:
    """Reads or simulates the images that a config asks for, and logs how many of each class.

    Args:
      data_config: the `data` part of a config.

    Raises:
      UserError: the source is of no known form, is not there, or holds what cannot be used.
    """
    check_choice("config.data.selection", data_config.selection, SELECTIONS)
    check_choice("config.data.fit", data_config.fit, FITS)
    scheme, rest = _split_scheme(data_config.source)
    if scheme == "simulated":
        splits = _simulated_splits(rest, data_config)
    else:
        splits = select(
            _read_parts(scheme, Path(rest).expanduser(), data_config),
            data_config.selection,
            validation_fraction=data_config.validation_fraction,
            seed=data_config.seed,
        )
    for name in ("train", "validation", "test"):
        log.info("%-10s %s", name, describe(getattr(splits, name)))
    return fit_splits(splits, data_config.fit)


def _read_parts(
    scheme: str, path: Path, data_config: ConfigDict
) -> Mapping[str, ImageSet | StreamedImages]:
    on_disk = data_config.residence == "disk"
    if scheme != "tfds":
        if on_disk:
            raise UserError(
                "config.data.residence=disk: images are read from disk while the model trains only from a "
                "prepared data set; make one with tools/prepare_tfds.py and name it as tfds:FOLDER"
            )
        return read_reference_layout(path, data_config.image_size)
    # Only who asks for it needs TFDS.
    from lensjax.data.deep_lense import stream_prepared

    limits = {"disk": 0.0, "host": math.inf}
    memory = limits.get(data_config.residence, MEMORY_SHARE * _memory())
    return stream_prepared(path, data_config.image_size, memory=memory)


def _memory() -> float:
    """The machine's memory, bytes; without a limit where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def load_split(data_config: ConfigDict, split: Split) -> ImageSet:
    """The images of one split, as `load_splits` would give them; no other is read, simulated or fitted.

    Args:
      data_config: the `data` part of a config.
      split: which one.

    Raises:
      UserError: as of `load_splits`, or the training images are never repeated.
    """
    check_choice("config.data.selection", data_config.selection, SELECTIONS)
    check_choice("config.data.fit", data_config.fit, FITS)
    scheme, rest = _split_scheme(data_config.source)
    if scheme == "simulated":
        images = _simulated_split(rest, data_config, split)
    else:
        images = _read_split(scheme, Path(rest).expanduser(), data_config, split)
    log.info("%-10s %s", split, describe(images))
    return with_residuals(images, data_config.fit, name=split)


def _read_split(scheme: str, path: Path, data_config: ConfigDict, split: Split) -> ImageSet:
    if scheme == "tfds":
        from lensjax.data.deep_lense import read_prepared as read
    else:
        read = read_reference_layout
    available: list[str] = []

    def wanted(parts: Collection[str]) -> str:
        available.extend(parts)
        return part_of(split, data_config.selection, parts)

    (part,) = read(path, data_config.image_size, wanted=wanted).values()
    return select_from(
        part,
        split,
        data_config.selection,
        available,
        validation_fraction=data_config.validation_fraction,
        seed=data_config.seed,
    )


def _simulated_split(preset: str, data_config: ConfigDict, split: Split) -> ImageSet:
    if split == "train" and preset.endswith(FRESH):
        raise UserError("--split=train: the run's training images are never repeated; name another")
    if split == "test" and data_config.selection == "reference":
        split = "validation"
    return simulated_images(
        preset,
        split=split,
        num_images=data_config[f"num_{split}"],
        seed=data_config.seed,
        image_size=data_config.image_size,
    )


def describe(images: TrainingImages) -> str:
    """One line on a set: how many images, of which classes, which size, and how they are kept."""
    if isinstance(images, FreshImages):
        size = images.preset.instrument.image_size
        return f"{len(images):,} images an epoch, never repeated, {size} x {size} pixels"
    per_class = ", ".join(
        f"{count:,} {name}" for name, count in zip(CLASSES, images.class_counts(), strict=True)
    )
    if isinstance(images, StreamedImages):
        height, width = images.shape
        return f"{len(images):,} images ({per_class}), {height} x {width} pixels, read from disk"
    height, width = images.pixels.shape[1:]
    kept = "whole counts" if images.pixels.dtype == "uint16" else "float32"
    return f"{len(images):,} images ({per_class}), {height} x {width} pixels, {kept}"


def _split_scheme(source: str) -> tuple[str, str]:
    """What stands before the colon ("tfds", "simulated", or "" for a path), and what after it."""
    match = re.fullmatch(r"(tfds|simulated):(.+)", source)
    if match:
        return match[1], match[2]
    # A drive letter of Windows is no scheme.
    looks_like_scheme = re.match(r"[A-Za-z][A-Za-z0-9_+.-]+:", source)
    if not source or source in ("tfds", "simulated") or looks_like_scheme:
        if source and Path(source).exists():
            return "", source
        raise UserError(f"config.data.source={source!r}: not a source of images; give {FORMS}")
    return "", source


def _simulated_splits(preset: str, data_config: ConfigDict) -> Splits:
    def simulate(split: Split, num_images: int) -> ImageSet:
        return simulated_images(
            preset,
            split=split,
            num_images=num_images,
            seed=data_config.seed,
            image_size=data_config.image_size,
        )

    if preset.endswith(FRESH):
        train: TrainingImages = fresh_images(
            preset,
            num_images=data_config.num_train,
            seed=data_config.seed,
            image_size=data_config.image_size,
        )
    else:
        train = simulate("train", data_config.num_train)
    validation = simulate("validation", data_config.num_validation)
    if data_config.selection == "reference":
        return Splits(train, validation=validation, test=validation)
    return Splits(train, validation=validation, test=simulate("test", data_config.num_test))
