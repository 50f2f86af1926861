"""What `--profile` asks for: a trace of a few steps, and where an epoch's time went."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from lensjax.runtime.progress import log
from lensjax.training import cost

TRACE = "profile"
_CALLS_BEFORE_TRACE = 2  # the first one compiles
_CALLS_IN_TRACE = 5


class Meter:
    """Times the compiled programs of a run, and traces some of its training steps.

    Each program is waited for, so that the time outside them is known; a run that is not measured does not
    wait.

    Args:
      config: the whole config of the run.
      workdir: the run's folder; the trace goes into `profile/` there.
      device: one of those that train.
      num_devices: how many there are.
    """

    def __init__(
        self, config: ConfigDict, workdir: Path, device: jax.Device, num_devices: int
    ) -> None:
        self._folder = workdir / TRACE
        self._device = device
        self._operations = cost.step_operations(config) / config.batch_size
        peak = cost.peak_operations(device, config.precision)
        self._peak = peak and peak * (1 if device.platform == "cpu" else num_devices)
        self._calls = 0
        self._training = 0.0
        self._evaluating = 0.0
        self._own = 0.0  # what the trace takes
        self._compiled = False

    def training(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function of training steps, timed and at times traced."""

        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            if self._calls == _CALLS_BEFORE_TRACE:
                options = jax.profiler.ProfileOptions()
                options.python_tracer_level = 0  # what Python calls drowns the rest
                jax.profiler.start_trace(
                    self._folder, create_perfetto_trace=True, profiler_options=options
                )
                self._own += time.perf_counter() - started
            started = time.perf_counter()
            with jax.profiler.StepTraceAnnotation("train", step_num=self._calls):
                result = jax.block_until_ready(function(*arguments))
            self._training += time.perf_counter() - started
            self._calls += 1
            if self._calls == _CALLS_BEFORE_TRACE + _CALLS_IN_TRACE:
                self.end()
            return result

        return run

    def evaluating(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function of evaluation steps, timed."""

        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = jax.block_until_ready(function(*arguments))
            self._evaluating += time.perf_counter() - started
            return result

        return run

    def end(self) -> None:
        """Writes the trace, if one is being taken."""
        if _CALLS_BEFORE_TRACE < self._calls <= _CALLS_BEFORE_TRACE + _CALLS_IN_TRACE:
            started = time.perf_counter()
            jax.profiler.stop_trace()
            self._own += time.perf_counter() - started
            self._calls = _CALLS_BEFORE_TRACE + _CALLS_IN_TRACE + 1
            log.info(
                "        %s/ has a trace of %d steps for ui.perfetto.dev, or for TensorBoard",
                self._folder,
                _CALLS_IN_TRACE,
            )

    def line(self, num_images: int, seconds: float) -> str:
        """Where the time of an epoch went, for the terminal; the next epoch begins.

        Args:
          num_images: images trained on.
          seconds: of the whole epoch, with its validation.
        """
        rate = num_images * self._operations / self._training
        share = "" if self._peak is None else f" ({100 * rate / self._peak:.2g} % of the peak)"
        inside = self._training + self._evaluating
        outside = 100 * (1 - inside / (seconds - self._own))
        compiled = "" if self._compiled else "; compiled in this epoch"
        self._training = self._evaluating = self._own = 0.0
        self._compiled = True
        return (
            f"        {rate / 1e9:.3g} GFLOP/s{share}, {self._peak_memory() / 1e9:.2f} GB at most, "
            f"{outside:.1f} % of the time outside steps{compiled}"
        )

    def _peak_memory(self) -> int:
        """The most memory that was in use, bytes: of the device, or on a CPU of the process."""
        peak = (self._device.memory_stats() or {}).get("peak_bytes_in_use")
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak or (resident if sys.platform == "darwin" else 1024 * resident)
