"""Reads and writes safetensors files as NumPy arrays, without torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from lensjax.errors import UserError
from lensjax.weights.writing import write_file

TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, str]]:
    """Reads a safetensors file.

    Returns:
      The arrays, the metadata, and the type of each array in the file. Half-precision arrays are converted to
      float32.

    Raises:
      UserError: if the file cannot be read, is damaged, or has arrays of an unsupported type.
    """
    try:
        content = path.read_bytes()
        tensors = safetensors.deserialize(content)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or error}") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error})") from None
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    arrays: dict[str, np.ndarray] = {}
    types: dict[str, str] = {}
    for name, tensor in tensors:
        kind = tensor["dtype"]
        if not name.isprintable():
            raise UserError(f"{path}: damaged (the name {name!a} contains control characters)")
        if kind not in TYPES:
            raise UserError(f"{path}: {name} has the unsupported type {kind}")
        try:
            array = np.frombuffer(tensor["data"], TYPES[kind]).reshape(tensor["shape"])
        except ValueError as error:  # too many axes, or an axis that is too long
            raise UserError(f"{path}: {name} cannot be read ({error})") from None
        if kind == "BF16":
            # A bfloat16 has the bits of the upper half of a float32.
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array.astype(np.float32) if kind == "F16" else array
        types[name] = kind
    return arrays, header.get("__metadata__") or {}, types


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of a safetensors file, without its arrays.

    Raises:
      UserError: if the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error})") from None


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], *, overwrite: bool
) -> None:
    """Writes a safetensors file atomically.

    Raises:
      UserError: if the file already exists, or cannot be written.
    """
    # order="C" copies only arrays that are not contiguous, and keeps scalars.
    ready = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # safetensors' save_file makes files that only their owner can read.
    content = save(ready, metadata=dict(metadata))
    write_file(path, lambda temporary: temporary.write_bytes(content), overwrite=overwrite)
