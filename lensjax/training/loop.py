"""The training loop for one run, or for several runs side by side.

An epoch consists of its steps, an evaluation, a checkpoint with the metrics of the evaluation, and a log
record. A run that stops at any point resumes from its newest checkpoint and produces the same numbers.

Runs side by side differ only in their seeds. `jax.vmap` maps the step over the runs, and state and key have a
leading axis over runs. A single run does not have this axis.
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
from lensjax.training.checkpoint_files import Progress
from lensjax.training.checkpoints import Checkpoints
from lensjax.training.interrupt import StopRequest, catch_stop_signals
from lensjax.training.losses import term_names
from lensjax.training.parallel import check_batch_size, parallelize_step, prefetch, replicate
from lensjax.training.profiler import Profiler
from lensjax.training.start import build_step, start_or_resume
from lensjax.training.state import PyTree, TrainState, epoch_means, split_runs, stack_runs, zero_totals
from lensjax.training.step import StepFunction
from lensjax.workdir import CHECKPOINTS

Evaluator = Callable[[PyTree], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Session:
    """Fixed parts of a training session.

    Attributes:
      configs, checkpoints, epoch_logs: config, checkpoints and metrics files of each run.
      step: the training step, mapped over devices and runs.
      key: random key of each run.
      num_images: number of training images.
      batches: function of an epoch, from 0, and the number of completed steps; yields the remaining batches.
      evaluate: see `train`.
      stop, devices, profiler: request to stop, devices of all processes, optional profiler.
    """

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
    profiler: Profiler | None


def train(
    runs: Mapping[Path, ConfigDict],
    model: ClassifierModule,
    images: TrainingImages,
    evaluate: Evaluator,
    *,
    devices: Sequence[jax.Device],
    profiler: Profiler | None = None,
) -> list[Progress]:
    """Trains one or more runs, from the start or from their newest checkpoints.

    Args:
      runs: folder and config of each run; the folders are claimed (see `workdir.claim`). The configs differ
        only in their seeds, and all runs have completed the same number of steps.
      model: the classifier, built for the mapped axis `parallel.AXIS`.
      images: the training images.
      evaluate: function from a model's variables to named metrics, called after each epoch;
        `validation_auc` selects the best epoch.
      devices: the devices to train on, in the order of their processes. Each gets an equal share of a
        batch.
      profiler: optional profiler.

    Returns:
      The progress of each run, with the metrics of every epoch.

    Raises:
      Interrupted: if a signal stopped the run; all progress is saved.
      NonFiniteLossError: if the loss became NaN or infinite.
      UserError: if the devices cannot share a batch equally, a weight file cannot be used, or a checkpoint is
        damaged, cannot be written or belongs to a different model.
    """
    configs = list(runs.values())
    config = configs[0]
    check_batch_size("batch_size", config.batch_size, len(devices))
    num_steps = math.ceil(len(images) / config.batch_size)
    with contextlib.ExitStack() as stack:
        checkpoints = [stack.enter_context(Checkpoints(folder / CHECKPOINTS, devices)) for folder in runs]
        stop = stack.enter_context(catch_stop_signals(devices))
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
            step=step if profiler is None else profiler.time_training(step),
            key=key,
            num_images=len(images),
            batches=functools.partial(
                epoch_batches,
                images,
                config.batch_size,
                [each.seed for each in configs],
                share=processes.local_rows(config.batch_size, devices),
            ),
            evaluate=evaluate,
            stop=stop,
            devices=devices,
            profiler=profiler,
        )
        if config.num_epochs == 0 and not resumed:
            metrics = evaluate_runs(session, state)
            log.info("initial model: validation AUC %.4f", logs.mean(metrics)["validation_auc"])
            save(session, state, progress)
        logs.log_start(config, progress)
        while progress[0].epoch < config.num_epochs:
            started, first = time.perf_counter(), progress[0].steps_in_epoch
            state, progress = run_epoch(session, state, progress)
            state, progress = evaluate_save_and_log(session, state, progress, first, started)
        if profiler is not None:
            profiler.stop_trace()
        wait_until_saved(session)
        if (signal_number := stop.poll(0)) is not None:  # after the last evaluation
            raise Interrupted(signal_number)
    return progress


def run_epoch(
    session: Session, state: TrainState, progress: Sequence[Progress]
) -> tuple[TrainState, list[Progress]]:
    """Runs the remaining steps of an epoch, and saves a checkpoint every `config.checkpoint_minutes`.

    Args:
      session: see `Session`.
      state, progress: state and progress before the first of these steps.

    Returns:
      State and progress after the last step.

    Raises:
      Interrupted: if a signal stopped the run; all progress is saved.
      NonFiniteLossError: if the loss became NaN or infinite.
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
            if stop.poll(done) is not None:
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
    if (signal_number := stop.poll(done)) is not None:
        if done > saved:
            save(session, state, now())
        wait_until_saved(session)
        raise Interrupted(signal_number)
    return state, now()


def evaluate_save_and_log(
    session: Session, state: TrainState, progress: Sequence[Progress], first: int, started: float
) -> tuple[TrainState, list[Progress]]:
    """Ends an epoch: evaluates each run, saves it with its metrics, and logs the metrics.

    Args:
      session: see `Session`.
      state, progress: state and progress after the epoch's steps.
      first: steps of the epoch that were completed before `started`.
      started: `time.perf_counter()` before the first step.

    Returns:
      State and progress at the start of the next epoch.

    Raises:
      Interrupted: if a signal stopped the run; all progress is saved.
    """
    config, seconds_of_steps = session.configs[0], time.perf_counter() - started
    try:
        with session.stop.raise_immediately():
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
        Progress(epoch, 0, [*each.history, record]) for each, record in zip(progress, records, strict=True)
    ]
    zeros = stack_runs([zero_totals(term_names(config.model.name))] * len(progress))
    state = state.replace(totals=replicate(zeros, session.devices))
    save(session, state, progress)
    for epoch_log, record in zip(session.epoch_logs, records, strict=True):
        epoch_log.write(record)
    log.info(logs.row(logs.mean(records), config, seconds * (config.num_epochs - epoch)))
    if session.profiler is not None:
        log.info(session.profiler.summarize_epoch(num_images, seconds))
    return state, progress


def evaluate_runs(session: Session, state: TrainState) -> list[dict[str, float]]:
    """Metrics of each run's current model, by name."""
    return [session.evaluate(each) for each in split_runs(state.evaluation_variables, len(session.configs))]


def save(session: Session, state: TrainState, progress: Sequence[Progress]) -> None:
    """Saves each run in the background, in the first process."""
    if not processes.is_first():
        return
    states = split_runs(jax.device_get(state), len(progress))
    for checkpoints, one, position in zip(session.checkpoints, states, progress, strict=True):
        checkpoints.save(one, position)


def wait_until_saved(session: Session) -> None:
    """Waits until all checkpoints are on disk."""
    for checkpoints in session.checkpoints:
        checkpoints.wait()


def check_finite(loss: Float[Array, "*runs"] | None, session: Session, epoch: int, number: int) -> None:
    """Waits for the loss of a step and checks that it is finite.

    Args:
      loss: loss of each run; None before the first step.
      session: see `Session`.
      epoch: number of the epoch, from 0.
      number: number of the step in the epoch, from 1.

    Raises:
      NonFiniteLossError: if a loss is NaN or infinite.
    """
    if loss is None or np.isfinite(losses := np.atleast_1d(loss)).all():
        return
    run = int(np.argmin(np.isfinite(losses)))
    of = f"of seed {session.configs[run].seed} " if len(session.configs) > 1 else ""
    raise NonFiniteLossError(
        f"the loss {of}became {losses[run]} in epoch {epoch + 1}, batch {number}; the newest checkpoint "
        "is from an earlier step. Try a lower config.optimizer.learning_rate first; --debug-nans finds the "
        "operation"
    )
