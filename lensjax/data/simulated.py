"""Simulated images as a source of data: kept in the user's cache folder once made, or never repeated."""

from pathlib import Path

import numpy as np

from lensjax import simulation
from lensjax.data.fresh import FreshImages
from lensjax.data.images import CLASSES, ImageSet, Split
from lensjax.errors import UserError
from lensjax.runtime import user_cache
from lensjax.runtime.progress import progress_bar

CODE_FOLDERS = ("simulation", "physics")
FRESH = "?fresh"  # after the name of a preset: train on images that are never repeated


def simulated_images(
    preset: str, *, split: Split, num_images: int, seed: int, image_size: int
) -> ImageSet:
    """Images of a preset, simulated or taken from the cache of earlier runs.

    The cache is keyed by everything that decides the pixels, so it never has to be cleared to be right.

    Args:
      preset: name of a preset of `lensjax.simulation`. Ending in "?fresh" it is the same preset here: only
        training takes notice (`fresh_images`).
      split: which of the preset's independent streams of scenes.
      num_images: how many, over all classes.
      seed: of the scenes.
      image_size: expected height and width, pixels.

    Raises:
      UserError: there is no such preset, its images have another size, or the classes get none.
    """
    if num_images < len(CLASSES):
        raise UserError(f"config.data.num_{split}={num_images}: has to be at least {len(CLASSES)}")
    preset = preset.removesuffix(FRESH)
    definition = _checked_preset(preset, image_size)
    digest = cache_key(repr(definition), split=split, num_images=num_images, seed=seed)
    file = cache_folder() / f"{preset}-{split}-{num_images}-{digest[:16]}.npz"
    shapes = {"pixels": (num_images, image_size, image_size)}
    arrays = user_cache.load(file, shapes | dict.fromkeys(("scale", "labels"), (num_images,)))
    if arrays is None:
        arrays = _simulate(preset, split, num_images, seed)
        user_cache.save(file, arrays)
    names = (f"{split}/{CLASSES[label]}/{row}" for row, label in enumerate(arrays["labels"]))
    return ImageSet(arrays["pixels"], arrays["scale"], arrays["labels"], tuple(names))


def fresh_images(preset: str, *, num_images: int, seed: int, image_size: int) -> FreshImages:
    """Images to train on that are never repeated; nothing is simulated yet.

    Args:
      preset: name of a preset of `lensjax.simulation`, with or without "?fresh".
      num_images: how many make an epoch.
      seed: of the scenes; none of them is in a split of the same seed.
      image_size: expected height and width, pixels.

    Raises:
      UserError: there is no such preset, or its images have another size.
    """
    definition = _checked_preset(preset.removesuffix(FRESH), image_size)
    return FreshImages(definition, seed, num_images)


def _checked_preset(preset: str, image_size: int) -> simulation.Preset:
    definition = simulation.preset(preset)
    actual_size = definition.instrument.image_size
    if actual_size != image_size:
        raise UserError(
            f"simulated:{preset} has images of {actual_size} pixels, expected {image_size}; "
            f"set config.data.image_size={actual_size}"
        )
    return definition


def cache_key(definition: str, *, split: Split, num_images: int, seed: int) -> str:
    """SHA-256 over all that decides the pixels: preset, seed, code, versions, kind of device."""
    return user_cache.digest((definition, split, num_images, seed), code=CODE_FOLDERS)


def cache_folder() -> Path:
    """Where simulated images are kept."""
    return user_cache.folder("simulated")


def _simulate(preset: str, split: Split, num_images: int, seed: int) -> dict[str, np.ndarray]:
    with progress_bar(num_images, f"simulating {split}") as bar:
        images = simulation.simulate_split(
            preset, seed=seed, split=split, num_images=num_images, report=bar.update
        )
    return {"pixels": images.pixels, "scale": images.scale, "labels": images.labels}
