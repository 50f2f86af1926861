"""How a command can end before its work is done, each said in one line."""

import signal


class UserError(ValueError):
    """A mistake in what the user gave: a path, a file, a flag, a config field.

    The message says what was found, where, and what to do. The command line prints it alone, without
    a traceback, and exits with code 2.
    """


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; the message says where."""


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """Training was asked to stop, and saved before it did.

    Attributes:
      signal_number: which signal asked.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
