"""What every command has in common: flags read, help told, its end turned into an exit code."""

import sys
from collections.abc import Callable, Sequence

from absl import flags
from absl import logging as absl_logging

from lensjax.cli.console import terminal_output
from lensjax.errors import Interrupted, NonFiniteLossError, UserError
from lensjax.runtime.compilation_cache import keep_compiled_programs
from lensjax.runtime.host_memory import keep_freed_memory


def run(
    main: Callable[[Sequence[str]], int | None],
    usage: str | None,
    *,
    name: str,
    stopped: str = "stopped",
) -> int:
    """Runs a command on the words it was called with, and gives its exit code.

    What the user got wrong becomes one line on standard error and code 2; a failed run, one line and
    code 1; a run that was asked to stop, 128 and the signal's number, as shells count.

    Args:
      main: the command, a function of the words after its name; None is taken for 0.
      usage: what --help says.
      name: what the command's messages begin with.
      stopped: what is said after Ctrl-C.
    """
    arguments = sys.argv[1:]
    if {"--help", "-h", "-help", "--helpfull"} & set(arguments):
        sys.stdout.write(usage or "")
        return 0
    # Libraries below say much that is no concern of the reader; what lensjax says goes another way.
    absl_logging.set_verbosity(absl_logging.ERROR)
    keep_compiled_programs()
    keep_freed_memory()
    try:
        with terminal_output():
            return main(arguments) or 0
    except UserError as error:
        return _fail(name, str(error), 2)
    except NonFiniteLossError as error:
        return _fail(name, str(error), 1)
    except Interrupted as request:
        message = f"{request}; progress saved, rerun the same command to resume"
        return _fail(name, message, 128 + request.signal_number)
    except KeyboardInterrupt:
        return _fail(name, stopped, 130)


def read_flags(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Reads the words of a command that takes nothing but flags.

    Args:
      values: the flags that it has; filled in.
      arguments: the words after its name.

    Raises:
      UserError: a word is no flag, or a value is wrong.
    """
    try:
        rest = values(["", *arguments])
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from error
    if rest[1:]:
        raise UserError(f"{rest[1]!r} is not a flag; see --help")


def _fail(name: str, message: str, code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"{name}: {message}\n")
    return code
