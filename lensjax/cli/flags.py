"""Command-line flags: definition, parsing and help, from one table."""

import dataclasses
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from lensjax.errors import UserError
from lensjax.runtime.paths import user_path
from lensjax.seeds import LARGEST_SEED

WIDTH = 80
_INDENT = 28
EXIT_CODES = "Exit codes: 0 success; 1 failure; 2 invalid command or file, explained by the message."


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
      value: placeholder for the value in the help; empty for a switch.
      help: description of the flag.
      modes: the commands that have the flag, if several share a table.
      define: function that defines the flag, such as `absl.flags.DEFINE_string`.
      default: value if the flag is not given.
      settings: additional arguments of `define`.
    """

    value: str
    help: str
    modes: tuple[str, ...] = ()
    define: Callable[..., Any] = flags.DEFINE_string
    default: Any = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def path_to(value: str, description: str, *modes: str) -> Flag:
    """Flag whose value is a path, in which `~` is the home folder."""
    return Flag(value, description, modes, _define_path)


def choice(value: str, description: str, choices: Sequence[str], default: str | None, *modes: str) -> Flag:
    """Flag whose value is one of `choices`."""
    return Flag(value, description, modes, flags.DEFINE_enum, default, {"enum_values": list(choices)})


def integer(
    description: str, default: int | None, low: int, *modes: str, value: str = "N", high: int | None = None
) -> Flag:
    """Flag whose value is an integer from `low` to `high`; no upper limit if `high` is None."""
    bounds = {"lower_bound": low, "upper_bound": high}
    return Flag(value, description, modes, flags.DEFINE_integer, default, bounds)


def random_seed(purpose: str, default: int = 0) -> Flag:
    """Flag whose value is a seed; `purpose` states what it determines, such as "of the simulation"."""
    return integer(f"Seed {purpose}; {default} if not given.", default, 0, high=LARGEST_SEED)


def real(
    description: str,
    default: float | None,
    low: float,
    *modes: str,
    value: str = "X",
    high: float | None = None,
) -> Flag:
    """Flag whose value is a finite number from `low` to `high`; no upper limit if `high` is None."""
    bounds = {"lower_bound": low, "upper_bound": high}
    return Flag(value, description, modes, _define_real, default, bounds)


def comma_list(description: str, default: Sequence[str] | None, *modes: str, value: str = "NAME,..") -> Flag:
    """Flag whose value is a comma-separated list."""
    return Flag(value, description, modes, flags.DEFINE_list, default)


def switch(description: str, *modes: str) -> Flag:
    """Flag without a value."""
    return Flag("", description, modes, flags.DEFINE_boolean, False)


class _PathParser(flags.ArgumentParser):
    """Parser of paths."""

    def parse(self, argument: str) -> Path:
        if not argument:
            raise ValueError("is empty; give it a value")
        return user_path(argument)


def _define_path(name: str, default: None, help: str, flag_values: flags.FlagValues) -> None:
    flags.DEFINE(_PathParser(), name, default, help, flag_values, flags.ArgumentSerializer())


class _FiniteParser(flags.FloatParser):
    """Parser of finite numbers. It rejects NaN, which would pass any check of bounds."""

    def convert(self, argument: int | float | str) -> float:
        value = super().convert(argument)
        if not math.isfinite(value):
            raise ValueError(f"{argument} is not a finite number")
        return value


def _define_real(
    name: str,
    default: float | None,
    help: str,
    flag_values: flags.FlagValues,
    lower_bound: float,
    upper_bound: float | None,
) -> None:
    parser = _FiniteParser(lower_bound, upper_bound)
    flags.DEFINE(parser, name, default, help, flag_values, flags.ArgumentSerializer())


def define_flags(table: Mapping[str, Flag], values: flags.FlagValues) -> None:
    """Defines the flags of a table.

    Args:
      table: the flags by name.
      values: absl's flag values, to which the flags are added.
    """
    for name, flag in table.items():
        flag.define(name, default=flag.default, help=flag.help, flag_values=values, **flag.settings)


def parse_flags(
    table: Mapping[str, Flag], arguments: Sequence[str], *, required: Sequence[str] = ()
) -> dict[str, Any]:
    """Parses the arguments of a command that accepts only flags.

    Args:
      table: the flags by name.
      arguments: the command-line arguments.
      required: names of the required flags.

    Returns:
      The value of each flag by name.

    Raises:
      UserError: if an argument is not a flag, a value is invalid, or a required flag is missing.
    """
    values = flags.FlagValues()
    define_flags(table, values)
    try:
        rest = values(["", *arguments])
    except flags.Error as error:
        raise UserError(f"{describe_flag_error(error)}; see --help") from error
    if rest[1:]:
        path = next((name for name, flag in table.items() if flag.define is _define_path), None)
        if path is not None and os.path.lexists(rest[1]):
            if values[path].value is None:
                raise UserError(f"{rest[1]!r} is not a flag; did you mean --{path}={rest[1]}? see --help")
            raise UserError(f"{rest[1]!r} is not a flag, and --{path} accepts only one path; see --help")
        raise UserError(f"{rest[1]!r} is not a flag; see --help")
    found = {name: values[name].value for name in table}
    if missing := [f"--{name}" for name in required if not found[name]]:
        raise UserError(f"{' and '.join(missing)} must be given; see --help")
    return found


def describe_flag_error(error: Exception) -> str:
    """Message of an error raised by absl, without the tuple that absl prints for an invalid switch."""
    text = re.sub(r"\('Non-boolean argument to boolean flag', .*\)$", "must be true or false", str(error))
    return text.removeprefix("flag ")


def usage(
    summary: str,
    examples: Sequence[str],
    table: Mapping[str, Flag],
    *notes: str | Mapping[str, str],
    codes: str = "",
) -> str:
    """Help text of a command.

    Args:
      summary: what the command does.
      examples: example commands.
      table: the flags by name.
      *notes: paragraphs after the flags, or lists of names and their descriptions.
      codes: a paragraph about exit codes; `EXIT_CODES` if empty.
    """
    lines = [*wrap(summary), "", *(f"  {example}" for example in examples)]
    lines += ["", "Flags:"] if table else []
    for name, flag in table.items():
        lines += entry(f"--{name} {flag.value}".rstrip(), flag.help)
    for note in (*notes, codes or EXIT_CODES):
        lines.append("")
        if isinstance(note, str):
            lines += wrap(note)
        else:
            for name, description in note.items():
                lines += entry(name, description)
    return "\n".join(lines) + "\n"


def entry(name: str, description: str) -> Iterator[str]:
    """Yields the lines of a name with its description beside it, or below it if the name is long."""
    lines = textwrap.wrap(description, WIDTH - _INDENT, break_on_hyphens=False)
    if len(name) > _INDENT - 4:
        yield f"  {name}"
    else:
        yield f"  {name:<{_INDENT - 2}}{lines.pop(0)}"
    yield from (" " * _INDENT + line for line in lines)


def wrap(text: str) -> list[str]:
    """Wraps a paragraph to lines of at most `WIDTH` columns."""
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)
