"""The training loop.

Its order, epoch by epoch: steps, evaluation, checkpoint with the evaluation's metrics, log. A run that
is stopped at any point goes on from its newest checkpoint and ends with the same numbers.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from lensjax.console import log, progress
from lensjax.data.splits import TrainingImages
from lensjax.errors import Interrupted, NonFiniteLossError
from lensjax.training import engine as engines
from lensjax.training import logs, processes
from lensjax.training.checkpoints import Checkpoints, Progress
from lensjax.training.interrupt import StopRequest, stop_requests
from lensjax.training.losses import term_names
from lensjax.training.meter import Meter
from lensjax.training.parallel import check_batch_size, replicated
from lensjax.training.pretrained import start_from
from lensjax.training.start import first_state, step_of
from lensjax.training.state import PyTree, TrainState, zero_totals
from lensjax.workdir import CHECKPOINTS


class Saving(Protocol):
    """Where a run, or several side by side, are saved between two steps: see `Checkpoints`."""

    def save(self, state: TrainState, progress: Progress, metrics: None) -> None:
        """Saves in the background."""

    def wait(self) -> None:
        """Returns when all is on disk."""


Evaluator = Callable[[PyTree], dict[str, float]]


def train(
    config: ConfigDict,
    model: nn.Module,
    images: TrainingImages,
    evaluate: Evaluator,
    workdir: Path,
    *,
    devices: Sequence[jax.Device],
    meter: Meter | None = None,
) -> list[dict[str, Any]]:
    """Trains a model, from the start or from where an earlier run in `workdir` stopped.

    Args:
      config: the whole config of the run.
      model: the classifier, built for the mapped axis `parallel.AXIS`.
      images: what to train on.
      evaluate: gives named values of the model's variables after each epoch; one is
        `validation_auc`, which chooses the best epoch.
      workdir: the run's folder, claimed.
      devices: what to train on; each takes an equal share of a batch. Those of other processes, which call
        this too, come after those of the first, which writes.
      meter: measures the steps; None where nobody asked for it.

    Returns:
      The metrics of each epoch.

    Raises:
      Interrupted: a signal asked to stop; all is saved.
      NonFiniteLossError: the loss became NaN or infinite.
      UserError: the devices cannot share a batch equally, or a checkpoint is of another model.
    """
    check_batch_size("batch_size", config.batch_size, len(devices))
    terms = term_names(config.model.name)
    num_batches = math.ceil(len(images) / config.batch_size)
    state, step_key = first_state(config, model, num_batches)
    step = step_of(config, model, num_batches)
    log.info("%s: %s parameters", config.model.name, f"{count_parameters(state.params):,}")
    with Checkpoints(workdir / CHECKPOINTS, devices) as checkpoints, stop_requests(devices) as stop:
        state, where, restored = restored_or_new(state, checkpoints, config)
        state, step_key = replicated((state, step_key), devices)
        engine = engines.build(step, images, step_key, config, devices, meter=meter)
        if config.num_epochs == 0 and not restored:
            metrics = evaluate(state.evaluated)
            log.info("as it is: validation AUC %.4f", metrics["validation_auc"])
            checkpoints.save(state, where, metrics)
        if 0 < len(where.history) < config.num_epochs or where.steps_in_epoch:
            log.info("going on after epoch %d, step %d", where.epoch, where.steps_in_epoch)
        written = workdir if processes.is_first() else None
        with logs.EpochLog(written, where.history) as epoch_log:
            log.info(logs.header(terms))
            for record in where.history:
                log.info(logs.row(record, terms, config.num_epochs, 0))
            while where.epoch < config.num_epochs:
                started = time.perf_counter()
                before = where.steps_in_epoch
                state, where = run_epoch(
                    state, engine, len(images), config, where, stop, checkpoints
                )
                trained = time.perf_counter() - started
                num_images = max(len(images) - before * config.batch_size, 0)
                try:
                    with stop.at_once():
                        metrics = epoch_means(state.totals) | evaluate(state.evaluated)
                except Interrupted:
                    if before < num_batches:
                        checkpoints.save(state, where, None)
                        checkpoints.wait()
                    raise
                seconds = time.perf_counter() - started
                record = {"epoch": where.epoch + 1, **metrics}
                record |= {"images_per_second": num_images / trained, "seconds": seconds}
                state = state.replace(totals=replicated(zero_totals(terms), devices))
                where = Progress(where.epoch + 1, 0, [*where.history, record])
                checkpoints.save(state, where, metrics)
                epoch_log.write(record)
                left = seconds * (config.num_epochs - where.epoch)
                log.info(logs.row(record, terms, config.num_epochs, left))
                if meter is not None:
                    log.info(meter.line(num_images, seconds))
        if meter is not None:
            meter.end()
    return where.history


def restored_or_new(
    state: TrainState, checkpoints: Checkpoints, config: ConfigDict
) -> tuple[TrainState, Progress, bool]:
    """The state and progress to go on from, and whether they are those of a checkpoint.

    Args:
      state: before the first step, of random parameters.
      checkpoints: of the run.
      config: the whole config of the run; may name files of weights to start from.

    Raises:
      UserError: the checkpoint is of another model, or a file of weights cannot be used.
    """
    restored = checkpoints.restore_newest(state)
    if restored is not None:
        return *restored, True
    # Only now: a run that goes on needs the file no more.
    start = start_from(state.variables, config.model)
    ema = jax.tree.map(jnp.copy, start) if state.ema else {}
    return state.replace(**start, ema=ema), Progress(), False


def run_epoch(
    state: TrainState,
    engine: engines.Engine,
    num_images: int,
    config: ConfigDict,
    where: Progress,
    stop: StopRequest,
    checkpoints: Saving,
) -> tuple[TrainState, Progress]:
    """The steps of one epoch, or of what is left of it; saves every `config.checkpoint_minutes`.

    Args:
      state: the state to go on from; used up.
      engine: runs the steps.
      num_images: images in an epoch.
      config: the whole config of the run.
      where: which epoch, and how many of its steps are done.
      stop: looked at between steps; once it asks to stop, no further step is done.
      checkpoints: where to save.

    Returns:
      The new state, and where it is: at the end of the epoch.

    Raises:
      Interrupted: `stop` asked for it; all is saved.
      NonFiniteLossError: the loss became NaN or infinite.
    """
    size = config.batch_size
    num_batches = math.ceil(num_images / size)
    done = where.steps_in_epoch
    advance = engine(where.epoch)
    saved, saved_at = done, time.monotonic()
    pending: engines.Report | None = None
    bar = progress(num_images, f"epoch {where.epoch + 1}/{config.num_epochs}", initial=done * size)
    with bar:
        while done < num_batches and stop.asked(done) is None:
            state, done, report = advance(state, done)
            # Only now, with these steps under way, are those before them waited for.
            check_finite(pending, where.epoch)
            pending = report
            bar.update(min(done * size, num_images) - bar.n)
            minutes = (time.monotonic() - saved_at) / 60
            if 0 < config.checkpoint_minutes <= minutes and done < num_batches:
                check_finite(pending, where.epoch)
                checkpoints.save(state, dataclasses.replace(where, steps_in_epoch=done), None)
                saved, saved_at = done, time.monotonic()
        check_finite(pending, where.epoch)
    where = dataclasses.replace(where, steps_in_epoch=done)
    if (signal_number := stop.asked(done)) is not None:
        if done > saved:
            checkpoints.save(state, where, None)
        checkpoints.wait()
        raise Interrupted(signal_number)
    return state, where


def check_finite(report: engines.Report | None, epoch: int) -> None:
    """Waits for the loss of some steps and refuses one that is not a number.

    Args:
      report: how the steps went; None before the first ones.
      epoch: whole epochs done.

    Raises:
      NonFiniteLossError: the loss is NaN or infinite.
    """
    if report is None:
        return
    losses = np.atleast_1d(report.loss)
    if not np.isfinite(losses).all():
        run = int(np.argmin(np.isfinite(losses)))
        number = np.broadcast_to(report.number, losses.shape)[run]
        of = f"of seed {report.seeds[run]} " if report.seeds else ""
        raise NonFiniteLossError(
            f"the loss {of}became {losses[run]} in epoch {epoch + 1}, batch {number}; the newest "
            "checkpoint is from before it. A lower config.optimizer.learning_rate is the first thing to "
            "try, and --debug-nans tells which operation it was"
        )


def epoch_means(totals: dict[str, Any]) -> dict[str, float]:
    """Training metrics of an epoch from its totals."""
    values = {name: float(value) for name, value in jax.device_get(totals).items()}
    count = values.pop("count")
    correct = values.pop("correct")
    means = {f"train_{name}": value / count for name, value in values.items()}
    return means | {"train_accuracy": correct / count}


def count_parameters(params: PyTree) -> int:
    """How many numbers a model learns."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
