"""lensjax's own weight files: safetensors of Flax variables, with metadata on where they come from.

Keys are the paths of the variables, `params/conv1/kernel` or `batch_stats/bn1/mean`. The metadata, all
texts: format and format_version; architecture; sizes (JSON, by the config's names); source_file,
source_names and source_sha256; num_batches_tracked (JSON, PyTorch's counts); lensjax, jax and flax
(versions).
"""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import lensjax
from lensjax.errors import UserError
from lensjax.weights.safetensors_files import metadata_of, read_safetensors, write_safetensors
from lensjax.weights.torch_files import kind_of
from lensjax.weights.trees import flatten, nest

FORMAT = "lensjax weights"
FORMAT_VERSION = "1"
TOOL = "python tools/convert_torch_weights.py --input {} --output NEW.safetensors"


def save(
    path: Path,
    variables: Mapping[str, Any],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> None:
    """Writes variables and their metadata to one file, whole or not at all.

    Args:
      path: the file.
      variables: parameters and running statistics.
      metadata: at least "architecture"; format and versions are added.
      overwrite: whether a file that is there already may be replaced.

    Raises:
      UserError: the file is there already, or cannot be written.
    """
    written = {
        **metadata,
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "lensjax": lensjax.__version__,
        "jax": importlib.metadata.version("jax"),
        "flax": importlib.metadata.version("flax"),
    }
    arrays = {name: np.asarray(array) for name, array in flatten(variables).items()}
    write_safetensors(path, arrays, written, overwrite=overwrite)


def load(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The variables and the metadata in a file that `save` wrote.

    Raises:
      UserError: the file is missing, damaged, or not lensjax's; the message says how to convert it.
    """
    if not path.exists():
        raise UserError(
            f"{path}: there is no such file; tools/convert_torch_weights.py makes one from a PyTorch "
            "checkpoint, or fetches what is published with --download"
        )
    if kind_of(path) != "safetensors":
        raise UserError(f"{path} is a PyTorch checkpoint; convert it: {TOOL.format(path)}")
    arrays, metadata, _ = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} is a safetensors file, but not of lensjax's variables; convert it: {TOOL.format(path)}"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has version {metadata.get('format_version')} of the format and this lensjax reads "
            f"version {FORMAT_VERSION}; convert the source again with the lensjax that is to read it"
        )
    return nest(arrays), metadata


def is_lensjax_file(path: Path) -> bool:
    """Whether a file says that `save` wrote it.

    Raises:
      UserError: the file is missing or damaged.
    """
    return kind_of(path) == "safetensors" and metadata_of(path).get("format") == FORMAT
