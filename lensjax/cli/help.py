"""Help texts, generated from the tables of commands, flags and config fields."""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from lensjax.cli.configs import names
from lensjax.cli.flags import entry, wrap
from lensjax.cli.options import FLAGS, MODES, MOVABLE, SOURCE, take_mode
from lensjax.config import FIELDS

COMMANDS = {
    "convert-weights": "convert weights between PyTorch files and lensjax files",
    "export": "export a run to StableHLO, ONNX, safetensors or PyTorch",
    "fit": "fit lens models to telescope images",
    "import": "convert DeepLenseSim's files to a data set with splits",
    "prepare-tfds": "prepare a TFDS data set from an archive of images",
    "simulate": "write simulated images to files",
    "substructure": "search for a dark perturber in telescope images",
    "verify": "check runs, model files and the cache for damage",
}
# Modules whose names are not those of the commands; a module cannot be named import.
_MODULES = {"fit": "fit_lenses", "import": "import_deeplensesim", "substructure": "find_substructure"}
_EXAMPLES = {
    "train": ("--config lens_fit:quick", "--config configs/pinn.py --config.batch_size=64"),
    "evaluate": ("--workdir runs/lens_fit-quick",),
    "predict": ("--model common_test IMAGES", "--workdir runs/lens_fit-quick --input IMAGES"),
    "compare": ("--workdir runs/baseline,runs/pinn",),
}
_CODES = (
    "Exit codes: 0 success; 1 failure, or some images could not be classified; 2 invalid command, config or "
    "file, explained by the message."
)


def command_module(name: str) -> ModuleType:
    """Imports the module of one of `COMMANDS`, with its `main`, `USAGE` and `FLAGS`.

    `main` takes the command-line arguments and returns the exit code, or None for 0. It raises a `UserError`
    if the command or a file is invalid, and `Interrupted` if Ctrl-C stopped it and its progress was saved.
    """
    return importlib.import_module(f"lensjax.cli.{_MODULES.get(name, name.replace('-', '_'))}")


def help_text(arguments: Sequence[str]) -> str:
    """Help text of the command that the arguments name, or an overview if they name none."""
    words = [word.partition("=")[2] if word.startswith("--mode=") else word for word in arguments]
    mode, _ = take_mode([word for word in words if word in MODES])
    return _command_help(mode) if mode else _overview()


def _overview() -> str:
    lines = ["lensjax: dark-matter substructure in images of strong gravitational lenses.", ""]
    for mode, examples in _EXAMPLES.items():
        lines += [f"  lensjax {mode} {example}" for example in examples[:1]]
    lines += ["", "Commands; lensjax COMMAND --help describes the flags of each:"]
    for name, description in (MODES | COMMANDS).items():
        lines += entry(name, description)
    lines += [
        "",
        *wrap("In a checkout, python -m lensjax.main COMMAND is equivalent to lensjax COMMAND."),
        "",
        *wrap(_CODES),
    ]
    return "\n".join(lines) + "\n"


def _command_help(mode: str) -> str:
    lines = [f"lensjax {mode}: {MODES[mode]}.", ""]
    lines += [f"  lensjax {mode} {example}" for example in _EXAMPLES[mode]]
    lines += ["", "Flags:"]
    if mode == "train":
        lines += entry(
            "--config FILE[:VARIANT]",
            f"Config: a Python file, or one of {', '.join(names())}; optionally a variant, such as quick.",
        )
        lines += entry("--config.FIELD=VALUE", "Override the value of a field; see below.")
    if mode in MOVABLE:
        lines += entry(f"--{SOURCE} SOURCE", "New location of the images, if the data set has moved.")
    for name, flag in FLAGS.items():
        if mode in flag.modes:
            lines += entry(f"--{name} {flag.value}".rstrip(), flag.help)
    if mode == "train":
        lines += ["", "Fields of a config, with their defaults (--config.FIELD=VALUE):"]
        for name, field in FIELDS.items():
            allowed = "" if field.choices and _mentions_all(field) else _brackets(field.allowed)
            lines += entry(f"{name}={_written(field.default)}", field.help + allowed)
    return "\n".join([*lines, "", *wrap(_CODES)]) + "\n"


def fields_page() -> str:
    """Text of the page docs/config.md."""
    rows = [
        f"| `{name}` | {_code(_written(field.default))} | {_cell(field.allowed)} | {_cell(field.help)} |"
        for name, field in FIELDS.items()
    ]
    return (
        "# Config fields\n\n"
        "Every field can be set on the command line, as in `--config.optimizer.learning_rate=3e-4`, or in a "
        "config file.\nThis page is generated from the table in `lensjax/config.py` by `python "
        "docs/site/config_page.py`.\n\n"
        "| field | default | allowed | description |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _mentions_all(field: Any) -> bool:
    return all(choice in field.help for choice in field.choices)


def _brackets(allowed: str) -> str:
    return f" [{allowed}]" if allowed else ""


def _written(value: Any) -> str:
    """A value as written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
