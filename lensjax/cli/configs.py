"""Loading of configs by file or by name."""

import runpy
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

import lensjax
from lensjax.config import check_fields, check_name, complete_config, flatten
from lensjax.errors import UserError
from lensjax.runtime.paths import user_path


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
      The config, with all fields.

    Raises:
      UserError: if there is no such file or variant, or if the file does not define a config whose fields
        have the names and types of the default config.
    """
    name, _, variant = argument.partition(":")
    file = _find(name)
    if file is None:
        raise UserError(
            f"--config {argument}: there is no such file; lensjax has the configs {', '.join(names())}"
        )
    try:
        defined = runpy.run_path(str(file))
        if not callable(defined.get("get_config")):
            raise UserError(
                f"--config {argument}: the file does not define get_config; add a function "
                "get_config(variant) that returns the config"
            )
        config = defined["get_config"](variant)
        fields = flatten(config.to_dict()) if isinstance(config, ConfigDict) else None
    except UserError:
        raise
    except SystemExit:
        raise UserError(f"--config {argument}: the file ends the program (sys.exit); remove this") from None
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config {argument}: {type(error).__name__}: {reason}") from error
    if fields is None:
        raise UserError(f"--config {argument}: get_config does not return a ConfigDict")
    try:
        check_fields(fields)
    except UserError as error:
        raise UserError(f"--config {argument}: {error}") from None
    return complete_config(fields)


def names() -> list[str]:
    """Names of lensjax's own configs."""
    return sorted(file.stem for file in folder().glob("*.py"))


def default_workdir(argument: str) -> Path:
    """Default folder of a run, such as `runs/pinn-quick` for `configs/pinn.py:quick`."""
    file, _, variant = argument.partition(":")
    return Path("runs") / (Path(file).stem + (f"-{variant}" if variant else ""))


def take_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Splits off the value of `--config`, or None if it is not given, from the other arguments."""
    named = None
    others = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--config", "-config"):
            named = value if equals else next(words, "")
        else:
            others.append(word)
    return named, others


def check_flags(words: Sequence[str]) -> None:
    """Checks that the field of each `--config.FIELD` exists.

    Args:
      words: the command-line arguments.

    Raises:
      UserError: if a field does not exist. The message suggests the most similar field.
    """
    for word in words:
        name = word.lstrip("-").partition("=")[0]
        if word.startswith("-") and name.startswith("config."):
            check_name(name.removeprefix("config."), "--config.")


def _find(name: str) -> Path | None:
    if user_path(name).is_file():
        return user_path(name)
    return folder() / f"{name}.py" if name in names() else None
