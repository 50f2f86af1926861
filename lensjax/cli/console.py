"""Log messages in the terminal."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from lensjax.runtime.progress import log


def hide_closed_loops() -> None:
    """Hides tracebacks of TensorStore's threads, whose reads can end after the error of a damaged file."""
    usual = sys.unraisablehook

    def show(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    sys.unraisablehook = show


@contextlib.contextmanager
def terminal_output() -> Iterator[None]:
    """Context in which lensjax's log messages are written to standard output, without prefixes."""
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
