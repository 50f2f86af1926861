"""Data parallelism: each device gets an equal share of a batch. The only file that knows `pmap`."""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lensjax.compiler_options import OLDER_LOOPS, compiled_with, if_known
from lensjax.errors import UserError
from lensjax.training import processes
from lensjax.training.step import train_loop

AXIS = "batch"


def check_batch_size(field: str, batch_size: int, num_devices: int) -> None:
    """Refuses a batch that cannot be shared equally.

    Args:
      field: the batch size's name in the config.
      batch_size: images in a batch over all devices.
      num_devices: devices that share it.

    Raises:
      UserError: the number of devices does not divide the batch size; the message names the nearest
        sizes that it does divide.
    """
    if batch_size > 0 and batch_size % num_devices == 0:
        return
    below = batch_size // num_devices * num_devices
    sizes = f"{below} or {below + num_devices}" if below > 0 else str(num_devices)
    raise UserError(
        f"config.{field}={batch_size} cannot be shared equally by {num_devices} devices; use {sizes}, "
        f"or another multiple of {num_devices}"
    )


def replicated(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """The same arrays on every device of this process, laid out as the mapped steps give them back.

    Arrays laid out otherwise work too, but the step is compiled once more for them.
    """
    mesh = Mesh(np.asarray(processes.own(devices)), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


class Sent(dict[str, jax.Array]):
    """A batch that is divided and lies on its devices."""


def sent_ahead(
    batches: Iterable[Mapping[str, Any]], devices: Sequence[jax.Device], number: int = 2
) -> Iterator[Sent]:
    """The batches, each on its way to the devices while those before it are trained on.

    Args:
      batches: of rows for this process's devices.
      devices: what shares them.
      number: batches that are on their way or there.
    """
    here = processes.own(devices)
    layout = NamedSharding(Mesh(np.asarray(here), (AXIS,)), PartitionSpec(AXIS))
    waiting: collections.deque[Sent] = collections.deque()
    for batch in batches:
        waiting.append(Sent(jax.device_put(share(dict(batch), len(here)), layout)))
        if len(waiting) == number:
            yield waiting.popleft()
    yield from waiting


def parallel_train_step(
    step: Callable[..., Any], devices: Sequence[jax.Device], *, rows_axis: int = 0
) -> Callable[..., Any]:
    """Maps `step(state, batch, key) -> (state, metrics)` over devices.

    The state and the key are the same on all devices and the batch is divided; each process gives the rows
    of its own devices. What the step returns
    has to be the same on all devices, by `psum` or `pmean` over `AXIS`: only one device's value is
    kept. The state given in is used up.

    Args:
      step: what each device does.
      devices: what to map over.
      rows_axis: which axis of a batch's arrays has its rows.
    """
    mapped = jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, rows_axis, None),
        out_axes=(None, None),
        devices=devices,
        donate_argnums=0,
    )
    mapped = compiled_with(mapped, if_known(OLDER_LOOPS))
    on_cpu = devices[0].platform == "cpu"
    num_own = len(processes.own(devices))

    def run(state: Any, batch: dict[str, Any], key: jax.Array) -> Any:
        if not isinstance(batch, Sent):
            batch = share(batch, num_own, rows_axis)
        result = mapped(state, dict(batch), key)
        # On a CPU, steps dispatched without waiting can starve each other of threads and hang where
        # there are several devices; with one device waiting costs no time.
        return jax.block_until_ready(result) if on_cpu else result

    return run


def parallel_train_loop(
    step: Callable[..., Any], devices: Sequence[jax.Device], *, side_by_side: bool = False
) -> Callable[..., Any]:
    """Maps `train_loop` over devices.

    The result takes a state, the whole data set (the same on all devices), `rows` and `weights`
    `[steps, rows]`, of which each device of this process gets an equal share of the columns, the numbers of
    the first step and of the one after the last, and the run's key. The state given in is used up.

    Args:
      step: `train_step` of one run with all but its three arguments given.
      devices: what to map over.
      side_by_side: whether several runs are trained at once: state, `rows`, `weights` and key have an axis
        more, the first one, over them.
    """
    loop = functools.partial(train_loop, step=step)
    if side_by_side:
        loop = jax.vmap(loop, in_axes=(0, None, 0, 0, None, None, 0))
    rows_axis = 2 if side_by_side else 1
    mapped = jax.pmap(
        loop,
        axis_name=AXIS,
        in_axes=(None, None, rows_axis, rows_axis, None, None, None),
        out_axes=(None, None, None),
        devices=devices,
        donate_argnums=0,
    )

    def run(
        state: Any,
        data: Any,
        rows: np.ndarray,
        weights: np.ndarray,
        first: int,
        last: int,
        key: Any,
    ) -> Any:
        shape = (*rows.shape[:-1], len(processes.own(devices)), -1)
        return mapped(
            state,
            data,
            rows.reshape(shape),
            weights.reshape(shape),
            np.int32(first),
            np.int32(last),
            key,
        )

    return run


def parallel_eval_step(
    step: Callable[..., Any], devices: Sequence[jax.Device]
) -> Callable[..., Any]:
    """Maps `step(variables, batch) -> values` over devices; the values come back one row an image."""
    mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), devices=devices)
    mapped = compiled_with(mapped, if_known(OLDER_LOOPS))

    def run(variables: Any, batch: dict[str, np.ndarray]) -> Any:
        values = mapped(variables, share(batch, len(devices)))
        return jax.tree.map(
            lambda value: value.reshape(-1, *value.shape[2:]), jax.device_get(values)
        )

    return run


def share(batch: dict[str, Any], num_devices: int, axis: int = 0) -> dict[str, Any]:
    """Divides the rows of every array equally: `[batch, ...]` becomes `[devices, batch / devices, ...]`.

    Args:
      batch: the arrays.
      num_devices: how many shares.
      axis: which one has the rows; the axes before it stay.
    """

    def shared(value: Any) -> Any:
        return value.reshape(*value.shape[:axis], num_devices, -1, *value.shape[axis + 1 :])

    return {name: shared(value) for name, value in batch.items()}
