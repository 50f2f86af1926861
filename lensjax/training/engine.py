"""How the steps of an epoch are run: one by one on the host's images, or many at once on the device's.

On accelerators the images live on each device where they fit, and one compiled loop gathers, augments and
trains over many steps, so that the host has next to nothing to do. XLA's loops on a CPU run convolutions
three to six times slower than the same step by itself (tools/benchmark_training.py); there, and where the
images do not fit, each step is started from the host, which makes the next batch ready meanwhile. Both see
the same batches.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from lensjax.data.batches import epoch_order, gathered, rows_of_batches
from lensjax.data.fresh import FreshImages
from lensjax.data.images import ImageSet
from lensjax.training import processes
from lensjax.training.parallel import parallel_train_loop, parallel_train_step, replicated
from lensjax.training.state import TrainState

_SECONDS_AT_ONCE = 2.0  # a signal, a progress bar and a loss that is not finite wait for no more
_FIRST_STEPS = 8  # done at once before it is known how long they take


@dataclasses.dataclass(frozen=True)
class Report:
    """How some steps went.

    Attributes:
      loss: of the last of them, or of the first that was not finite.
      number: that step's number in its epoch, from 1.
    """

    loss: Float[Array, ""]
    number: Int[Array, ""] | int


# From a state and the number of steps done in the epoch to the state and the number after some more.
Advance = Callable[[TrainState, int], tuple[TrainState, int, Report]]
# From an epoch's number to what runs its steps.
Engine = Callable[[int], Advance]


def build(
    step: Callable[..., Any],
    images: ImageSet | FreshImages,
    key: Key[Array, ""],
    config: ConfigDict,
    devices: Sequence[jax.Device],
) -> Engine:
    """What runs the steps of an epoch.

    Args:
      step: `train_step` with all but its three arguments given.
      images: what to train on.
      key: the run's key for steps, on the devices.
      config: the whole config of the run.
      devices: what to train on.
    """
    if isinstance(images, FreshImages):
        return _fresh(parallel_train_step(step, devices), images, key, config, devices)
    if is_resident(images, config, devices):
        return _resident(step, images, key, config, devices)
    return _streaming(parallel_train_step(step, devices), images, key, config, devices)


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


def _streaming(
    step: Callable[..., Any],
    images: ImageSet,
    key: Array,
    config: ConfigDict,
    devices: Sequence[jax.Device],
) -> Engine:
    mine = processes.own_rows(config.batch_size, devices)

    def epoch(number: int) -> Advance:
        order = epoch_order(config.seed, number, len(images))
        rows, weights = rows_of_batches(order, config.batch_size)

        def advance(state: TrainState, done: int) -> tuple[TrainState, int, Report]:
            batch = gathered(images, rows[done, mine], weights[done, mine])
            state, metrics = step(state, batch, key)
            return state, done + 1, Report(metrics["loss"], done + 1)

        return advance

    return epoch


def _fresh(
    step: Callable[..., Any],
    images: FreshImages,
    key: Array,
    config: ConfigDict,
    devices: Sequence[jax.Device],
) -> Engine:
    mine = processes.own_rows(config.batch_size, devices)

    def epoch(number: int) -> Advance:
        before = number * math.ceil(len(images) / config.batch_size)

        def advance(state: TrainState, done: int) -> tuple[TrainState, int, Report]:
            batch = images.batch(before + done, mine.stop - mine.start, mine.start)
            state, metrics = step(state, batch, key)
            return state, done + 1, Report(metrics["loss"], done + 1)

        return advance

    return epoch


def _resident(
    step: Callable[..., Any],
    images: ImageSet,
    key: Array,
    config: ConfigDict,
    devices: Sequence[jax.Device],
) -> Engine:
    data = replicated(_arrays(images), devices)
    loop = parallel_train_loop(step, devices)
    mine = processes.own_rows(config.batch_size, devices)
    steps_at_once = _FIRST_STEPS

    def epoch(number: int) -> Advance:
        order = epoch_order(config.seed, number, len(images))
        rows, weights = rows_of_batches(order, config.batch_size)

        def advance(state: TrainState, done: int) -> tuple[TrainState, int, Report]:
            nonlocal steps_at_once
            last = min(done + steps_at_once, len(rows))
            started = time.perf_counter()
            state, loss, at = jax.block_until_ready(
                loop(state, data, rows[:, mine], weights[:, mine], done, last, key)
            )
            # How many are done at once decides nothing but when the host hears of them.
            seconds = processes.largest(time.perf_counter() - started, devices) / (last - done)
            steps_at_once = max(1, min(2 * steps_at_once, int(_SECONDS_AT_ONCE / seconds)))
            return state, last, Report(loss, at)

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
