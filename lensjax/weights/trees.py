"""Nested dictionaries of variables, and the same with one path an array."""

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of nested dictionaries by their paths: `params/conv1/kernel`."""
    return dict(_leaves(tree, ""))


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries with leaves at those paths; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[name] = leaf
    return tree


def _leaves(tree: Mapping[str, Any], start: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{start}{name}/")
        else:
            yield start + name, value
