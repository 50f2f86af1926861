"""Paths that users give."""

import os
from pathlib import Path


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path in which `~` and `~USER` are replaced by the home folder, unless the user is unknown."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 (Path.expanduser raises an error for unknown users)
