"""The training loop, of one run or of several side by side.

An epoch is, in this order: steps, evaluation, checkpoint with the evaluation's metrics, log. A run that
is stopped at any point resumes from its newest checkpoint and ends with the same numbers.

Runs side by side differ in their seeds alone: the step of one is mapped over them by `jax.vmap`, and state
and key have a leading axis over them. A single run has no such axis.
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from lensjax.data.epochs import epoch_batches
from lensjax.data.fresh import FreshImages
from lensjax.data.splits import TrainingImages
from lensjax.errors import Interrupted, NonFiniteLossError
from lensjax.models import ClassifierModule
from lensjax.runtime.progress import log, progress_bar
from lensjax.training import logs, processes
from lensjax.training.checkpoints import Checkpoints, Progress
from lensjax.training.interrupt import StopRequest, stop_requests
from lensjax.training.losses import term_names
from lensjax.training.meter import Meter
from lensjax.training.parallel import check_batch_size, parallelize_step, prefetch, replicate
from lensjax.training.start import build_step, start_or_resume
from lensjax.training.state import (
    PyTree,
    TrainState,
    epoch_means,
    split_runs,
    stack_runs,
    zero_totals,
)
from lensjax.training.step import StepFunction
from lensjax.workdir import CHECKPOINTS

Evaluator = Callable[[PyTree], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Session:
    """The fixed parts of training, with one config, set of checkpoints and log per run."""

    configs: Sequence[ConfigDict]
    checkpoints: Sequence[Checkpoints]
    epoch_logs: Sequence[logs.EpochLog]
    step: StepFunction
    key: Key[Array, "*runs"]
    num_images: int
    batches: Callable[..., Iterator[Mapping[str, Any]]]
    evaluate: Evaluator
    stop: StopRequest
    devices: Sequence[jax.Device]
    meter: Meter | None


def train(
    runs: Mapping[Path, ConfigDict],
    model: ClassifierModule,
    images: TrainingImages,
    evaluate: Evaluator,
    *,
    devices: Sequence[jax.Device],
    meter: Meter | None = None,
) -> list[Progress]:
    """Trains one or more runs, from the start or from their newest checkpoints.

    Args:
      runs: the config of each run by its folder, which is claimed. They differ in their seeds alone and
        have done the same number of steps.
      model: the classifier, built for the mapped axis `parallel.AXIS`.
      images: the training images.
      evaluate: gives named values of a model's variables after each epoch; `validation_auc` selects the
        best one.
      devices: the devices to train on, each an equal share of a batch; those of the first process, which
        writes, come first.
      meter: optional profiler.

    Returns:
      The progress of each run, with the metrics of every epoch.

    Raises:
      Interrupted: a signal asked to stop; all progress is saved.
      NonFiniteLossError: the loss became NaN or infinite.
      UserError: the devices cannot share a batch equally, or a checkpoint is of another model.
    """
    configs = list(runs.values())
    config = configs[0]
    check_batch_size("batch_size", config.batch_size, len(devices))
    num_steps = math.ceil(len(images) / config.batch_size)
    with contextlib.ExitStack() as stack:
        checkpoints = [
            stack.enter_context(Checkpoints(folder / CHECKPOINTS, devices)) for folder in runs
        ]
        stop = stack.enter_context(stop_requests(devices))
        state, key, progress, resumed = start_or_resume(configs, model, num_steps, checkpoints)
        state, key = replicate((state, key), devices)
        step = parallelize_step(
            build_step(config, model, num_steps),
            devices,
            num_runs=len(runs),
            same_batch=isinstance(images, FreshImages),
        )
        epoch_logs = [
            stack.enter_context(logs.EpochLog(folder if processes.is_first() else None, history))
            for folder, history in zip(runs, (each.history for each in progress), strict=True)
        ]
        session = Session(
            configs=configs,
            checkpoints=checkpoints,
            epoch_logs=epoch_logs,
            step=step if meter is None else meter.training(step),
            key=key,
            num_images=len(images),
            batches=functools.partial(
                epoch_batches,
                images,
                config.batch_size,
                [each.seed for each in configs],
                share=processes.own_rows(config.batch_size, devices),
            ),
            evaluate=evaluate,
            stop=stop,
            devices=devices,
            meter=meter,
        )
        if config.num_epochs == 0 and not resumed:
            metrics = evaluate_runs(session, state)
            log.info("without training: validation AUC %.4f", logs.mean(metrics)["validation_auc"])
            save(session, state, progress, metrics)
        logs.log_start(config, progress)
        while progress[0].epoch < config.num_epochs:
            started, first = time.perf_counter(), progress[0].steps_in_epoch
            state, progress = run_epoch(session, state, progress)
            state, progress = evaluate_save_and_log(session, state, progress, first, started)
        if meter is not None:
            meter.end()
    return progress


def run_epoch(
    session: Session, state: TrainState, progress: Sequence[Progress]
) -> tuple[TrainState, list[Progress]]:
    """Runs the steps of an epoch that are not done; saves every `config.checkpoint_minutes`.

    Raises:
      Interrupted: a signal asked to stop; all progress is saved.
      NonFiniteLossError: the loss became NaN or infinite.
    """
    config, stop = session.configs[0], session.stop
    epoch, done = progress[0].epoch, progress[0].steps_in_epoch
    size, num_steps = config.batch_size, math.ceil(session.num_images / config.batch_size)

    def now() -> list[Progress]:
        return [dataclasses.replace(each, steps_in_epoch=done) for each in progress]

    saved, saved_at = done, time.monotonic()
    loss = None
    # On CPUs, preparing further batches would compete with the step for the same cores.
    number_ahead = 1 if session.devices[0].platform == "cpu" else 2
    batches = prefetch(session.batches(epoch, start=done), session.devices, number_ahead)
    title = f"epoch {epoch + 1}/{config.num_epochs}"
    with progress_bar(session.num_images, title, initial=done * size) as bar:
        for batch in batches:
            if stop.requested(done) is not None:
                break
            previous = loss
            state, metrics = session.step(state, batch, session.key)
            loss = metrics["loss"]
            # Waits for the previous step while this one runs.
            check_finite(previous, session, epoch, done)
            done += 1
            bar.update(min(done * size, session.num_images) - bar.n)
            minutes = (time.monotonic() - saved_at) / 60
            if 0 < config.checkpoint_minutes <= minutes and done < num_steps:
                check_finite(loss, session, epoch, done)
                save(session, state, now())
                saved, saved_at = done, time.monotonic()
        check_finite(loss, session, epoch, done)
    if (signal_number := stop.requested(done)) is not None:
        if done > saved:
            save(session, state, now())
        wait_until_saved(session)
        raise Interrupted(signal_number)
    return state, now()


def evaluate_save_and_log(
    session: Session,
    state: TrainState,
    progress: Sequence[Progress],
    first: int,
    started: float,
) -> tuple[TrainState, list[Progress]]:
    """Ends an epoch: evaluates each run, saves it with its metrics, and logs them.

    Args:
      session: see `Session`.
      state, progress: after the epoch's steps.
      first: steps of the epoch that were done before `started`.
      started: `time.perf_counter()` before the steps.

    Raises:
      Interrupted: a signal asked to stop; all progress is saved.
    """
    config, seconds_of_steps = session.configs[0], time.perf_counter() - started
    try:
        with session.stop.at_once():
            evaluated = evaluate_runs(session, state)
    except Interrupted:
        if first * config.batch_size < session.num_images:
            save(session, state, progress)
            wait_until_saved(session)
        raise
    trained = [epoch_means(totals) for totals in split_runs(state.totals, len(progress))]
    metrics = [{**one, **other} for one, other in zip(trained, evaluated, strict=True)]
    num_images = max(session.num_images - first * config.batch_size, 0)
    seconds = time.perf_counter() - started
    epoch = progress[0].epoch + 1
    times = {"images_per_second": num_images / seconds_of_steps, "seconds": seconds}
    records = [{"epoch": epoch, **each, **times} for each in metrics]
    progress = [
        Progress(epoch, 0, [*each.history, record])
        for each, record in zip(progress, records, strict=True)
    ]
    zeros = stack_runs([zero_totals(term_names(config.model.name))] * len(progress))
    state = state.replace(totals=replicate(zeros, session.devices))
    save(session, state, progress, metrics)
    for epoch_log, record in zip(session.epoch_logs, records, strict=True):
        epoch_log.write(record)
    log.info(logs.row(logs.mean(records), config, seconds * (config.num_epochs - epoch)))
    if session.meter is not None:
        log.info(session.meter.line(num_images, seconds))
    return state, progress


def evaluate_runs(session: Session, state: TrainState) -> list[dict[str, float]]:
    """The evaluation of each run."""
    return [session.evaluate(each) for each in split_runs(state.evaluated, len(session.configs))]


def save(
    session: Session,
    state: TrainState,
    progress: Sequence[Progress],
    metrics: Sequence[dict[str, float]] | None = None,
) -> None:
    """Saves each run in the background, in the first process; `metrics` are those of a whole epoch."""
    if not processes.is_first():
        return
    states = list(split_runs(jax.device_get(state), len(progress)))
    for run, checkpoints in enumerate(session.checkpoints):
        values = None if metrics is None else metrics[run]
        checkpoints.save(states[run], progress[run], values)


def wait_until_saved(session: Session) -> None:
    """Returns when all checkpoints are on disk."""
    for checkpoints in session.checkpoints:
        checkpoints.wait()


def check_finite(
    loss: Float[Array, "*runs"] | None, session: Session, epoch: int, number: int
) -> None:
    """Waits for the loss of a step, None before the first one.

    Args:
      loss: of each run.
      session: see `Session`.
      epoch: number of the epoch, from 0.
      number: the step's number in the epoch, from 1.

    Raises:
      NonFiniteLossError: a loss is NaN or infinite.
    """
    if loss is None or np.isfinite(losses := np.atleast_1d(loss)).all():
        return
    run = int(np.argmin(np.isfinite(losses)))
    of = f"of seed {session.configs[run].seed} " if len(session.configs) > 1 else ""
    raise NonFiniteLossError(
        f"the loss {of}became {losses[run]} in epoch {epoch + 1}, batch {number}; the newest checkpoint "
        "is from before it. Try a lower config.optimizer.learning_rate first; --debug-nans reports "
        "which operation it was"
    )
