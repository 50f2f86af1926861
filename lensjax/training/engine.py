"""How the steps of an epoch are run: one by one from the host, or many in one loop on the device.

On accelerators the images stay in the device's memory if they fit, and one compiled loop gathers,
augments and trains over many steps. XLA's loops on a CPU run convolutions three to six times slower than
the same step by itself (tools/benchmark_training.py --loop). There, and if the images do not fit, the
host starts each step, with the next batch already on the device. The batches are the same either way.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from lensjax import host_memory
from lensjax.data.batches import gather
from lensjax.data.epochs import epoch_batches, epoch_rows
from lensjax.data.fresh import FreshImages
from lensjax.data.images import ImageSet
from lensjax.data.splits import TrainingImages
from lensjax.training import processes
from lensjax.training.meter import Meter
from lensjax.training.parallel import divide, parallelize, prefetch, replicate
from lensjax.training.state import TrainState
from lensjax.training.step import StepFunction, train_loop

_SECONDS_AT_ONCE = 2.0  # the longest that a signal, the progress bar or a NaN loss waits
_FIRST_STEPS = 8  # in the first loop of an epoch, when their duration is unknown


@dataclasses.dataclass(frozen=True)
class StepResult:
    """How the newest steps went.

    Attributes:
      epoch: number of the epoch, from 0.
      done: steps of the epoch that are done.
      loss: of the last step, or of the first one whose loss is not finite; of each run.
      number: that step's number in the epoch, from 1.
    """

    epoch: int
    done: int
    loss: Float[Array, "*runs"]
    number: Int[Array, "*runs"] | int


class Engine(Protocol):
    """A function that runs the steps of an epoch."""

    def __call__(
        self, state: TrainState, epoch: int, done: int, /
    ) -> Iterator[tuple[TrainState, StepResult]]:
        """Yields the state after one or more steps, from the step `done` on; the state is donated."""


def build(
    step: StepFunction,
    images: TrainingImages,
    key: Key[Array, "*runs"],
    config: ConfigDict,
    devices: Sequence[jax.Device],
    *,
    seeds: Sequence[int],
    meter: Meter | None = None,
) -> Engine:
    """The engine for a set of images and devices.

    Args:
      step: the training step of one run on one device.
      images: the training images.
      key: of the steps, on the devices.
      config: the whole config.
      devices: the devices to train on.
      seeds: of the runs that are trained side by side; if there are several, state and key have a leading
        axis over them.
      meter: optional profiler.
    """
    measure = (lambda function: function) if meter is None else meter.training
    several = len(seeds) > 1
    if isinstance(images, ImageSet) and is_resident(images, config, devices):
        loop: Callable[..., Any] = functools.partial(train_loop, step=step)
        if several:
            loop = jax.vmap(loop, in_axes=(0, None, -1, -1, None, None, 0))
        in_axes = (None, None, 1, 1, None, None, None)
        loop = measure(parallelize(loop, devices, in_axes=in_axes, donate_argnums=[0]))
        data = replicate(_arrays(images), devices)
        rows = functools.partial(epoch_rows, len(images), config.batch_size, seeds)
        return functools.partial(_run_on_device, loop, data, rows, key, devices)
    if several:
        # Simulated images follow from config.data.seed, so all runs see the same batches.
        step = jax.vmap(step, in_axes=(0, None if isinstance(images, FreshImages) else 1, 0))
    mapped = measure(parallelize(step, devices, in_axes=(None, 0, None), donate_argnums=[0]))
    share = processes.own_rows(config.batch_size, devices)
    batches = functools.partial(epoch_batches, images, config.batch_size, seeds, share=share)
    return functools.partial(_run_from_host, mapped, batches, key, devices, host_memory.watch())


def is_resident(images: ImageSet, config: ConfigDict, devices: Sequence[jax.Device]) -> bool:
    """Whether the training images are copied to the devices, as `config.data.residence` asks."""
    if config.data.residence != "auto":
        return config.data.residence == "device"
    if devices[0].platform == "cpu":
        return False
    memory = (devices[0].memory_stats() or {}).get("bytes_limit", math.inf)
    size = sum(values.nbytes for values in _arrays(images).values())
    return size <= config.data.device_share * memory


def _run_from_host(
    step: StepFunction,
    batches: Callable[..., Iterator[Mapping[str, Any]]],
    key: Array,
    devices: Sequence[jax.Device],
    look_at_memory: Callable[[], None],
    state: TrainState,
    epoch: int,
    done: int,
) -> Iterator[tuple[TrainState, StepResult]]:
    # CPUs would only share their cores between a step and the next batch.
    ahead = prefetch(batches(epoch, start=done), devices, 1 if devices[0].platform == "cpu" else 2)
    for number, batch in enumerate(ahead, done + 1):
        state, metrics = step(state, batch, key)
        look_at_memory()
        yield state, StepResult(epoch, number, metrics["loss"], number)


def _run_on_device(
    loop: Callable[..., Any],
    data: Mapping[str, Array],
    rows_of: Callable[[int], tuple[np.ndarray, np.ndarray]],
    key: Array,
    devices: Sequence[jax.Device],
    state: TrainState,
    epoch: int,
    done: int,
) -> Iterator[tuple[TrainState, StepResult]]:
    rows, weights = rows_of(epoch)
    mine = processes.own_rows(rows.shape[1], devices)
    rows, weights = (divide(part[:, mine], devices, axis=1) for part in (rows, weights))
    at_once = _FIRST_STEPS
    while done < len(rows):
        stop = min(done + at_once, len(rows))
        started = time.perf_counter()
        steps = np.int32(done), np.int32(stop)
        state, loss, number = jax.block_until_ready(loop(state, data, rows, weights, *steps, key))
        # The same in all processes; it affects only how often the host regains control.
        seconds = processes.largest(time.perf_counter() - started, devices) / (stop - done)
        at_once = max(1, min(2 * at_once, int(_SECONDS_AT_ONCE / seconds)))
        done = stop
        yield state, StepResult(epoch, done, loss, number)


def _arrays(images: ImageSet) -> dict[str, np.ndarray]:
    """The arrays of a batch except its weights, for all images."""
    batch: dict[str, Any] = {**gather(images, slice(None), np.ones(len(images), np.float32))}
    del batch["weights"]
    return batch
