"""Runs any command: prints its help, and turns errors into exit codes."""

import errno
import os
import sys
from collections.abc import Callable, Sequence

import jax
from absl import logging as absl_logging

from lensjax.cli.console import hide_repeated_errors, terminal_output
from lensjax.errors import Interrupted, NonFiniteLossError, UserError
from lensjax.runtime.compilation_cache import enable_compilation_cache
from lensjax.runtime.host_memory import keep_freed_memory


def run(
    main: Callable[[Sequence[str]], int | None],
    usage: str | None,
    *,
    name: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs a command and returns its exit code.

    Errors are reported on standard error, in one line unless a `UserError` lists several problems. The exit
    code is 2 for a `UserError`; 1 for an error of the system, such as a full disk, for insufficient memory
    and for a loss that is not finite; and 128 plus the number of the signal if a signal stopped the run, as
    in shells.

    Args:
      main: the command, a function of its command-line arguments; the result None means exit code 0.
      usage: help text of the command.
      name: prefix of error messages.
      arguments: the command-line arguments; `sys.argv[1:]` if None.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if {"--help", "-h", "-help", "--helpfull"} & set(arguments):
        sys.stdout.write(usage or "")
        return 0
    # Silence absl's logging; lensjax has its own logger, and Orbax's errors are reported in one line.
    absl_logging.set_verbosity(absl_logging.FATAL)
    keep_freed_memory()
    hide_repeated_errors()
    try:
        with terminal_output():
            enable_compilation_cache()
            return main(arguments) or 0
    except UserError as error:
        return _fail(name, str(error), 2)
    except NonFiniteLossError as error:
        return _fail(name, str(error), 1)
    except Interrupted as request:
        message = f"{request}; progress saved, rerun the same command to resume"
        return _fail(name, message, 128 + request.signal_number)
    except KeyboardInterrupt:
        return _fail(name, "stopped", 130)
    except BrokenPipeError:  # for example from `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        advice = "; free disk space and rerun the same command" if error.errno == errno.ENOSPC else ""
        return _fail(name, f"{place}{error.strerror or error}{advice}", 1)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        advice = "smaller config.batch_size and config.eval_batch_size in lensjax train, or smaller images"
        return _fail(name, f"out of memory; use a machine with more memory, {advice}", 1)


def _fail(name: str, message: str, code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"{name}: {message}\n")
    return code
