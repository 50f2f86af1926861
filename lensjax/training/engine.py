"""How the steps of an epoch are run: one by one on the host's images, or many at once on the device's.

On accelerators the images live on each device where they fit, and one compiled loop gathers, augments and
trains over many steps, so that the host has next to nothing to do. XLA's loops on a CPU run convolutions
three to six times slower than the same step by itself (tools/benchmark_training.py --loop);
there, and where the images do not fit, each step is started from the host, which makes the next batch ready
meanwhile, or has it read from disk. All see the same batches.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from lensjax import host_memory
from lensjax.data.batches import epoch_order, gathered, rows_of_batches
from lensjax.data.fresh import FreshImages
from lensjax.data.images import ImageSet
from lensjax.data.splits import TrainingImages
from lensjax.data.streamed import StreamedImages
from lensjax.training import processes
from lensjax.training.meter import Meter
from lensjax.training.parallel import (
    parallel_train_loop,
    parallel_train_step,
    replicated,
    sent_ahead,
)
from lensjax.training.state import TrainState

_SECONDS_AT_ONCE = 2.0  # a signal, a progress bar and a loss that is not finite wait for no more
_FIRST_STEPS = 8  # done at once before it is known how long they take


@dataclasses.dataclass(frozen=True)
class Report:
    """How some steps went.

    Attributes:
      loss: of the last of them, or of the first that was not finite; of each run where several are trained
        side by side.
      number: that step's number in its epoch, from 1.
      seeds: of the runs side by side.
    """

    loss: Float[Array, "*runs"]
    number: Int[Array, "*runs"] | int
    seeds: tuple[int, ...] = ()


# From a state and the number of steps done in the epoch to the state and the number after some more.
Advance = Callable[[TrainState, int], tuple[TrainState, int, Report]]
# From an epoch's number to what runs its steps.
Engine = Callable[[int], Advance]
# From an epoch's number, and the steps done in it, to the batch of the next one.
Batches = Callable[[int], Callable[[int], Any]]


def build(
    step: Callable[..., Any],
    images: TrainingImages,
    key: Key[Array, ""],
    config: ConfigDict,
    devices: Sequence[jax.Device],
    *,
    seeds: tuple[int, ...] = (),
    meter: Meter | None = None,
) -> Engine:
    """What runs the steps of an epoch.

    Args:
      step: `train_step` with all but its three arguments given.
      images: what to train on.
      key: the run's key for steps, on the devices.
      config: the whole config of the run.
      devices: what to train on.
      seeds: those of several runs that are trained side by side; state and key then have a first axis over
        them. Empty for one run.
      meter: measures the steps; None where nobody asked for it.
    """
    measured = (lambda function: function) if meter is None else meter.training
    mine = processes.own_rows(config.batch_size, devices)
    if isinstance(images, FreshImages):
        # The images follow from config.data.seed: all runs see the same.
        mapped = jax.vmap(step, in_axes=(0, None, 0)) if seeds else step
        parallel = measured(parallel_train_step(mapped, devices))
        return _one_by_one(parallel, _drawn(images, config, mine), key, seeds)
    if isinstance(images, StreamedImages):
        parallel = measured(parallel_train_step(step, devices))
        return _one_by_one(parallel, _read_ahead(images, config, mine, devices), key, seeds)
    if is_resident(images, config, devices):
        loop = measured(parallel_train_loop(step, devices, side_by_side=bool(seeds)))
        return _resident(loop, images, key, config, devices, seeds)
    mapped = jax.vmap(step) if seeds else step
    parallel = measured(parallel_train_step(mapped, devices, rows_axis=1 if seeds else 0))
    return _one_by_one(parallel, _gathered(images, config, mine, seeds), key, seeds)


def is_resident(images: ImageSet, config: ConfigDict, devices: Sequence[jax.Device]) -> bool:
    """Whether the images are to live on the devices.

    Args:
      images: what to train on.
      config: the whole config of the run.
      devices: what to train on.
    """
    if config.data.residence != "auto":
        return config.data.residence == "device"
    if devices[0].platform == "cpu":
        return False
    memory = (devices[0].memory_stats() or {}).get("bytes_limit", math.inf)
    size = sum(values.nbytes for values in _arrays(images).values())
    return size <= config.data.device_share * memory


def _one_by_one(
    step: Callable[..., Any], batches: Batches, key: Array, seeds: tuple[int, ...]
) -> Engine:
    look_at_memory = host_memory.watch()

    def epoch(number: int) -> Advance:
        batch = batches(number)

        def advance(state: TrainState, done: int) -> tuple[TrainState, int, Report]:
            state, metrics = step(state, batch(done), key)
            look_at_memory()
            return state, done + 1, Report(metrics["loss"], done + 1, seeds)

        return advance

    return epoch


def _gathered(images: ImageSet, config: ConfigDict, mine: slice, seeds: tuple[int, ...]) -> Batches:
    """Images in the host's memory."""

    def of_epoch(number: int) -> Callable[[int], Any]:
        rows, weights = _rows_of_epoch(seeds or (config.seed,), number, images, config)

        def batch(done: int) -> Any:
            parts = [
                gathered(images, rows[run, done, mine], weights[run, done, mine])
                for run in range(len(rows))
            ]
            return jax.tree.map(lambda *arrays: np.stack(arrays), *parts) if seeds else parts[0]

        return batch

    return of_epoch


def _read_ahead(
    images: StreamedImages, config: ConfigDict, mine: slice, devices: Sequence[jax.Device]
) -> Batches:
    """Images on disk, asked for in the order of the steps."""

    def of_epoch(number: int) -> Callable[[int], Any]:
        order = epoch_order(config.seed, number, len(images))
        rows, weights = rows_of_batches(order, config.batch_size)
        ahead: Iterator[Any] | None = None

        def batch(done: int) -> Any:
            nonlocal ahead
            if ahead is None:
                read = images.batches(rows[done:, mine], weights[done:, mine])
                ahead = sent_ahead(read, devices)
            return next(ahead)

        return batch

    return of_epoch


def _drawn(images: FreshImages, config: ConfigDict, mine: slice) -> Batches:
    """Images that nobody has seen before."""
    num_steps = math.ceil(len(images) / config.batch_size)
    size = mine.stop - mine.start
    return lambda number: lambda done: images.batch(number * num_steps + done, size, mine.start)


def _rows_of_epoch(
    seeds: Sequence[int], number: int, images: ImageSet, config: ConfigDict
) -> tuple[Int[np.ndarray, "runs steps batch"], Float[np.ndarray, "runs steps batch"]]:
    """The rows of the images in each step of an epoch, in the order of each run, and what they weigh."""
    parts = [
        rows_of_batches(epoch_order(seed, number, len(images)), config.batch_size) for seed in seeds
    ]
    return np.stack([rows for rows, _ in parts]), np.stack([weights for _, weights in parts])


def _resident(
    loop: Callable[..., Any],
    images: ImageSet,
    key: Array,
    config: ConfigDict,
    devices: Sequence[jax.Device],
    seeds: tuple[int, ...],
) -> Engine:
    data = replicated(_arrays(images), devices)
    mine = processes.own_rows(config.batch_size, devices)
    steps_at_once = _FIRST_STEPS

    def epoch(number: int) -> Advance:
        rows, weights = _rows_of_epoch(seeds or (config.seed,), number, images, config)
        num_steps = rows.shape[1]
        rows, weights = rows[..., mine], weights[..., mine]
        if not seeds:
            rows, weights = rows[0], weights[0]

        def advance(state: TrainState, done: int) -> tuple[TrainState, int, Report]:
            nonlocal steps_at_once
            last = min(done + steps_at_once, num_steps)
            started = time.perf_counter()
            state, loss, at = jax.block_until_ready(
                loop(state, data, rows, weights, done, last, key)
            )
            # How many are done at once decides nothing but when the host hears of them.
            seconds = processes.largest(time.perf_counter() - started, devices) / (last - done)
            steps_at_once = max(1, min(2 * steps_at_once, int(_SECONDS_AT_ONCE / seconds)))
            return state, last, Report(loss, at, seeds)

        return advance

    return epoch


def _arrays(images: ImageSet) -> dict[str, np.ndarray]:
    """What `decode` and the loss need of a set."""
    arrays = {
        "pixels": images.pixels,
        "scale": images.scale.astype(np.float32, copy=False),
        "labels": images.labels.astype(np.int32, copy=False),
    }
    return arrays | ({} if images.residuals is None else {"residuals": images.residuals})
