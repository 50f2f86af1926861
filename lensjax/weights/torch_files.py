"""Reading and writing of PyTorch state dicts in .pth and .safetensors files."""

import argparse
import dataclasses
import hashlib
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lensjax.errors import UserError
from lensjax.weights.safetensors_files import read_safetensors, write_safetensors
from lensjax.weights.writing import write_file

# Keys of a checkpoint that can contain the state dict. Of the two networks of DINO, the teacher is used.
WRAPPERS = ("state_dict", "model_state_dict", "teacher", "model")

# Largest header that the safetensors format allows, bytes.
MAX_HEADER = 100_000_000

NOT_WEIGHTS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; run git lfs pull",
    b"<": "is a web page, not a weight file; download it again",
}


@dataclasses.dataclass(frozen=True)
class StateDict:
    """A state dict read from a file.

    Attributes:
      arrays: arrays by PyTorch name.
      sha256: SHA-256 of the file.
      skipped: entries of the file that are not weights, such as the optimizer's state or the epoch.
      notes: changes made to the arrays, one line each.
    """

    arrays: dict[str, np.ndarray]
    sha256: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_torch(path: str | os.PathLike[str]) -> StateDict:
    """Reads the state dict in a PyTorch or safetensors file.

    Half-precision arrays are converted to float32, which represents their values exactly.

    Args:
      path: a .pth, .pt or .bin file of PyTorch, or a .safetensors file, which does not need torch.

    Raises:
      UserError: if the file is missing, damaged or not a checkpoint, or if torch is needed and not installed.
        Also if the file contains objects other than tensors, plain containers, numbers and strings; their
        code is never run.
    """
    path = Path(path)
    if detect_format(path) == "safetensors":
        arrays, _, types = read_safetensors(path)
        return StateDict(arrays, file_sha256(path), (), _half_precision_notes(types))
    content, skipped = _unwrap(path, _torch_load(path))
    arrays, types = {}, {}
    others = list(skipped)
    torch = _import_torch(path)
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            others.append(str(name))
            continue
        types[str(name)] = str(value.dtype).removeprefix("torch.")
        arrays[str(name)] = _as_numpy(torch, path, name, value)
    if not arrays:
        raise UserError(
            f"{path}: no tensors found at the top level or in {', '.join(WRAPPERS)}; the entries are "
            f"{', '.join(map(repr, others[:8])) or 'none'}"
        )
    return StateDict(arrays, file_sha256(path), tuple(others), _half_precision_notes(types))


def write_torch(
    path: str | os.PathLike[str], state_dict: Mapping[str, np.ndarray], *, overwrite: bool = False
) -> None:
    """Writes a state dict to a file, atomically.

    Args:
      path: a .pth or .pt file for torch.load, or a .safetensors file, which does not need torch.
      state_dict: arrays by PyTorch name.
      overwrite: whether to replace an existing file.

    Raises:
      UserError: if the file already exists, cannot be written, or torch is needed and not installed.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        # PyTorch's readers of this format expect "pt".
        write_safetensors(path, state_dict, {"format": "pt"}, overwrite=overwrite)
        return
    torch = _import_torch(path)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state_dict.items()}
    write_file(path, lambda temporary: torch.save(tensors, temporary), overwrite=overwrite)


def detect_format(path: str | os.PathLike[str]) -> str:
    """Detects from the first bytes of a file whether it is "torch" or "safetensors".

    Raises:
      UserError: if the file is missing or neither.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; specify a weight file")
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise UserError(f"{path} is not a regular file; specify a weight file")
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or error}") from None
    # The length of the header, then the header. A pickle never starts with such a small number.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER:
        return "safetensors"
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    for beginning, problem in NOT_WEIGHTS.items():
        if start.lstrip().startswith(beginning):
            raise UserError(f"{path} {problem}")
    problem = "neither a PyTorch checkpoint nor a safetensors file" if start else "empty"
    raise UserError(f"{path} is {problem}")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _import_torch(path: Path) -> ModuleType:
    """Imports torch, or raises an error that names the file that needs it."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} is in PyTorch's format, but torch is not installed; run pip install 'lensjax[torch]', "
            "or use a .safetensors file"
        ) from None
    return torch


def _torch_load(path: Path) -> Any:
    """Loads a checkpoint that contains only tensors, plain containers, numbers and strings."""
    torch = _import_torch(path)
    # DINO's full checkpoints contain their command line as a Namespace, which is safe to load.
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
            if (blocked is None and "nsupported" not in str(error)) or (
                blocked is not None and _ends_in(path, blocked[1].rpartition(".")[2])
            ):
                raise UserError(f"{path}: damaged or not a PyTorch checkpoint") from None
            found = f" (found {blocked[1]})" if blocked else ""
            raise UserError(
                f"{path} contains more than tensors{found}; none of its code was run. If you trust the file, "
                "load it where it was created and save only the state dict: "
                "torch.save(model.state_dict(), ...)"
            ) from None
        except Exception as error:
            if "TorchScript" in str(error):
                raise UserError(
                    f"{path} is a TorchScript program, not a state dict; save model.state_dict() instead"
                ) from None
            # A damaged file can raise any error in the reader.
            first = (str(error).splitlines() or [""])[0][:120]
            raise UserError(
                f"{path}: damaged or not a PyTorch checkpoint ({type(error).__name__}: {first})"
            ) from None


def _ends_in(path: Path, word: str) -> bool:
    """Returns whether a file ends with a word, or one byte after it: the word is then a truncated name."""
    with path.open("rb") as stream:
        stream.seek(-min(len(word) + 1, path.stat().st_size), os.SEEK_END)
        end = stream.read()
    return word.encode() in (end[1:], end[:-1])


def _unwrap(path: Path, content: Any) -> tuple[Mapping[Any, Any], list[str]]:
    """Returns the state dict of a checkpoint, and the names of the other entries."""
    others: list[str] = []
    while isinstance(content, Mapping):
        inside = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inside:
            return content, others
        if len(inside) > 1:
            raise UserError(f"{path} has weights in {' and '.join(inside)}; save only one of them")
        others += [str(name) for name in content if name != inside[0]]
        content = content[inside[0]]
    raise UserError(f"{path} contains a {type(content).__name__}, not a state dict")


def _as_numpy(torch: ModuleType, path: Path, name: Any, tensor: Any) -> np.ndarray:
    try:
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        return tensor.detach().numpy()
    except (TypeError, RuntimeError, NotImplementedError):
        kind = f"{tensor.layout} {tensor.dtype} on {tensor.device}"
        raise UserError(f"{path}: {name} is not a dense array ({kind})") from None


def _half_precision_notes(types: Mapping[str, str]) -> tuple[str, ...]:
    """One note per half-precision type in the file."""
    found = (("float16", ("float16", "F16")), ("bfloat16", ("bfloat16", "BF16")))
    counts = {name: sum(kind in kinds for kind in types.values()) for name, kinds in found}
    return tuple(
        f"{count} arrays converted from {name} to float32" for name, count in counts.items() if count
    )
