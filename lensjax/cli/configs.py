"""Loading of configs by file or by name."""

import difflib
import runpy
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

import lensjax
from lensjax.config import flatten
from lensjax.errors import UserError


def folder() -> Path:
    """Folder of lensjax's own configs: in the package if it is installed, else in the checkout."""
    package = Path(lensjax.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def load_config(argument: str) -> ConfigDict:
    """Loads a config, given as `FILE[:VARIANT]` or `NAME[:VARIANT]`.

    Args:
      argument: a Python file, or the name of one of lensjax's own configs; optionally with a variant.

    Returns:
      The config, locked.

    Raises:
      UserError: if there is no such file or variant, or if the file does not define a config.
    """
    name, _, variant = argument.partition(":")
    file = _find(name)
    if file is None:
        raise UserError(
            f"--config {argument}: there is no such file; lensjax has the configs {', '.join(names())}"
        )
    try:
        config = runpy.run_path(str(file))["get_config"](variant)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--config {argument}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config {argument}: get_config does not return a ConfigDict")
    return config.lock()


def names() -> list[str]:
    """Names of lensjax's own configs."""
    return sorted(file.stem for file in folder().glob("*.py"))


def default_workdir(argument: str) -> Path:
    """Default folder of a run, such as `runs/pinn-quick` for `configs/pinn.py:quick`."""
    file, _, variant = argument.partition(":")
    return Path("runs") / (Path(file).stem + (f"-{variant}" if variant else ""))


def check_fields(config: ConfigDict, words: Sequence[str]) -> None:
    """Checks that the config has the field of each `--config.FIELD`.

    Args:
      config: the config.
      words: the command-line arguments.

    Raises:
      UserError: if a field does not exist. The message suggests the most similar field.
    """
    known = [f"config.{name}" for name in flatten(config.to_dict())]
    for word in words:
        name = word.lstrip("-").partition("=")[0]
        if word.startswith("-") and name.startswith("config.") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean --{near[0]}?" if near else "lensjax train --help lists all fields"
            raise UserError(f"--{name}: the config has no such field; {hint}")


def _find(name: str) -> Path | None:
    if Path(name).is_file():
        return Path(name)
    return folder() / f"{name}.py" if name in names() else None
