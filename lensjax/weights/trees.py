"""Conversion between nested dictionaries of variables and flat ones with paths as keys."""

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of nested dictionaries by path, such as `params/conv1/kernel`."""
    return dict(_leaves(tree, ""))


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries from leaves by path; the inverse of `flatten`.

    Raises:
      ValueError: if a path is both a leaf and the beginning of another path.
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
            if not isinstance(branch, dict):
                break
        if not isinstance(branch, dict) or name in branch:
            raise ValueError(f"{path} is part of two names")
        branch[name] = leaf
    return tree


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
