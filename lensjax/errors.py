"""Exceptions that end a command with a message instead of a traceback."""

import contextlib
import os
import signal
from collections.abc import Iterator


class UserError(ValueError):
    """Invalid input from the user: a path, a file, a flag or a config field.

    The message states what was found, where, and what to do. The command line prints only the message,
    without a traceback, and exits with code 2.
    """


class NonFiniteLossError(ArithmeticError):
    """The training loss became NaN or infinite. The message states where."""


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds a path to an `OSError` without one; the error for a full disk, for example, has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


class Interrupted(Exception):  # noqa: N818 (not an error)
    """A signal stopped the work after progress was saved.

    Attributes:
      signal_number: number of the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
