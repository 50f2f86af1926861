"""Weight files of lensjax: safetensors files of Flax variables, with metadata on their origin.

Keys are the paths of the variables, such as `params/conv1/kernel` or `batch_stats/bn1/mean`. The metadata are
strings: format and format_version; architecture; sizes (JSON, by the config's names); source_file,
source_names and source_sha256; num_batches_tracked (JSON, PyTorch's counters); lensjax, jax and flax
(versions). Files written by `lensjax export` have best_epoch, classes, image_shape, config and temperature
(JSON) in place of the sizes, the source and the counters, and can have arrays `domain/...`, the range of the
validation images. The entry checksum is the SHA-256 of the arrays and of all other metadata, see `checksum`;
a file whose content differs from it is rejected.
"""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import lensjax
from lensjax.errors import UserError
from lensjax.weights.safetensors_files import read_metadata, read_safetensors, write_safetensors
from lensjax.weights.torch_files import detect_format
from lensjax.weights.trees import flatten, unflatten

FORMAT = "lensjax weights"
FORMAT_VERSION = "2"
CHECKSUM = "checksum"
CONVERT_COMMAND = "lensjax convert-weights --input {} --output NEW.safetensors"


def save(
    path: str | os.PathLike[str],
    variables: Mapping[str, Any],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> None:
    """Writes variables and their metadata to a file, atomically.

    Args:
      path: the file.
      variables: parameters and running statistics. Half-precision arrays are stored as float32.
      metadata: at least "architecture". The format, the versions and the checksum are added.
      overwrite: whether to replace an existing file.

    Raises:
      UserError: if the file already exists, or cannot be written.
    """
    written = {
        **metadata,
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "lensjax": lensjax.__version__,
        "jax": importlib.metadata.version("jax"),
        "flax": importlib.metadata.version("flax"),
    }
    arrays = {name: _without_half_precision(array) for name, array in flatten(variables).items()}
    written[CHECKSUM] = checksum(arrays, written)
    write_safetensors(Path(path), arrays, written, overwrite=overwrite)


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads the variables and metadata of a file written by `save`.

    Returns:
      The variables and the metadata.

    Raises:
      UserError: if the file is missing, damaged, not written by lensjax or of a different format version, or
        if it contains NaN or infinite values. For a file in another format, the message states how to convert
        it.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"{path}: no such file; create one from a PyTorch checkpoint with lensjax convert-weights, or "
            "download published weights with its --download"
        )
    if detect_format(path) != "safetensors":
        raise UserError(f"{path} is a PyTorch checkpoint; convert it with {CONVERT_COMMAND.format(path)}")
    arrays, metadata, _ = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} is a safetensors file, but lensjax did not write it; convert it with "
            f"{CONVERT_COMMAND.format(path)}"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {metadata.get('format_version')!r}, but this lensjax reads version "
            f"{FORMAT_VERSION}; convert or export the source again with this version"
        )
    if metadata.get(CHECKSUM) != checksum(arrays, metadata):
        raise UserError(f"{path}: damaged (its content differs from its checksum); copy or create it again")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name} contains NaN or infinite values; such weights cannot be used")
    if "architecture" not in metadata:
        raise UserError(f"{path} does not name its architecture; convert or export the source again")
    try:
        return unflatten(arrays), metadata
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256, as hex digits, of the names, types, shapes and values of arrays and of the metadata.

    The order of the entries and an entry "checksum" of the metadata are ignored.
    """
    names = sorted(arrays)
    header = {
        "arrays": [(name, arrays[name].dtype.str, arrays[name].shape) for name in names],
        "metadata": sorted((name, value) for name, value in metadata.items() if name != CHECKSUM),
    }
    digest = hashlib.sha256(json.dumps(header).encode())
    for name in names:
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _without_half_precision(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype.itemsize == 2 and array.dtype.kind in "fV" else array


def is_lensjax_file(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file was written by `save`.

    Raises:
      UserError: if the file is missing or damaged.
    """
    path = Path(path)
    return detect_format(path) == "safetensors" and read_metadata(path).get("format") == FORMAT
