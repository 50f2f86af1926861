"""Simulated images as a data source: cached in the user's cache folder, or never repeated."""

from pathlib import Path

import numpy as np

from lensjax import simulation
from lensjax.data.fresh import FreshImages
from lensjax.data.images import CLASSES, ImageSet, Split
from lensjax.errors import UserError
from lensjax.runtime import user_cache
from lensjax.runtime.progress import progress_bar

CODE_FOLDERS = ("simulation", "physics")
FRESH = "?fresh"  # suffix of a preset's name: training images are never repeated


def simulated_images(preset: str, *, split: Split, num_images: int, seed: int, image_size: int) -> ImageSet:
    """Simulates the images of a preset, or reads them from the cache.

    The cache key depends on everything that determines the pixels, so outdated files are never used.

    Args:
      preset: name of a preset of `lensjax.simulation`. The suffix "?fresh" is ignored here; see
        `fresh_images`.
      split: the split; each has independent scenes.
      num_images: total number of images of all classes.
      seed: seed of the scenes.
      image_size: expected height and width, pixels.

    Returns:
      The images, with alternating classes.

    Raises:
      UserError: if the preset is unknown, its images have a different size, or there are fewer images than
        classes.
    """
    if num_images < len(CLASSES):
        raise UserError(f"config.data.num_{split}={num_images}: must be at least {len(CLASSES)}")
    preset = preset.removesuffix(FRESH)
    definition = _load_preset(preset, image_size)
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
    """Defines training images that are simulated when needed and never repeated.

    Args:
      preset: name of a preset of `lensjax.simulation`, with or without "?fresh".
      num_images: images per epoch.
      seed: seed of the scenes. They differ from the scenes of all splits with the same seed.
      image_size: expected height and width, pixels.

    Returns:
      The definition of the images.

    Raises:
      UserError: if the preset is unknown, or its images have a different size.
    """
    definition = _load_preset(preset.removesuffix(FRESH), image_size)
    return FreshImages(definition, seed, num_images)


def _load_preset(preset: str, image_size: int) -> simulation.Preset:
    definition = simulation.preset(preset)
    actual_size = definition.instrument.image_size
    if actual_size != image_size:
        raise UserError(
            f"simulated:{preset}: image size {actual_size} pixels, expected {image_size}; "
            f"set config.data.image_size={actual_size}"
        )
    return definition


def cache_key(definition: str, *, split: Split, num_images: int, seed: int) -> str:
    """SHA-256 of everything that determines the pixels: preset, seed, code, versions, device type."""
    return user_cache.digest((definition, split, num_images, seed), code=CODE_FOLDERS)


def cache_folder() -> Path:
    """Cache folder of simulated images."""
    return user_cache.folder("simulated")


def _simulate(preset: str, split: Split, num_images: int, seed: int) -> dict[str, np.ndarray]:
    with progress_bar(num_images, f"simulating {split}") as bar:
        images = simulation.simulate_split(
            preset, seed=seed, split=split, num_images=num_images, report=bar.update
        )
    return {"pixels": images.pixels, "scale": images.scale, "labels": images.labels}
