"""Imports the programs in tools/studies."""

import importlib
import pathlib
import sys
import types

STUDIES = pathlib.Path(__file__).parents[2] / "tools" / "studies"


def load_study(name: str) -> types.ModuleType:
    """Imports a program in tools/studies, which may import other programs there."""
    sys.path.insert(0, str(STUDIES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(STUDIES))
