"""Communication between the processes of a multi-host run, through JAX's distributed runtime.

Each process drives its own devices and reads its own rows of every batch. Only the first process writes
files.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int, Shaped

from lensjax.errors import UserError

PyTree = Any


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects this process to the others; must be called before any other use of JAX.

    The arguments can be None under SLURM, Open MPI and Kubernetes and on TPU pods, where JAX detects them.

    Args:
      coordinator: address of the first process, HOST:PORT.
      num_processes: number of processes.
      process_id: number of this process, from 0.

    Raises:
      UserError: if the processes do not connect.
    """
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: the processes did not connect: {_first_line(error)}; outside SLURM, Open MPI, "
            "Kubernetes and TPU pods, add --coordinator HOST:PORT, --num-processes N and --process-id I"
        ) from None


@contextlib.contextmanager
def report_lost_process() -> Iterator[None]:
    """Context that reports the failure of a computation across processes as a one-line error.

    Raises:
      UserError: if such a computation fails.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized() or "RESOURCE_EXHAUSTED" in str(error):
            raise
        raise UserError(
            "a computation with the other processes failed, probably because one of them has ended: "
            f"{_first_line(error)}; see their messages, and rerun the same command in all processes to resume"
        ) from None


def exit_on_failure(code: int) -> None:
    """Exits at once if the exit code is not 0; at a normal exit JAX would wait for the other processes."""
    if code and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def all_devices() -> list[jax.Device]:
    """The devices of all processes, in the order of the processes."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def is_first() -> bool:
    """Returns whether this is the first process, which writes all files."""
    return jax.process_index() == 0


def is_multiprocess(devices: Sequence[jax.Device]) -> bool:
    """Returns whether the devices belong to more than one process."""
    return len({device.process_index for device in devices}) > 1


def local_devices(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """The devices in `devices` that belong to this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def local_rows(number: int, devices: Sequence[jax.Device]) -> slice:
    """The rows of a batch that belong to this process's devices.

    Args:
      number: rows in the batch; a multiple of the number of devices.
      devices: all devices that share the batch, in the order of their processes.
    """
    each = number // len(devices)
    local = local_devices(devices)
    first = devices.index(local[0])
    return slice(first * each, (first + len(local)) * each)


def broadcast(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Returns the first process's arrays in all processes; the shapes must agree."""
    return multihost_utils.broadcast_one_to_all(tree) if is_multiprocess(devices) else tree


def broadcast_json(value: Any, devices: Sequence[jax.Device]) -> Any:
    """Returns the first process's value in all processes; JSON must be able to represent it."""
    if not is_multiprocess(devices):
        return value
    written = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(broadcast(np.int32(len(written)), devices))
    padded = np.resize(written, length) if is_first() else np.zeros(length, np.uint8)
    return json.loads(np.asarray(broadcast(padded, devices)).astype(np.uint8).tobytes())


def max_over_processes(value: float, devices: Sequence[jax.Device]) -> float:
    """Returns the largest value over all processes."""
    if not is_multiprocess(devices):
        return value
    return float(multihost_utils.process_allgather(np.float32(value)).max())


def gather_rows(
    rows: Shaped[np.ndarray, "local *shape"], devices: Sequence[jax.Device]
) -> Shaped[np.ndarray, "all *shape"]:
    """Gathers the rows of all processes, in the order of the processes.

    Args:
      rows: this process's rows; each process has the same number.
      devices: the devices of all processes.
    """
    if not is_multiprocess(devices):
        return rows
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def local_row_indices(number: int, devices: Sequence[jax.Device]) -> Int[np.ndarray, " local"]:
    """Indices from 0 to `number` - 1 that belong to this process.

    All processes get the same number of indices; the last index is repeated as padding.

    Args:
      number: number of indices over all processes.
      devices: the devices of all processes.
    """
    process_indices = sorted({device.process_index for device in devices})
    each = -(-number // len(process_indices))
    first = process_indices.index(jax.process_index()) * each
    return np.minimum(np.arange(first, first + each), number - 1)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
