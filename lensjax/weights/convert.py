"""Strict conversion between PyTorch state dicts and Flax variables."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lensjax.errors import UserError
from lensjax.weights.names import Named, rename
from lensjax.weights.shapes import Shape, Sizes, sizes_of, torch_shapes
from lensjax.weights.tables import TABLES, Row
from lensjax.weights.trees import flatten, nest

MAX_PROBLEMS = 40
COUNT = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Converted:
    """A state dict as Flax variables.

    Attributes:
      variables: parameters and running statistics.
      sizes: of the network, by the names of lensjax's config.
      names: whose names the state dict used, and where they were found; see `names.Named`.
    """

    variables: dict[str, Any]
    sizes: Sizes
    names: Named


def convert(state_dict: Mapping[str, np.ndarray], architecture: str | None = None) -> Converted:
    """Flax variables with the values of a PyTorch state dict under any of the known names.

    The arrays keep the shapes of the source: three input channels for resnet18 and dino_vits16, and
    resnet18's classifier where the source has it. Nothing is adapted to another network.

    Args:
      state_dict: arrays by PyTorch's names, as `read_torch` gives them.
      architecture: one of `tables.TABLES`; None to see from the names.

    Raises:
      UserError: the architecture cannot be seen, arrays are missing, too many, of another shape or type,
        or not finite; all in one message.
    """
    named = rename(state_dict, architecture)
    sizes = sizes_of(named.architecture, named.arrays)
    with_classifier = any(key.startswith("fc.") for key in named.arrays)
    wanted = torch_shapes(named.architecture, sizes, with_classifier=with_classifier)
    problems = [
        *named.problems,
        *_misfits(named.arrays, wanted, named),
        *_bad_values(named),
        *(
            f"{named.source_name(key)} belongs to no running statistics"
            for key in named.batch_counts
            if key.replace(COUNT, "running_var") not in wanted
        ),
    ]
    _refuse(problems, named.architecture)
    return Converted(_to_variables(named.arrays, named.architecture), dict(sizes), named)


def from_torch(
    state_dict: Mapping[str, np.ndarray], architecture: str, like: Mapping[str, Any]
) -> dict[str, Any]:
    """Flax variables of a given module with the values of a PyTorch state dict under its own names.

    Every key has to have its place and every place its key. PyTorch's counts of batches
    (`num_batches_tracked`), which nothing uses, are passed over.

    Args:
      state_dict: arrays by PyTorch's names.
      architecture: one of `tables.TABLES`.
      like: variables of the module to fill, or their shapes; gives the expected shapes.

    Raises:
      UserError: keys without a place, places without a key, or other shapes; all in one message.
    """
    wanted: dict[str, Shape] = {}
    problems = []
    for path, array in flatten(like).items():
        name_and_row = _torch_name(path, architecture)
        if name_and_row is None:
            problems.append(f"{path} has no name in PyTorch's {architecture}")
            continue
        key, row = name_and_row
        wanted[key] = row.layout.to_torch(np.broadcast_to(np.float32(0), array.shape)).shape
    arrays = {key: array for key, array in state_dict.items() if not key.endswith(COUNT)}
    _refuse([*problems, *_misfits(arrays, wanted)], architecture)
    return _to_variables(arrays, architecture)


def to_torch(
    variables: Mapping[str, Any],
    architecture: str,
    *,
    batch_counts: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """The PyTorch state dict with the values of Flax variables.

    Args:
      variables: parameters and running statistics.
      architecture: one of `tables.TABLES`.
      batch_counts: what PyTorch counts beside running statistics (`num_batches_tracked`, which nothing
        uses), by name; 0 where it is not given.

    Raises:
      UserError: an array has no name in PyTorch.
    """
    counts = batch_counts or {}
    state_dict: dict[str, np.ndarray] = {}
    problems = []
    for path, array in flatten(variables).items():
        name_and_row = _torch_name(path, architecture)
        if name_and_row is None:
            problems.append(f"{path} has no name in PyTorch's {architecture}")
            continue
        key, row = name_and_row
        state_dict[key] = np.ascontiguousarray(row.layout.to_torch(np.asarray(array)))
        if key.endswith("running_var"):
            count = key.replace("running_var", COUNT)
            state_dict[count] = np.array(counts.get(count, 0), np.int64)
    _refuse(problems, architecture)
    return state_dict


def check_whole(state_dict: Mapping[str, np.ndarray], architecture: str) -> Sizes:
    """The sizes of the network in a state dict under the names of `tables`, if it is whole.

    Raises:
      UserError: arrays are missing, too many, or of another shape; all in one message.
    """
    arrays = {key: array for key, array in state_dict.items() if not key.endswith(COUNT)}
    with_classifier = any(key.startswith("fc.") for key in arrays)
    sizes = sizes_of(architecture, arrays)
    wanted = torch_shapes(architecture, sizes, with_classifier=with_classifier)
    _refuse(_misfits(arrays, wanted), architecture)
    return sizes


def _misfits(
    arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Shape], named: Named | None = None
) -> list[str]:
    """What is too many, of another shape, or missing, under the source's names."""
    problems = []
    for key, array in arrays.items():
        shown = named.source_name(key) if named else key
        if key not in wanted:
            problems.append(f"{shown} has no place there")
        elif array.shape != wanted[key]:
            problems.append(f"{shown} has shape {array.shape}, expected {wanted[key]}")
    missing = (key for key in wanted if key not in arrays)
    return problems + [f"{named.source_name(key) if named else key} is missing" for key in missing]


def _bad_values(named: Named) -> list[str]:
    """What cannot be the value of a parameter."""
    problems = []
    for key, array in named.arrays.items():
        if array.dtype not in (np.float32, np.float64):
            problems.append(f"{named.source_name(key)} has type {array.dtype}, expected float32")
        elif not np.isfinite(array).all():
            problems.append(f"{named.source_name(key)} has values that are NaN or infinite")
    return problems


def _to_variables(arrays: Mapping[str, np.ndarray], architecture: str) -> dict[str, Any]:
    """Variables of a state dict that is known to fit."""
    leaves: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        for row in TABLES[architecture]:
            path = row.flax_path(key)
            if path is not None:
                leaves[path] = np.ascontiguousarray(row.layout.to_flax(array))
                break
    return nest(leaves)


def _torch_name(path: str, architecture: str) -> tuple[str, Row] | None:
    """PyTorch's name of an array and the row that gives it; None where there is none."""
    for row in TABLES[architecture]:
        key = row.torch_key(path)
        if key is not None:
            return key, row
    return None


def _refuse(problems: list[str], architecture: str) -> None:
    if not problems:
        return
    shown = "\n  ".join(problems[:MAX_PROBLEMS])
    more = len(problems) - MAX_PROBLEMS
    tail = f"\n  and {more} more" if more > 0 else ""
    raise UserError(f"the weights do not fit {architecture}:\n  {shown}{tail}")
