"""Stopping on Ctrl-C or SIGTERM at a place where nothing is lost."""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import jax

from lensjax.errors import Interrupted
from lensjax.training import processes

_STEPS_BETWEEN_LOOKS = 8  # a look at the other processes waits for the steps under way


class StopRequest:
    """Whether a signal has asked to stop.

    Args:
      devices: of all processes that train together, which stop together.

    Attributes:
      signal_number: the signal's number; None until there was one.
    """

    def __init__(self, devices: Sequence[jax.Device] = ()) -> None:
        self.signal_number: int | None = None
        self._at_once = False
        self._devices = devices
        self._agreed: int | None = None
        self._looked: int | None = None

    def requested(self, step: int) -> int | None:
        """The number of the signal that asks to stop before this step, the same in all processes.

        Args:
          step: the number of steps done in the epoch; all processes have to ask at the same ones.
        """
        if not processes.are_several(self._devices):
            return self.signal_number
        if self._looked is None or not 0 < step - self._looked < _STEPS_BETWEEN_LOOKS:
            self._looked = step
            noted = int(processes.largest(self.signal_number or 0, self._devices))
            self._agreed = self._agreed or noted or None
        return self._agreed

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a request to stop raises `Interrupted` where it comes, for work that is done again.

        Where several processes do the work together, none can leave it before its end.
        """
        if processes.are_several(self._devices):
            yield
            return
        self._at_once = True
        try:
            if self.signal_number is not None:
                raise Interrupted(self.signal_number)
            yield
        finally:
            self._at_once = False


@contextlib.contextmanager
def stop_requests(devices: Sequence[jax.Device] = ()) -> Iterator[StopRequest]:
    """Takes note of SIGINT and SIGTERM instead of dying of them; a second one acts as it always does.

    Args:
      devices: of all processes that train together.
    """
    request = StopRequest(devices)
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
