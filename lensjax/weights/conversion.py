"""Strict conversion between PyTorch state dicts and Flax variables."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lensjax.errors import UserError
from lensjax.weights.names import RenamedStateDict, rename
from lensjax.weights.shapes import Shape, Sizes, infer_sizes, torch_shapes
from lensjax.weights.tables import TABLES, ParameterMapping, check_architecture
from lensjax.weights.trees import flatten, unflatten

MAX_LINES = 10
BATCH_COUNT = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class ConvertedStateDict:
    """Flax variables converted from a PyTorch state dict.

    Attributes:
      variables: parameters and running statistics.
      sizes: sizes of the network, by the names of lensjax's config.
      source: architecture, naming scheme and unused arrays of the state dict; see `names.RenamedStateDict`.
    """

    variables: dict[str, Any]
    sizes: Sizes
    source: RenamedStateDict


def convert_state_dict(
    state_dict: Mapping[str, np.ndarray], architecture: str | None = None, *, prefix: str | None = None
) -> ConvertedStateDict:
    """Converts a published or reference PyTorch state dict to Flax variables.

    The names may follow any known naming scheme. The arrays keep the shapes of the source: three input
    channels for resnet18 and dino_vits16, and resnet18's classifier if the source has it. Nothing is adapted
    to a different network.

    Args:
      state_dict: arrays by PyTorch name, see `read_torch`.
      architecture: one of `tables.TABLES`; None to detect it from the names.
      prefix: module that contains the network, if the state dict contains several; see `names.rename`.

    Returns:
      The variables, the sizes of the network, and the description of the source.

    Raises:
      UserError: if the architecture is unknown, the network is ambiguous, or arrays are missing, unexpected,
        not finite, or of the wrong shape or type. One message lists up to 10 problems, or counts them.
    """
    source = rename(state_dict, architecture, prefix)
    sizes = infer_sizes(source.architecture, source.arrays)
    with_classifier = any(key.startswith("fc.") for key in source.arrays)
    expected = torch_shapes(source.architecture, sizes, with_classifier=with_classifier)
    problems = [
        *source.problems,
        *_shape_problems(source.arrays, expected, source),
        *_value_problems(source),
        *(
            f"{source.source_name(key)} belongs to no running statistics"
            for key in source.batch_counts
            if key.replace(BATCH_COUNT, "running_var") not in expected
        ),
    ]
    _raise_problems(problems, source.architecture)
    return ConvertedStateDict(_to_variables(source.arrays, source.architecture), dict(sizes), source)


def load_state_dict(
    state_dict: Mapping[str, np.ndarray], architecture: str, template: Mapping[str, Any]
) -> dict[str, Any]:
    """Converts a PyTorch state dict to the Flax variables of a given module, of any size.

    Like PyTorch's `load_state_dict(strict=True)`, but returns new variables. The names must be those of
    `tables`, without prefixes. `num_batches_tracked` is ignored.

    Args:
      state_dict: arrays by PyTorch name.
      architecture: one of `tables.TABLES`.
      template: variables of the module, or their shapes; only the paths and shapes are used.

    Returns:
      The variables, as nested dictionaries.

    Raises:
      UserError: if the architecture is unknown, or arrays are missing, unexpected, or of the wrong shape. One
        message lists up to 10 problems, or counts them.
    """
    check_architecture(architecture)
    problems: list[str] = []
    expected: dict[str, Shape] = {
        key: mapping.layout.to_torch(np.broadcast_to(np.float32(0), array.shape)).shape
        for key, mapping, array in _mapped(template, architecture, problems)
    }
    arrays = {key: array for key, array in state_dict.items() if not key.endswith(BATCH_COUNT)}
    _raise_problems([*problems, *_shape_problems(arrays, expected)], architecture)
    return _to_variables(arrays, architecture)


def to_state_dict(
    variables: Mapping[str, Any], architecture: str, *, batch_counts: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Converts Flax variables to a PyTorch state dict.

    Args:
      variables: parameters and running statistics.
      architecture: one of `tables.TABLES`.
      batch_counts: values of PyTorch's `num_batches_tracked` by name; 0 if not given.

    Returns:
      The arrays by PyTorch name.

    Raises:
      UserError: if the architecture is unknown, or a variable has no equivalent in PyTorch.
    """
    check_architecture(architecture)
    counts = batch_counts or {}
    state_dict: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for key, mapping, array in _mapped(variables, architecture, problems):
        state_dict[key] = np.ascontiguousarray(mapping.layout.to_torch(np.asarray(array)))
        if key.endswith("running_var"):
            count = key.replace("running_var", BATCH_COUNT)
            state_dict[count] = np.array(counts.get(count, 0), np.int64)
    _raise_problems(problems, architecture)
    return state_dict


def check_complete(state_dict: Mapping[str, np.ndarray], architecture: str) -> Sizes:
    """Checks that a state dict with the names of `tables` is complete.

    Returns:
      The sizes of the network.

    Raises:
      UserError: if the architecture is unknown, or arrays are missing, unexpected, or of the wrong shape. One
        message lists up to 10 problems, or counts them.
    """
    check_architecture(architecture)
    arrays = {key: array for key, array in state_dict.items() if not key.endswith(BATCH_COUNT)}
    with_classifier = any(key.startswith("fc.") for key in arrays)
    sizes = infer_sizes(architecture, arrays)
    expected = torch_shapes(architecture, sizes, with_classifier=with_classifier)
    _raise_problems(_shape_problems(arrays, expected), architecture)
    return sizes


def _shape_problems(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, Shape], source: RenamedStateDict | None = None
) -> list[str]:
    """Arrays that are unexpected, of the wrong shape, or missing, by their names in the source."""
    problems = []
    for key, array in arrays.items():
        name = source.source_name(key) if source else key
        if key not in expected:
            problems.append(f"{name} is unexpected")
        elif array.shape != expected[key]:
            problems.append(f"{name} has shape {array.shape}, expected {expected[key]}")
    missing = (key for key in expected if key not in arrays)
    return problems + [f"{source.source_name(key) if source else key} is missing" for key in missing]


def _value_problems(source: RenamedStateDict) -> list[str]:
    """Arrays of the wrong type or with values that are not finite."""
    problems = []
    for key, array in source.arrays.items():
        if array.dtype not in (np.float32, np.float64):
            problems.append(f"{source.source_name(key)} has type {array.dtype}, expected float32")
        elif not np.isfinite(array).all():
            problems.append(f"{source.source_name(key)} contains NaN or infinite values")
    return problems


def _to_variables(arrays: Mapping[str, np.ndarray], architecture: str) -> dict[str, Any]:
    """Converts a state dict that has been checked."""
    leaves: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        for mapping in TABLES[architecture]:
            path = mapping.flax_path(key)
            if path is not None:
                leaves[path] = np.ascontiguousarray(mapping.layout.to_flax(array))
                break
    return unflatten(leaves)


def _mapped(
    variables: Mapping[str, Any], architecture: str, problems: list[str]
) -> Iterator[tuple[str, ParameterMapping, Any]]:
    """Yields key, mapping and array of each variable; appends variables without a key to `problems`."""
    for path, array in flatten(variables).items():
        found = _find_mapping(path, architecture)
        if found is None:
            problems.append(f"{path} has no equivalent in PyTorch's {architecture}")
        else:
            yield *found, array


def _find_mapping(path: str, architecture: str) -> tuple[str, ParameterMapping] | None:
    """PyTorch's key for a Flax path, and the mapping that relates them; None if there is none."""
    for mapping in TABLES[architecture]:
        key = mapping.torch_key(path)
        if key is not None:
            return key, mapping
    return None


def _raise_problems(problems: list[str], architecture: str) -> None:
    if not problems:
        return
    if len(problems) <= MAX_LINES:
        raise UserError("\n  ".join([f"the weights do not match {architecture}:", *problems]))
    missing = [problem for problem in problems if problem.endswith(" is missing")]
    others = [problem for problem in problems if problem not in missing]
    hint = "" if others else "; it may be one part of a sharded checkpoint"
    shown = "; ".join([*others[:2], *missing[:1]])
    raise UserError(
        f"the weights do not match {architecture}: {len(missing)} arrays are missing and {len(others)} are "
        f"unexpected or of the wrong shape or type ({shown}; ...){hint}"
    )
