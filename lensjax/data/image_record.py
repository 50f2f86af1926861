"""Record of the images of a run, so that a run is never continued with other images."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from lensjax.data.fresh import FreshImages
from lensjax.data.images import ImageSet
from lensjax.data.splits import Splits, TrainingImages
from lensjax.errors import UserError
from lensjax.json_text import encode_json
from lensjax.workdir import IMAGES, is_started, seal, unseal, write_atomically

_CHUNK = 4096  # images per update of a checksum, between which Ctrl-C is handled


def check_images(workdir: Path, source: str, splits: Splits) -> None:
    """Checks that a run has the images with which it started, or records them if it has no record.

    Simulated images are not recorded: the config of the run determines them.

    Args:
      workdir: the run's folder.
      source: `config.data.source`.
      splits: the images.

    Raises:
      UserError: if the training or validation images are different, or the record is damaged.
    """
    if source.startswith("simulated:"):
        return
    found = {"train": summarize(splits.train), "validation": summarize(splits.validation)}
    recorded = read_record(workdir) if is_started(workdir) else None
    if recorded is None:
        write_atomically(workdir / IMAGES, encode_json(seal(found), indent=2) + "\n")
    elif any(_differ(recorded[name], found[name]) for name in found):
        raise UserError(
            f"{workdir} was trained on other images than {source} now contains; choose another --workdir"
        )


def summarize(images: TrainingImages) -> dict[str, Any]:
    """Number of images, and the SHA-256 of their labels and of their pixels with their scales.

    The checksum of the pixels is None if the images are not in memory.
    """
    values: dict[str, Any] = {"images": len(images), "labels": None, "pixels": None}
    if not isinstance(images, FreshImages):
        values["labels"] = _sha256(images.labels.astype(np.int32))
    if isinstance(images, ImageSet):
        values["pixels"] = _sha256(images.pixels, images.scale.astype(np.float64))
    return values


def read_record(workdir: Path) -> dict[str, dict[str, Any]] | None:
    """Reads the record of a run's images: the result of `summarize` for train and validation.

    Args:
      workdir: the run's folder.

    Returns:
      The record; None if there is none, as in runs of earlier versions and runs on simulated images.

    Raises:
      UserError: if the file is damaged.
    """
    path = workdir / IMAGES
    if not path.is_file():
        return None
    try:
        content = unseal(json.loads(path.read_text(encoding="utf-8")))
        if any(set(content[name]) != {"images", "labels", "pixels"} for name in ("train", "validation")):
            raise ValueError("it has other fields")
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it if the images have not changed") from None
    return content


def _differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two summaries differ in a field that both have."""
    return any(None not in (one[name], other[name]) and one[name] != other[name] for name in one)


def _sha256(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        for first in range(0, len(array), _CHUNK):
            digest.update(np.ascontiguousarray(array[first : first + _CHUNK]).data)
    return digest.hexdigest()
