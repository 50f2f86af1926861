"""Reads and writes PyTorch state dicts in .pth and .safetensors files."""

import dataclasses
import hashlib
import itertools
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lensjax.errors import UserError
from lensjax.weights.placeholders import PLACEHOLDERS
from lensjax.weights.safetensors_files import read_safetensors, write_safetensors
from lensjax.weights.torch_archives import MAX_EXPANSION, check_archive
from lensjax.weights.writing import write_file

# Entries of a checkpoint that can contain the state dict. Of the two networks of DINO, the teacher is used.
ENTRIES = (
    *("state_dict", "model_state_dict", "teacher", "model", "net", "network", "weights"),
    *("model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema"),
)
PART_OF_MANY = r"-(\d+)-of-(\d+)\.\w+$"  # Hugging Face's names of sharded files

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
      skipped: entries of the file that were not read, such as the optimizer's state or the epoch.
      notes: changes made to the arrays, one line each.
    """

    arrays: dict[str, np.ndarray]
    sha256: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_torch(path: str | os.PathLike[str], *, entry: str | None = None) -> StateDict:
    """Reads the state dict in a PyTorch or safetensors file.

    Half-precision arrays are converted to float32, which represents their values exactly.

    Args:
      path: a .pth, .pt or .bin file of PyTorch, or a .safetensors file, which does not need torch.
      entry: entry of the checkpoint that contains the state dict, such as "model_ema"; needed only if several
        of `ENTRIES` do, or if its name is not one of them.

    Returns:
      The state dict, with the hash of the file.

    Raises:
      UserError: if the file is missing, damaged, not a checkpoint, or one of several parts of one, if it
        contains several state dicts, or if torch is needed and not installed. Also if the file contains
        objects other than tensors, plain containers, numbers, strings and those of `placeholders`; code in
        the file is never run.
    """
    path = Path(path)
    file_format = detect_format(path)
    part = re.search(PART_OF_MANY, path.name)
    if part is not None and int(part[2]) > 1:
        raise UserError(
            f"{path} is part {int(part[1])} of {int(part[2])} of a sharded checkpoint; save all weights in "
            "one file, such as with save_pretrained(FOLDER, max_shard_size='100GB')"
        )
    if file_format == "safetensors":
        if entry is not None:
            raise UserError(f"{path} is a safetensors file, which has no entry {entry!r}")
        arrays, _, types = read_safetensors(path)
        return StateDict(arrays, file_sha256(path), (), _half_precision_notes(types))
    content, skipped = _unwrap(path, _torch_load(path), entry)
    arrays, types = {}, {}
    others = list(skipped)
    torch = _import_torch(path)
    room = MAX_EXPANSION * path.stat().st_size  # tensors can share values, but not arbitrarily many
    for name, value in content.items():
        if not isinstance(value, torch.Tensor) or not isinstance(name, str):
            others.append(_label(name))
            continue
        if not name.isprintable():
            raise UserError(f"{path}: damaged (the name {name!a} contains control characters)")
        room -= value.numel() * value.element_size()
        if room < 0:
            raise UserError(f"{path}: {name} and the tensors before it are much larger than the file")
        types[name] = str(value.dtype).removeprefix("torch.")
        arrays[name] = _as_numpy(torch, path, name, value)
    if not arrays:
        raise UserError(
            f"{path}: no tensors found at the top level or in a known entry; the entries are "
            f"{_list_names(others)}; choose one with --entry"
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
      UserError: if the file is missing, not a regular file, cannot be read, or is neither.
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
    """Loads a checkpoint of tensors, plain containers, numbers and strings, with some placeholders."""
    torch = _import_torch(path)
    try:
        check_archive(path)
    except ValueError as error:
        raise UserError(f"{path}: damaged or not a PyTorch checkpoint ({error})") from None
    with warnings.catch_warnings(), torch.serialization.safe_globals(PLACEHOLDERS):
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
    """Returns whether a file ends with a word, or one byte after it. The word is then a truncated name."""
    with path.open("rb") as stream:
        stream.seek(-min(len(word) + 1, path.stat().st_size), os.SEEK_END)
        end = stream.read()
    return word.encode() in (end[1:], end[:-1])


def _unwrap(path: Path, content: Any, entry: str | None) -> tuple[Mapping[Any, Any], list[str]]:
    """Returns the state dict of a checkpoint, and the names of the other entries."""
    others: list[str] = []
    seen: set[int] = set()  # a hostile checkpoint can contain itself
    while isinstance(content, Mapping) and id(content) not in seen:
        seen.add(id(content))
        inside = [name for name in ENTRIES if isinstance(content.get(name), Mapping)]
        if entry is not None:
            if not isinstance(content.get(entry), Mapping):
                raise UserError(f"{path} has no state dict {entry!r}; its entries are {_list_names(content)}")
            inside, entry = [entry], None
        if not inside:
            return content, others
        if len(inside) > 1:
            raise UserError(
                f"{path} has weights in {' and '.join(inside)}; choose one, such as --entry {inside[0]}"
            )
        others += [_label(name) for name in content if name != inside[0]]
        content = content[inside[0]]
    raise UserError(f"{path} contains a {type(content).__name__}, not a state dict")


def _list_names(names: Iterable[Any]) -> str:
    """The first names of a checkpoint, for an error message."""
    return ", ".join(repr(_label(name)) for name in itertools.islice(names, 8)) or "none"


def _label(name: Any) -> str:
    """A name of an entry that fits in one line."""
    if isinstance(name, str):
        return name if name.isprintable() else ascii(name)
    return str(name) if isinstance(name, int) else f"a {type(name).__name__}"


def _as_numpy(torch: ModuleType, path: Path, name: Any, tensor: Any) -> np.ndarray:
    try:
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        return tensor.detach().numpy()
    except (TypeError, ValueError, RuntimeError):  # ValueError: the size of an axis overflows
        kind = f"{tensor.layout} {tensor.dtype} on {tensor.device}"
        raise UserError(f"{path}: {name} is not a dense array ({kind})") from None


def _half_precision_notes(types: Mapping[str, str]) -> tuple[str, ...]:
    """One note per half-precision type in the file."""
    found = (("float16", ("float16", "F16")), ("bfloat16", ("bfloat16", "BF16")))
    counts = {name: sum(kind in kinds for kind in types.values()) for name, kinds in found}
    return tuple(
        f"arrays converted from {name} to float32: {count}" for name, count in counts.items() if count
    )
