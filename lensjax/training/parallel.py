"""Data parallelism: each device gets an equal share of a batch. The only file that uses `jax.pmap`."""

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
    """Refuses a batch size that the devices cannot share equally.

    Args:
      field: the batch size's name in the config.
      batch_size: images in a batch over all devices.
      num_devices: devices that share it.

    Raises:
      UserError: the number of devices does not divide the batch size.
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
      function: what each device computes.
      devices: the devices; each process passes the arrays of its own ones.
      in_axes: 0 for arguments that are divided over devices, as by `divide`; None for arguments that are
        the same on all.
      out_axes: the axis of the results. If it is None, one device's results are kept: they have to be
        equal on all devices, by `psum` or `pmean` over `AXIS`.
      donate_argnums: arguments whose memory the results take over.

    Returns:
      The mapped function, of whole arrays and divided ones.
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
    # Several CPU devices can deadlock for lack of threads if programs are dispatched without waiting.
    return lambda *arguments: jax.block_until_ready(mapped(*arguments))


def parallelize_step(
    step: StepFunction,
    devices: Sequence[jax.Device],
    *,
    num_runs: int = 1,
    same_batch: bool = False,
) -> StepFunction:
    """Maps a training step over devices, and over runs that are trained side by side.

    Args:
      step: the step of one run on one device; its state is donated.
      devices: the devices that share a batch.
      num_runs: number of runs; if there are several, state and key have a leading axis over them, and
        batches have one after `batch`.
      same_batch: whether all runs get the same batch, without an axis over runs.
    """
    if num_runs > 1:
        step = jax.vmap(step, in_axes=(0, None if same_batch else 1, 0))
    return parallelize(step, devices, in_axes=(None, 0, None), donate_argnums=[0])


def divide(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Divides rows over this process's devices: `[rows, ...]` becomes `[devices, rows / devices, ...]`.

    Their number has to be a multiple of that of the devices, see `check_batch_size`.

    Args:
      tree: arrays with the rows of this process's devices.
      devices: all devices that share a batch.
    """
    number = len(processes.own(devices))
    return jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), tree)


def replicate(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Copies arrays to every device of this process, with the layout of the mapped functions' results.

    Other layouts work too, but the functions are compiled again for them.
    """
    return jax.device_put(tree, _sharding(devices, PartitionSpec()))


def prefetch(
    batches: Iterable[Mapping[str, Any]], devices: Sequence[jax.Device], number: int
) -> Iterator[Batch]:
    """Divides batches and copies them to the devices ahead of the steps that use them.

    Args:
      batches: with the rows of this process's devices.
      devices: all devices that share a batch.
      number: batches copied when a step asks for one, that one included.
    """
    layout = _sharding(devices, PartitionSpec(AXIS))
    ahead: collections.deque[Batch] = collections.deque()
    for batch in batches:
        ahead.append(jax.device_put(divide(dict(batch), devices), layout))
        if len(ahead) == number:
            yield ahead.popleft()
    yield from ahead


def _sharding(devices: Sequence[jax.Device], spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(processes.own(devices)), (AXIS,)), spec)
