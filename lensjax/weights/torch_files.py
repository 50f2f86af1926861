"""Files of PyTorch weights: state dicts read from .pth and .safetensors, and written to them."""

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
from lensjax.weights.writing import write_whole

# Entries of a checkpoint that hold the state dict; of DINO's two networks the teacher is the one to use.
WRAPPERS = ("state_dict", "model_state_dict", "teacher", "model")

# The format's own limit on a safetensors header, bytes.
MAX_HEADER = 100_000_000

NOT_WEIGHTS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; fetch it with git lfs pull",
    b"<": "is a web page, not weights; the download went wrong",
}


@dataclasses.dataclass(frozen=True)
class StateDict:
    """A state dict read from a file.

    Attributes:
      arrays: by PyTorch's names.
      sha256: of the file.
      left_out: entries of the file that are no weights: the optimiser's state, the epoch.
      notes: what was done to the arrays on the way, a line each.
    """

    arrays: dict[str, np.ndarray]
    sha256: str
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_torch(path: Path) -> StateDict:
    """The state dict in a file, whichever of the two formats it has.

    Half precision becomes float32, which holds each such number exactly.

    Args:
      path: a .pth, .pt or .bin file of PyTorch's, or .safetensors. Reading the latter needs no torch.

    Raises:
      UserError: the file is missing, damaged, or no checkpoint, or it holds more than tensors (nothing in
        it is run); or torch is needed and not installed.
    """
    if kind_of(path) == "safetensors":
        arrays, _, types = read_safetensors(path)
        return StateDict(arrays, sha256_of(path), (), _halves(types))
    content, left_out = _unwrap(path, _torch_load(path))
    arrays, types = {}, {}
    others = list(left_out)
    torch = _torch(path)
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            others.append(str(name))
            continue
        types[str(name)] = str(value.dtype).removeprefix("torch.")
        arrays[str(name)] = _as_numpy(torch, path, name, value)
    if not arrays:
        raise UserError(
            f"{path}: no tensors found; its entries are {', '.join(map(repr, others[:8])) or 'none'}, and "
            f"weights are looked for there and in {', '.join(WRAPPERS)}"
        )
    return StateDict(arrays, sha256_of(path), tuple(others), _halves(types))


def write_torch(path: Path, state_dict: Mapping[str, np.ndarray], *, overwrite: bool) -> None:
    """Writes a state dict, whole or not at all.

    Args:
      path: a .pth or .pt file for torch.load, or .safetensors, which needs no torch.
      state_dict: arrays by PyTorch's names.
      overwrite: whether a file that is there already may be replaced.

    Raises:
      UserError: the file is there already or cannot be written, or torch is needed and not installed.
    """
    if path.suffix == ".safetensors":
        # "pt" is what PyTorch's readers of this format look for.
        write_safetensors(path, state_dict, {"format": "pt"}, overwrite=overwrite)
        return
    torch = _torch(path)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state_dict.items()}
    write_whole(path, lambda temporary: torch.save(tensors, temporary), overwrite=overwrite)


def kind_of(path: Path) -> str:
    """Whether a file is "torch" or "safetensors", from its first bytes.

    Raises:
      UserError: it is missing or neither.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file of weights")
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    # The length of a header, then the header; a pickle never begins with so small a number.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER:
        return "safetensors"
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    for sign, what in NOT_WEIGHTS.items():
        if start.lstrip().startswith(sign):
            raise UserError(f"{path} {what}")
    what = "neither a PyTorch checkpoint nor a safetensors file" if start else "empty"
    raise UserError(f"{path} is {what}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _torch(path: Path) -> ModuleType:
    """The torch package."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} is in PyTorch's own format and torch is not installed: pip install 'lensjax[torch]', "
            "or use a .safetensors file, which does without"
        ) from None
    return torch


def _torch_load(path: Path) -> Any:
    """What a checkpoint holds, if that is tensors, plain containers, numbers and texts."""
    torch = _torch(path)
    # DINO's full checkpoints carry their command line along: a Namespace, which only holds values.
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            if (named is None and "nsupported" not in str(error)) or (
                named is not None and _ends_in(path, named[1].rpartition(".")[2])
            ):
                raise UserError(f"{path} is damaged or no PyTorch checkpoint") from None
            what = f" (it names {named[1]})" if named else ""
            raise UserError(
                f"{path} holds more than tensors{what}; nothing in it was run. If you trust it, load it "
                "where it was made and save the state dict alone: torch.save(model.state_dict(), ...)"
            ) from None
        except Exception as error:
            if "TorchScript" in str(error):
                raise UserError(
                    f"{path} is a TorchScript program, not a state dict; save model.state_dict() instead"
                ) from None
            # A damaged file can fail anywhere in the reader.
            first = (str(error).splitlines() or [""])[0][:120]
            raise UserError(
                f"{path} is damaged or no PyTorch checkpoint ({type(error).__name__}: {first})"
            ) from None


def _ends_in(path: Path, word: str) -> bool:
    """Whether a file ends in a word, or one character after it: a name that was cut off."""
    with path.open("rb") as stream:
        stream.seek(-min(len(word) + 1, path.stat().st_size), os.SEEK_END)
        end = stream.read()
    return word.encode() in (end[1:], end[:-1])


def _unwrap(path: Path, content: Any) -> tuple[Mapping[Any, Any], list[str]]:
    """The state dict inside a checkpoint, and the names of what lies beside it."""
    beside: list[str] = []
    while isinstance(content, Mapping):
        inside = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inside:
            return content, beside
        if len(inside) > 1:
            raise UserError(
                f"{path} has weights under {' and '.join(inside)}; save the ones you mean alone"
            )
        beside += [str(name) for name in content if name != inside[0]]
        content = content[inside[0]]
    raise UserError(f"{path} holds a {type(content).__name__}, not a state dict")


def _as_numpy(torch: ModuleType, path: Path, name: Any, tensor: Any) -> np.ndarray:
    try:
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        return tensor.detach().numpy()
    except (TypeError, RuntimeError, NotImplementedError):
        kind = f"{tensor.layout} {tensor.dtype} on {tensor.device}"
        raise UserError(f"{path}: {name} is no plain array ({kind})") from None


def _halves(types: Mapping[str, str]) -> tuple[str, ...]:
    """A note for each half precision that was found."""
    found = (("float16", ("float16", "F16")), ("bfloat16", ("bfloat16", "BF16")))
    counts = {name: sum(kind in kinds for kind in types.values()) for name, kinds in found}
    return tuple(
        f"{count} arrays were {name} and are float32 now" for name, count in counts.items() if count
    )
