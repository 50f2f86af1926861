"""Processes that train together, one a host: how they meet, and what they tell each other.

All of it is JAX's own runtime. Each process drives its own devices and reads its own share of every
batch; the first one writes.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int, Shaped

from lensjax.errors import UserError

PyTree = Any


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Meets the other processes; has to be the first thing done with JAX.

    Args:
      coordinator: address of the first process, HOST:PORT; None where SLURM, Open MPI, Kubernetes or a TPU
        pod tells it, as JAX knows how to ask.
      num_processes: how many there are; None as above.
      process_id: this one's number, from 0; None as above.

    Raises:
      UserError: they did not meet.
    """
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"--distributed: the processes did not meet: {reason}; outside SLURM, Open MPI, Kubernetes and "
            "TPU pods give --coordinator HOST:PORT, --num-processes N and --process-id I"
        ) from None


def leave(code: int) -> None:
    """Ends this process where it failed; at a common end JAX would have it wait for the others first."""
    if code and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def all_devices() -> list[jax.Device]:
    """The devices of all processes, those of the first one first."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def are_several(devices: Sequence[jax.Device]) -> bool:
    """Whether the devices belong to more than one process."""
    return len({device.process_index for device in devices}) > 1


def own(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Those of the devices that are this process's."""
    return [device for device in devices if device.process_index == jax.process_index()]


def own_rows(number: int, devices: Sequence[jax.Device]) -> slice:
    """Those rows of a batch, shared equally by the devices, that this process's devices get.

    Args:
      number: rows in the batch; the number of devices divides it.
      devices: what shares it, in the order of their processes.
    """
    each = number // len(devices)
    first = next(i for i, device in enumerate(devices) if device in own(devices))
    return slice(first * each, (first + len(own(devices))) * each)


def from_first(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """The first process's arrays, of the same shapes in all."""
    return multihost_utils.broadcast_one_to_all(tree) if are_several(devices) else tree


def text_from_first(value: Any, devices: Sequence[jax.Device]) -> Any:
    """What the first process has of JSON: numbers, texts, lists, dicts."""
    if not are_several(devices):
        return value
    written = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(from_first(np.int32(len(written)), devices))
    padded = np.resize(written, length) if is_first() else np.zeros(length, np.uint8)
    return json.loads(np.asarray(from_first(padded, devices)).astype(np.uint8).tobytes())


def largest(value: float, devices: Sequence[jax.Device]) -> float:
    """The largest of the processes' numbers."""
    if not are_several(devices):
        return value
    return float(multihost_utils.process_allgather(np.float32(value)).max())


def joined_rows(
    rows: Shaped[np.ndarray, "own *shape"], devices: Sequence[jax.Device]
) -> Shaped[np.ndarray, "all *shape"]:
    """The rows of all processes, which have equally many, in their order."""
    if not are_several(devices):
        return rows
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def share_of(number: int, devices: Sequence[jax.Device]) -> Int[np.ndarray, " own"]:
    """Equally many of the numbers below `number` for each process; the last ones repeat the last number."""
    processes = sorted({device.process_index for device in devices})
    each = -(-number // len(processes))
    place = processes.index(jax.process_index())
    return np.minimum(np.arange(place * each, (place + 1) * each), number - 1)
