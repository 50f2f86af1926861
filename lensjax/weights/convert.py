"""Strict conversion between PyTorch state dicts and Flax variables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from lensjax.errors import UserError
from lensjax.weights.tables import TABLES

MAX_PROBLEMS = 10


def from_torch(
    state_dict: Mapping[str, np.ndarray], architecture: str, like: Mapping[str, Any]
) -> dict[str, Any]:
    """Flax variables with the values of a PyTorch state dict.

    Every key has to have its place and every place its key. PyTorch's counts of batches
    (`num_batches_tracked`), which nothing uses, are passed over.

    Args:
      state_dict: arrays by PyTorch's names.
      architecture: one of `tables.TABLES`.
      like: variables of the module to fill, or their shapes; gives the expected shapes.

    Raises:
      UserError: keys without a place, places without a key, or other shapes; all in one message.
    """
    wanted = traverse_util.flatten_dict(dict(like), sep="/")
    found: dict[str, np.ndarray] = {}
    problems = []
    for key, array in state_dict.items():
        if key.endswith("num_batches_tracked"):
            continue
        for row in TABLES[architecture]:
            path = row.flax_path(key)
            if path is not None and path in wanted:
                if array.ndim != wanted[path].ndim:
                    problems.append(
                        f"{key} has shape {array.shape}, {path} needs {wanted[path].shape}"
                    )
                    found[path] = array
                    break
                converted = row.layout.to_flax(array)
                if converted.shape != wanted[path].shape:
                    problems.append(
                        f"{key} has shape {array.shape}, expected "
                        f"{row.layout.to_torch(np.empty(wanted[path].shape)).shape}"
                    )
                found[path] = np.ascontiguousarray(converted)
                break
        else:
            problems.append(f"{key} has no place in {architecture}")
    problems += [f"nothing fills {path}" for path in wanted if path not in found]
    _refuse(problems, architecture)
    return traverse_util.unflatten_dict(found, sep="/")


def to_torch(variables: Mapping[str, Any], architecture: str) -> dict[str, np.ndarray]:
    """The PyTorch state dict with the values of Flax variables.

    The counts of batches that PyTorch keeps beside running statistics (`num_batches_tracked`) are 0.

    Args:
      variables: parameters and running statistics.
      architecture: one of `tables.TABLES`.

    Raises:
      UserError: an array has no name in PyTorch.
    """
    state_dict: dict[str, np.ndarray] = {}
    problems = []
    for path, array in traverse_util.flatten_dict(dict(variables), sep="/").items():
        for row in TABLES[architecture]:
            key = row.torch_key(path)
            if key is not None:
                state_dict[key] = np.ascontiguousarray(row.layout.to_torch(np.asarray(array)))
                if key.endswith("running_var"):
                    count = key.replace("running_var", "num_batches_tracked")
                    state_dict[count] = np.zeros((), np.int64)
                break
        else:
            problems.append(f"{path} has no name in PyTorch's {architecture}")
    _refuse(problems, architecture)
    return state_dict


def _refuse(problems: list[str], architecture: str) -> None:
    if not problems:
        return
    shown = "\n  ".join(problems[:MAX_PROBLEMS])
    more = len(problems) - MAX_PROBLEMS
    tail = f"\n  and {more} more" if more > 0 else ""
    raise UserError(f"the weights do not fit {architecture}:\n  {shown}{tail}")
