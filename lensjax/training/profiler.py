"""Profiling of a run (`--profile`): a trace of a few steps, and a summary of each epoch's time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from lensjax.runtime import host_memory
from lensjax.runtime.progress import log
from lensjax.training import cost

TRACE = "profile"
_CALLS_BEFORE_TRACE = 2  # the first one compiles
_CALLS_IN_TRACE = 5


class Profiler:
    """Times the compiled programs of a run, and traces some of its training steps.

    It waits for each program to finish, to measure the time outside programs. Runs without a profiler do not
    wait.

    Args:
      config: the full config of the run.
      workdir: the run's folder; the trace is written to its subfolder `profile/`.
      device: one of the devices that train.
      num_devices: number of devices that train.
    """

    def __init__(self, config: ConfigDict, workdir: Path, device: jax.Device, num_devices: int) -> None:
        self._folder = workdir / TRACE
        self._device = device
        self._flops_per_image = cost.step_flops(config) / config.batch_size
        peak = cost.peak_flops(device, config.precision)
        self._peak = peak and peak * (1 if device.platform == "cpu" else num_devices)
        self._calls = 0
        self._training_seconds = 0.0
        self._evaluation_seconds = 0.0
        self._trace_seconds = 0.0  # time to start the trace and to write it
        self._compiled = False

    def time_training(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a training step; the wrapped step is timed, and some of its calls are traced."""

        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            if self._calls == _CALLS_BEFORE_TRACE:
                options = jax.profiler.ProfileOptions()
                options.python_tracer_level = 0  # Python calls would fill the trace
                jax.profiler.start_trace(self._folder, create_perfetto_trace=True, profiler_options=options)
                self._trace_seconds += time.perf_counter() - started
            started = time.perf_counter()
            with jax.profiler.StepTraceAnnotation("train", step_num=self._calls):
                result = jax.block_until_ready(function(*arguments))
            self._training_seconds += time.perf_counter() - started
            self._calls += 1
            if self._calls == _CALLS_BEFORE_TRACE + _CALLS_IN_TRACE:
                self.stop_trace()
            return result

        return run

    def time_evaluation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps an evaluation step; the wrapped step is timed."""

        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = jax.block_until_ready(function(*arguments))
            self._evaluation_seconds += time.perf_counter() - started
            return result

        return run

    def stop_trace(self) -> None:
        """Ends and writes the trace if one is in progress."""
        if _CALLS_BEFORE_TRACE < self._calls <= _CALLS_BEFORE_TRACE + _CALLS_IN_TRACE:
            started, number = time.perf_counter(), self._calls - _CALLS_BEFORE_TRACE
            jax.profiler.stop_trace()
            self._trace_seconds += time.perf_counter() - started
            self._calls = _CALLS_BEFORE_TRACE + _CALLS_IN_TRACE + 1
            log.info(
                "        wrote a trace of %d %s for ui.perfetto.dev or TensorBoard to %s/",
                number,
                "step" if number == 1 else "steps",
                self._folder,
            )

    def summarize_epoch(self, num_images: int, seconds: float) -> str:
        """Summarizes speed, memory and time of an epoch in one line for the terminal; resets the timers.

        Args:
          num_images: number of images in the timed training steps; 0 for a resumed epoch that needed only
            its validation.
          seconds: time since the start of the first of these steps, including the validation.
        """
        if num_images:
            rate = num_images * self._flops_per_image / self._training_seconds
            share = "" if self._peak is None else f" ({100 * rate / self._peak:.2g} % of the peak)"
            speed = f"{rate / 1e9:.3g} GFLOP/s{share}"
        else:
            speed = "no training steps"
        inside = self._training_seconds + self._evaluation_seconds
        outside = 100 * (1 - inside / (seconds - self._trace_seconds))
        compiled = "" if self._compiled else "; includes compilation"
        self._training_seconds = self._evaluation_seconds = self._trace_seconds = 0.0
        self._compiled |= num_images > 0
        return (
            f"        {speed}, {self._peak_memory() / 1e9:.2f} GB peak memory, "
            f"{outside:.1f} % of the time outside steps{compiled}"
        )

    def _peak_memory(self) -> int:
        """Peak memory of the device, or of the process on a CPU, bytes."""
        peak = (self._device.memory_stats() or {}).get("peak_bytes_in_use")
        return peak or host_memory.peak_memory()
