"""One checkpoint on disk: its items, their checksums, and whether it is intact.

A checkpoint is a folder whose name is a number, with three items: `model` (parameters and running
statistics), `rest` (the remaining training state) and `progress` (position in the run, metrics of every
epoch, and the SHA-256 of each item). Orbax's own checksums do not cover the values of arrays.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

PyTree = Any
Arrays = dict[str, np.ndarray]

ARRAY_ITEMS = ("model", "rest")
OUTDATED = "outdated"  # subfolder of checkpoints that are being deleted
LEFTOVERS = ("*.orbax-checkpoint-tmp*", f"*{OUTDATED}")  # patterns of folders left by killed processes


class DamagedError(Exception):
    """A checkpoint, or one of its items, cannot be read, or its content differs from what was saved."""


@dataclasses.dataclass
class Progress:
    """Position of a checkpoint in its run.

    Attributes:
      epoch: number of completed epochs.
      steps_in_epoch: number of completed steps of the current epoch.
      history: the metrics of each completed epoch.
    """

    epoch: int = 0
    steps_in_epoch: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
      step: number of the checkpoint.
      progress: position in the run.
      arrays: the arrays of the items that were read.
    """

    step: int
    progress: Progress
    arrays: dict[str, Arrays]


def list_steps(folder: Path) -> list[int]:
    """Numbers of the checkpoints in a folder, ascending; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    named = (each for each in folder.iterdir() if re.fullmatch("0|[1-9][0-9]*", each.name) and each.is_dir())
    return sorted(int(each.name) for each in named)


def leftovers(folder: Path) -> Iterator[Path]:
    """Yields folders of checkpoints that a killed process did not finish writing or deleting."""
    for pattern in LEFTOVERS:
        yield from sorted(folder.glob(pattern))


def delete_leftovers(folder: Path) -> None:
    """Deletes the folders that `leftovers` finds."""
    for path in leftovers(folder):
        shutil.rmtree(path, ignore_errors=True)


def rename_damaged(folder: Path, step: int) -> Path:
    """Renames a checkpoint to NUMBER.damaged, or to NUMBER.damaged2 and so on, and returns its new path."""
    names = (f"{step}.damaged{number}" for number in ("", *range(2, 1000)))
    moved = next(folder / name for name in names if not (folder / name).exists())
    return (folder / str(step)).rename(moved)


def named_arrays(tree: PyTree) -> Arrays:
    """The leaves of a tree by their paths, such as `params/conv1/kernel`."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def array_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the names, types, shapes and values of arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def progress_item(progress: Progress, items: Mapping[str, PyTree]) -> dict[str, Any]:
    """The item `progress` of a new checkpoint.

    Args:
      progress: the position in the run.
      items: the trees of the array items, by name.

    Returns:
      The content of the item, with the SHA-256 of all items.
    """
    digests = {name: array_digest(named_arrays(tree)) for name, tree in items.items()}
    content = dataclasses.asdict(progress)
    return content | {"sha256": digests | {"progress": _json_digest(content, digests)}}


def read(folder: Path, step: int, items: Sequence[str]) -> Checkpoint:
    """Reads a checkpoint.

    Args:
      folder: folder of the checkpoints.
      step: number of the checkpoint.
      items: array items to be read.

    Returns:
      The checkpoint.

    Raises:
      DamagedError: if the progress or one of these items cannot be read or has changed.
    """
    progress, digests = read_progress(folder / str(step))
    return Checkpoint(
        step, progress, {item: read_arrays(folder / str(step), item, digests) for item in items}
    )


def read_progress(checkpoint: Path) -> tuple[Progress, dict[str, str]]:
    """Reads the position of a checkpoint in its run.

    Args:
      checkpoint: folder of the checkpoint.

    Returns:
      The position, and the SHA-256 of each array item by name. Checkpoints of earlier versions of lensjax
      have no SHA-256.

    Raises:
      DamagedError: if the item `progress` cannot be read or has changed.
    """
    content = _restore(checkpoint, "progress", ocp.JsonCheckpointHandler(), ocp.args.JsonRestore())
    try:
        digests = content.pop("sha256", {})
        own_digest = digests.pop("progress", None)
        progress = Progress(**content)
        changed = bool(digests) and own_digest != _json_digest(content, digests)
    except (AttributeError, TypeError, ValueError) as error:
        raise DamagedError(f"progress: {error}") from None
    numbers = progress.epoch, progress.steps_in_epoch
    valid = all(type(number) is int and number >= 0 for number in numbers)
    if changed or not valid or not isinstance(progress.history, list):
        raise DamagedError("progress: its content has changed")
    return progress, digests


def read_arrays(checkpoint: Path, item: str, digests: Mapping[str, str]) -> Arrays:
    """Reads the arrays of an item.

    Args:
      checkpoint: folder of the checkpoint.
      item: name of the item.
      digests: expected SHA-256 of each item, see `read_progress`; empty if unknown.

    Returns:
      The arrays by path.

    Raises:
      DamagedError: if the item cannot be read or has changed.
    """
    tree = _restore(checkpoint, item, ocp.StandardCheckpointHandler(), ocp.args.StandardRestore())
    arrays = named_arrays(tree)
    if digests and array_digest(arrays) != digests.get(item):
        raise DamagedError(f"{item}: its content has changed")
    return arrays


def build(arrays: Arrays, like: PyTree) -> PyTree:
    """Builds a tree from its arrays.

    Args:
      arrays: the arrays by path.
      like: a tree of the same structure, with the types of the result.

    Returns:
      The tree.

    Raises:
      ValueError: if the names or the shapes differ.
    """
    expected = named_arrays(jax.tree.map(_empty, like))
    for name in sorted({*arrays, *expected}):
        shapes = [each[name].shape if name in each else None for each in (arrays, expected)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{name} is {_describe(shapes[0])} in the checkpoint and {_describe(shapes[1])} in the "
                "config's model"
            )
    leaves = [arrays[name].astype(leaf.dtype, copy=False) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _restore(checkpoint: Path, item: str, handler: Any, arguments: Any) -> Any:
    """Reads an item; all errors become a `DamagedError` with a one-line message."""
    path = checkpoint.absolute() / item
    if not path.is_dir():
        raise DamagedError(f"{item} is missing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # after an error, coroutines were never awaited
        try:
            return handler.restore(path, args=arguments)
        except Exception as error:  # Orbax and TensorStore raise almost any type for a damaged file
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}"
    raise DamagedError(f"{item}: {reason}")


def _json_digest(content: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """SHA-256 of the position in the run and of the digests of the array items."""
    return hashlib.sha256(json.dumps([content, digests], sort_keys=True).encode()).hexdigest()


def _empty(leaf: Any) -> np.ndarray:
    """An array of the same type and shape that needs almost no memory."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _describe(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"
