"""Log messages in the terminal."""

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from lensjax.runtime.progress import log


def hide_repeated_errors() -> None:
    """Hides errors that threads of Orbax and TensorStore report a second time, with tracebacks."""
    usual, usual_in_threads = sys.unraisablehook, threading.excepthook

    def show(unraisable: Any) -> None:
        # Raised by a read that is still in progress when a damaged file is reported.
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    def show_in_threads(arguments: Any) -> None:
        if not type(arguments.thread).__module__.startswith("orbax."):
            usual_in_threads(arguments)

    sys.unraisablehook, threading.excepthook = show, show_in_threads


@contextlib.contextmanager
def terminal_output() -> Iterator[None]:
    """Context in which lensjax's log messages are written to standard output, without prefixes.

    Characters that the terminal's encoding lacks, and undecodable bytes of file names, are escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        with logging_redirect_tqdm(loggers=[log]):
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
