"""The same run from several seeds: one after another, or side by side in one program.

Each seed has a folder of its own, which is that of an ordinary run. Side by side, a step is the step of
one run under `jax.vmap`: parameters, keys and the order of the images have an axis more, and each seed sees
what it would see alone. That is for devices which one run does not keep busy. On CPUs, seeds are trained one
after another: side by side, convolutions become grouped ones, and on two cores steps of two ResNet18 on
150 x 150 pixels take about three times as long as one after another, of four six times.
"""

import contextlib
import dataclasses
import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from lensjax import workdir as folders
from lensjax.console import log
from lensjax.data.splits import TrainingImages
from lensjax.data.streamed import StreamedImages
from lensjax.errors import Interrupted, NonFiniteLossError, UserError
from lensjax.training import engine as engines
from lensjax.training import logs, loop, processes
from lensjax.training.checkpoints import Checkpoints, Progress
from lensjax.training.interrupt import stop_requests
from lensjax.training.losses import term_names
from lensjax.training.parallel import check_batch_size, replicated
from lensjax.training.start import first_state, step_of
from lensjax.training.state import PyTree, TrainState, zero_totals
from lensjax.workdir import CHECKPOINTS

Runs = Mapping[Path, ConfigDict]  # the config of each run, by its folder
Place = tuple[int, int] | None  # epochs and steps done; None before the first checkpoint


def train(
    config: ConfigDict,
    model: nn.Module,
    images: TrainingImages,
    evaluate: loop.Evaluator,
    workdir: Path,
    *,
    devices: Sequence[jax.Device],
) -> None:
    """Trains a model from each of `config.seeds` seeds, or goes on where an earlier command stopped.

    Args:
      config, model, images, evaluate, workdir, devices: see `loop.train`; the runs lie in
        `workdir.runs_of(workdir, config)`.

    Raises:
      Interrupted: a signal asked to stop; all is saved.
      NonFiniteLossError: the loss of a seed, which is named, became NaN or infinite.
      UserError: as of `loop.train`, or another process is at work in one of the folders.
    """
    runs = folders.runs_of(workdir, config)
    at_once = seeds_at_once(config, images, devices)
    with contextlib.ExitStack() as stack:
        for folder, one in runs.items() if processes.is_first() else ():
            folders.claim(folder, one)
            stack.enter_context(folders.locked(folder))
        places = {folder: _place(folder, devices) for folder in runs}
        left = [folder for folder in runs if not _is_done(places[folder], config)]
        while left:
            same = [folder for folder in left if places[folder] == places[left[0]]]
            group = {folder: runs[folder] for folder in same[:at_once]}
            log.info("%s; %d of %d are done", _name(group), len(runs) - len(left), len(runs))
            if _fits(group, model, images, evaluate, devices=devices):
                left = [folder for folder in left if folder not in group]
            else:
                gc.collect()  # what they held on the device
                at_once = (len(group) + 1) // 2
                log.info("they do not fit into the device's memory: %d at once", at_once)
                places |= {folder: _place(folder, devices) for folder in group}


def seeds_at_once(config: ConfigDict, images: TrainingImages, devices: Sequence[jax.Device]) -> int:
    """How many seeds are trained side by side, if they fit.

    Args:
      config: the whole config.
      images: what to train on.
      devices: what to train on.

    Raises:
      UserError: more than one is asked for, with images that stay on disk.
    """
    if isinstance(images, StreamedImages):
        if config.seeds_at_once > 1:
            raise UserError(
                f"config.seeds_at_once={config.seeds_at_once}: images that stay on disk are read for one "
                "seed at a time; use config.seeds_at_once=1, or config.data.residence='host'"
            )
        return 1
    if config.seeds_at_once:
        return min(config.seeds_at_once, config.seeds)
    return 1 if devices[0].platform == "cpu" else config.seeds


def _name(runs: Runs) -> str:
    word = "seeds" if len(runs) > 1 else "seed"
    return f"{word} {', '.join(str(config.seed) for config in runs.values())}"


def _place(folder: Path, devices: Sequence[jax.Device]) -> Place:
    with Checkpoints(folder / CHECKPOINTS, devices) as checkpoints:
        return checkpoints.newest_place()


def _is_done(place: Place, config: ConfigDict) -> bool:
    return place is not None and place[0] >= config.num_epochs


def _fits(
    runs: Runs,
    model: nn.Module,
    images: TrainingImages,
    evaluate: loop.Evaluator,
    *,
    devices: Sequence[jax.Device],
) -> bool:
    """Trains some runs to their ends; false where there was not memory enough for so many."""
    if len(runs) > 1:
        try:
            train_together(runs, model, images, evaluate, devices=devices)
        except jax.errors.JaxRuntimeError as error:
            # Where there are other processes, these would wait for this one.
            if "RESOURCE_EXHAUSTED" not in str(error) or processes.are_several(devices):
                raise
            return False
        return True
    ((folder, config),) = runs.items()
    try:
        loop.train(config, model, images, evaluate, folder, devices=devices)
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"seed {config.seed}: {error}") from error
    return True


def train_together(
    runs: Runs,
    model: nn.Module,
    images: TrainingImages,
    evaluate: loop.Evaluator,
    *,
    devices: Sequence[jax.Device],
) -> None:
    """Trains runs that differ in their seeds alone side by side; see `loop.train`, whose order it keeps.

    Args:
      runs: the config of each run by its folder; they are all at the same place.
      model, images, evaluate, devices: see `loop.train`.
    """
    config = next(iter(runs.values()))
    check_batch_size("batch_size", config.batch_size, len(devices))
    terms = term_names(config.model.name)
    num_batches = math.ceil(len(images) / config.batch_size)
    with contextlib.ExitStack() as stack:
        together = _Together(
            [stack.enter_context(Checkpoints(folder / CHECKPOINTS, devices)) for folder in runs]
        )
        stop = stack.enter_context(stop_requests(devices))
        state, where, step, key, restored = _start(runs, model, num_batches, together)
        state, key = replicated((state, key), devices)
        seeds = tuple(one.seed for one in runs.values())
        engine = engines.build(step, images, key, config, devices, seeds=seeds)
        if config.num_epochs == 0 and not restored:
            together.save(state, where, together.evaluated(state, evaluate))
        if where.epoch or where.steps_in_epoch:
            log.info("going on after epoch %d, step %d", where.epoch, where.steps_in_epoch)
        epoch_logs = [
            stack.enter_context(logs.EpochLog(folder if processes.is_first() else None, history))
            for folder, history in zip(runs, together.histories, strict=True)
        ]
        log.info("means of the seeds:\n%s", logs.header(terms))
        while where.epoch < config.num_epochs:
            started = time.perf_counter()
            before = where.steps_in_epoch
            state, where = loop.run_epoch(state, engine, len(images), config, where, stop, together)
            trained = time.perf_counter() - started
            num_images = max(len(images) - before * config.batch_size, 0)
            try:
                with stop.at_once():
                    metrics = [
                        loop.epoch_means(_part(state.totals, run)) | values
                        for run, values in enumerate(together.evaluated(state, evaluate))
                    ]
            except Interrupted:
                if before < num_batches:
                    together.save(state, where, None)
                    together.wait()
                raise
            seconds = time.perf_counter() - started
            times = {"images_per_second": num_images / trained, "seconds": seconds}
            records = [{"epoch": where.epoch + 1, **values, **times} for values in metrics]
            totals = _stacked([zero_totals(terms)] * len(runs))
            state = state.replace(totals=replicated(totals, devices))
            where = Progress(where.epoch + 1)
            together.add(records)
            together.save(state, where, metrics)
            for epoch_log, record in zip(epoch_logs, records, strict=True):
                epoch_log.write(record)
            means = {name: float(np.mean([one[name] for one in records])) for name in records[0]}
            left = seconds * (config.num_epochs - where.epoch)
            log.info(logs.row(means | {"epoch": where.epoch}, terms, config.num_epochs, left))


def _start(
    runs: Runs, model: nn.Module, num_batches: int, together: "_Together"
) -> tuple[TrainState, Progress, Callable[..., Any], Key[Array, " runs"], bool]:
    """What all start from: states, place, step and keys, and whether it comes from checkpoints."""
    states, keys = [], []
    for config, checkpoints in zip(runs.values(), together.each, strict=True):
        state, key = first_state(config, model, num_batches)
        step = step_of(config, model, num_batches)
        state, where, restored = loop.restored_or_new(state, checkpoints, config)
        states.append(state)
        keys.append(key)
        together.histories.append(where.history)
    size = loop.count_parameters(states[0].params)
    log.info("%s: %s parameters, %d times", config.model.name, f"{size:,}", len(runs))
    where = Progress(where.epoch, where.steps_in_epoch)
    return _stacked(states), where, step, _stacked(keys), restored


@dataclasses.dataclass(frozen=True)
class _Together:
    """The checkpoints of runs side by side, each in its own folder.

    Attributes:
      each: the checkpoints of each run.
      histories: the metrics of each run's whole epochs.
    """

    each: Sequence[Checkpoints]
    histories: list[list[dict[str, Any]]] = dataclasses.field(default_factory=list)

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Adds an epoch: the record of each run."""
        for history, record in zip(self.histories, records, strict=True):
            history.append(record)

    def save(
        self, state: TrainState, progress: Progress, metrics: Sequence[dict[str, float]] | None
    ) -> None:
        """Saves each run's part of the state with its history; `metrics` are of each run."""
        host_state = jax.device_get(state)
        for run, checkpoints in enumerate(self.each):
            checkpoints.save(
                _part(host_state, run),
                dataclasses.replace(progress, history=self.histories[run]),
                None if metrics is None else metrics[run],
            )

    def wait(self) -> None:
        """Returns when all lies safely on disk."""
        for checkpoints in self.each:
            checkpoints.wait()

    def evaluated(self, state: TrainState, evaluate: loop.Evaluator) -> list[dict[str, float]]:
        """What evaluation gives for each run."""
        return [evaluate(_part(state.evaluated, run)) for run in range(len(self.each))]


def _stacked(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _part(tree: PyTree, run: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[run], tree)
