"""Data parallelism: each device gets an equal share of a batch. Only this file uses `jax.pmap`."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lensjax.errors import UserError
from lensjax.training import processes
from lensjax.training.state import PyTree
from lensjax.training.step import Batch, StepFunction

AXIS = "batch"


def check_batch_size(field: str, batch_size: int, num_devices: int) -> None:
    """Checks that the devices can share a batch equally.

    Args:
      field: name of the batch size in the config.
      batch_size: images in a batch, over all devices.
      num_devices: number of devices that share the batch.

    Raises:
      UserError: if the batch size is not a positive multiple of the number of devices.
    """
    if batch_size > 0 and batch_size % num_devices == 0:
        return
    below = batch_size // num_devices * num_devices
    sizes = f"{below} or {below + num_devices}" if below > 0 else str(num_devices)
    raise UserError(
        f"config.{field}={batch_size} cannot be shared equally by {num_devices} devices; use {sizes}, "
        f"or another multiple of {num_devices}"
    )


def parallelize(
    function: Callable[..., Any],
    devices: Sequence[jax.Device],
    *,
    in_axes: Sequence[int | None],
    out_axes: int | None = None,
    donate_argnums: Sequence[int] = (),
) -> Callable[..., Any]:
    """Maps a function over devices along the axis `AXIS`.

    Args:
      function: function that each device computes.
      devices: the devices; each process passes the arrays of its own devices.
      in_axes: for each argument, 0 if it is sharded over devices (see `shard`), None if it is the same on
        all devices.
      out_axes: axis of the results over devices. If it is None, the results of one device are returned;
        they must be equal on all devices, by `psum` or `pmean` over `AXIS`.
      donate_argnums: arguments whose memory is reused for the results.

    Returns:
      The mapped function.
    """
    mapped = jax.pmap(
        function,
        axis_name=AXIS,
        in_axes=tuple(in_axes),
        out_axes=out_axes,
        devices=devices,
        donate_argnums=tuple(donate_argnums),
    )
    if devices[0].platform != "cpu":
        return mapped
    # With asynchronous dispatch, several CPU devices can deadlock for lack of threads.
    return lambda *arguments: jax.block_until_ready(mapped(*arguments))


def parallelize_step(
    step: StepFunction, devices: Sequence[jax.Device], *, num_runs: int = 1, same_batch: bool = False
) -> StepFunction:
    """Maps a training step over devices, and over runs that are trained side by side.

    Args:
      step: the step of one run on one device; its state is donated.
      devices: the devices that share a batch.
      num_runs: number of runs. If there are several, state and key have a leading axis over runs, and
        batches have an axis over runs after the batch axis.
      same_batch: whether all runs get the same batch, without an axis over runs.
    """
    if num_runs > 1:
        step = jax.vmap(step, in_axes=(0, None if same_batch else 1, 0))
    return parallelize(step, devices, in_axes=(None, 0, None), donate_argnums=[0])


def shard(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Shards rows over this process's devices: `[rows, ...]` becomes `[devices, rows / devices, ...]`.

    The number of rows must be a multiple of the number of devices, see `check_batch_size`.

    Args:
      tree: arrays with the rows of this process's devices.
      devices: all devices that share a batch.
    """
    number = len(processes.local_devices(devices))
    return jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), tree)


def replicate(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Copies arrays to each device of this process.

    The sharding is that of the mapped functions' results. With another sharding the functions would be
    compiled a second time.

    Args:
      tree: arrays that are the same on all devices.
      devices: all devices that share a batch.
    """
    return jax.device_put(tree, _sharding(devices, PartitionSpec()))


def prefetch(
    batches: Iterable[Mapping[str, Any]], devices: Sequence[jax.Device], number: int
) -> Iterator[Batch]:
    """Shards batches and copies them to the devices before the steps need them.

    Args:
      batches: batches with the rows of this process's devices.
      devices: all devices that share a batch.
      number: number of batches on the devices, including the batch that the next step takes.
    """
    sharding = _sharding(devices, PartitionSpec(AXIS))
    queue: collections.deque[Batch] = collections.deque()
    for batch in batches:
        queue.append(jax.device_put(shard(dict(batch), devices), sharding))
        if len(queue) == number:
            yield queue.popleft()
    yield from queue


def _sharding(devices: Sequence[jax.Device], spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(processes.local_devices(devices)), (AXIS,)), spec)
