"""Simulated images as a source of data: kept in the user's cache folder once made, or never repeated."""

import contextlib
import hashlib
import os
import uuid
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np
import platformdirs

import lensjax
from lensjax import console, simulation
from lensjax.console import log
from lensjax.data.fresh import FreshImages
from lensjax.data.images import CLASSES, ImageSet, Split
from lensjax.errors import UserError

CACHE_VARIABLE = "LENSJAX_CACHE"
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
    arrays = _load(file, num_images, image_size)
    if arrays is None:
        arrays = _simulate(preset, split, num_images, seed)
        _save(file, arrays)
    pixels, scale, labels = arrays
    names = (f"{split}/{CLASSES[label]}/{row}" for row, label in enumerate(labels))
    return ImageSet(pixels, scale, labels, tuple(names))


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
    key = hashlib.sha256()
    for part in (definition, split, num_images, seed, jax.__version__, np.__version__):
        key.update(f"{part}\n".encode())
    key.update(f"{jax.default_backend()}\n".encode())
    package = Path(lensjax.__file__).parent
    for folder in CODE_FOLDERS:
        for file in sorted((package / folder).rglob("*.py")):
            key.update(f"{file.relative_to(package).as_posix()}\n".encode())
            key.update(file.read_bytes())
    return key.hexdigest()


def cache_folder() -> Path:
    """Where simulated images are kept: the folder LENSJAX_CACHE names, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    folder = Path(named).expanduser() if named else platformdirs.user_cache_path("lensjax")
    return folder / "simulated"


def _simulate(
    preset: str, split: Split, num_images: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with console.progress(num_images, f"simulating {split}") as bar:
        images = simulation.simulate_split(
            preset, seed=seed, split=split, num_images=num_images, report=bar.update
        )
    return images.pixels, images.scale, images.labels


def _load(
    file: Path, num_images: int, image_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The arrays in a cache file; None where it is missing or damaged."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            # Reading to the end of each array compares its checksum.
            pixels, scale, labels = arrays["pixels"], arrays["scale"], arrays["labels"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("%s: damaged (%s); simulating these images again", file, error)
        return None
    if pixels.shape != (num_images, image_size, image_size):
        log.warning("%s: holds other images; simulating these again", file)
        return None
    return pixels, scale, labels


def _save(file: Path, arrays: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Writes a cache file, whole or not at all; a folder that cannot be written is only a warning."""
    pixels, scale, labels = arrays
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            np.savez(stream, pixels=pixels, scale=scale, labels=labels)
        temporary.replace(file)
    except OSError as error:
        log.warning(
            "%s: simulated images cannot be kept (%s); they will be made again next time, unless "
            "%s names a folder that can be written",
            file.parent,
            error.strerror or error,
            CACHE_VARIABLE,
        )
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
