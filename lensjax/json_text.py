"""JSON text of results. JSON has no NaN and no infinity, which `json.dumps` would write nevertheless."""

import json
import math
from typing import Any


def encode_json(content: Any, *, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """Encodes a value as JSON; numbers that are not finite become null, at any depth.

    Args:
      content: dictionaries, lists, tuples, text, numbers, booleans and None.
      indent: spaces per level; None for one line.
      ensure_ascii: whether non-ASCII characters are escaped.
    """
    return json.dumps(_finite(content), indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)


def _finite(content: Any) -> Any:
    """The content, with None in place of numbers that are not finite."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
