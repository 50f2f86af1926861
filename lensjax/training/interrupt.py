"""Clean stops on SIGINT (Ctrl-C) and SIGTERM, with all progress saved."""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import jax

from lensjax.errors import Interrupted
from lensjax.training import processes

# Polling the other processes waits for the steps in flight.
_STEPS_BETWEEN_POLLS = 8


class StopRequest:
    """Records a signal to stop the run.

    Args:
      devices: devices of all processes of the run; they stop together.

    Attributes:
      signal_number: number of the received signal; None if there was none.
    """

    def __init__(self, devices: Sequence[jax.Device] = ()) -> None:
        self.signal_number: int | None = None
        self._immediate = False
        self._devices = devices
        self._agreed: int | None = None
        self._polled: int | None = None

    def poll(self, step: int) -> int | None:
        """Returns the number of a signal that any process received; None if there was none.

        All processes get the same value, and must call this method at the same steps.

        Args:
          step: number of completed steps of the epoch.
        """
        if not processes.is_multiprocess(self._devices):
            return self.signal_number
        if self._polled is None or not 0 < step - self._polled < _STEPS_BETWEEN_POLLS:
            self._polled = step
            received = int(processes.max_over_processes(self.signal_number or 0, self._devices))
            self._agreed = self._agreed or received or None
        return self._agreed

    @contextlib.contextmanager
    def raise_immediately(self) -> Iterator[None]:
        """Context in which a signal raises `Interrupted` at once, for work that can be repeated.

        With several processes it has no effect, because no process can leave the shared work early.
        """
        if processes.is_multiprocess(self._devices):
            yield
            return
        self._immediate = True
        try:
            if self.signal_number is not None:
                raise Interrupted(self.signal_number)
            yield
        finally:
            self._immediate = False


@contextlib.contextmanager
def catch_stop_signals(devices: Sequence[jax.Device] = ()) -> Iterator[StopRequest]:
    """Context that records the first SIGINT or SIGTERM; a second one has its usual effect.

    Args:
      devices: devices of all processes of the run.
    """
    request = StopRequest(devices)
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def record(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal_number = number
        restore()
        if request._immediate:
            raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, record)
    try:
        yield request
    finally:
        restore()
