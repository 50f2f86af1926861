"""Stopping on Ctrl-C or SIGTERM at a place where nothing is lost."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from lensjax.errors import Interrupted


class StopRequest:
    """Whether a signal has asked to stop; `signal_number` is None until one has."""

    signal_number: int | None = None
    _at_once: bool = False

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a request to stop raises `Interrupted` where it comes, for work that is done again."""
        self._at_once = True
        try:
            if self.signal_number is not None:
                raise Interrupted(self.signal_number)
            yield
        finally:
            self._at_once = False


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Takes note of SIGINT and SIGTERM instead of dying of them; a second one acts as it always does."""
    request = StopRequest()
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal_number = number
        restore()
        if request._at_once:
            raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
