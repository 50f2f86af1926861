"""The training loop.

Its order, epoch by epoch: steps, evaluation, checkpoint with the evaluation's metrics, log. A run that
is stopped at any point goes on from its newest checkpoint and ends with the same numbers.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from lensjax.console import log, progress
from lensjax.data.batches import batches, epoch_order
from lensjax.data.fresh import FreshImages
from lensjax.data.images import ImageSet
from lensjax.data.preparation import num_channels, prepare, prepared_size
from lensjax.errors import Interrupted, NonFiniteLossError
from lensjax.training import logs, optimizer
from lensjax.training.checkpoints import Checkpoints, Progress
from lensjax.training.interrupt import StopRequest, stop_requests
from lensjax.training.losses import term_names
from lensjax.training.parallel import AXIS, check_batch_size, parallel_train_step, replicated
from lensjax.training.pretrained import start_from
from lensjax.training.state import PyTree, TrainState, initial_state, zero_totals
from lensjax.training.step import train_step
from lensjax.workdir import CHECKPOINTS

Evaluator = Callable[[PyTree], dict[str, float]]


def train(
    config: ConfigDict,
    model: nn.Module,
    images: ImageSet | FreshImages,
    evaluate: Evaluator,
    workdir: Path,
    *,
    devices: Sequence[jax.Device],
) -> list[dict[str, Any]]:
    """Trains a model, from the start or from where an earlier run in `workdir` stopped.

    Args:
      config: the whole config of the run.
      model: the classifier, built for the mapped axis `parallel.AXIS`.
      images: what to train on.
      evaluate: gives named values of the model's variables after each epoch; one is
        `validation_auc`, which chooses the best epoch.
      workdir: the run's folder, claimed.
      devices: what to train on; each takes an equal share of a batch.

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
    adamw = optimizer.build(config.optimizer, max(config.num_epochs, 1) * num_batches)
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    size = prepared_size(config.data.image_size, config.preparation.crop)
    channels = num_channels(config.data.fit)
    state = initial_state(model, adamw, init_key, image_size=size, channels=channels, terms=terms)
    log.info("%s: %s parameters", config.model.name, f"{count_parameters(state.params):,}")
    step = parallel_train_step(
        functools.partial(
            train_step,
            model=model,
            optimizer=adamw,
            prepare=functools.partial(prepare, **config.preparation),
            max_rotation=config.augmentation.max_rotation,
            dihedral=config.augmentation.dihedral,
            physics_weight=config.loss.physics_weight,
            axis_name=AXIS,
        ),
        devices,
    )
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints, stop_requests() as stop:
        restored = checkpoints.restore_newest(state)
        if restored is None:
            # Only now: a run that goes on needs the file no more.
            state = state.replace(**start_from(state.variables, config.model))
        state, where = restored or (state, Progress())
        state, step_key = replicated((state, step_key), devices)
        if config.num_epochs == 0 and restored is None:
            metrics = evaluate(state.variables)
            log.info("as it is: validation AUC %.4f", metrics["validation_auc"])
            checkpoints.save(state, where, metrics)
        if 0 < len(where.history) < config.num_epochs or where.steps_in_epoch:
            log.info("going on after epoch %d, step %d", where.epoch, where.steps_in_epoch)
        with logs.EpochLog(workdir, where.history) as epoch_log:
            log.info(logs.header(terms))
            for record in where.history:
                log.info(logs.row(record, terms, config.num_epochs, 0))
            while where.epoch < config.num_epochs:
                started = time.perf_counter()
                state, steps = run_epoch(state, step, images, step_key, config, where, stop)
                if steps < num_batches:
                    if steps > where.steps_in_epoch:
                        where = dataclasses.replace(where, steps_in_epoch=steps)
                        checkpoints.save(state, where, None)
                        checkpoints.wait()
                    raise Interrupted(stop.signal_number or 0)
                trained = time.perf_counter() - started
                num_images = len(images) - where.steps_in_epoch * config.batch_size
                metrics = epoch_means(state.totals) | evaluate(state.variables)
                seconds = time.perf_counter() - started
                record = {"epoch": where.epoch + 1, **metrics}
                record |= {"images_per_second": num_images / trained, "seconds": seconds}
                state = state.replace(totals=replicated(zero_totals(terms), devices))
                where = Progress(where.epoch + 1, 0, [*where.history, record])
                checkpoints.save(state, where, metrics)
                epoch_log.write(record)
                left = seconds * (config.num_epochs - where.epoch)
                log.info(logs.row(record, terms, config.num_epochs, left))
    return where.history


def run_epoch(
    state: TrainState,
    step: Callable[..., Any],
    images: ImageSet | FreshImages,
    key: Key[Array, ""],
    config: ConfigDict,
    where: Progress,
    stop: StopRequest,
) -> tuple[TrainState, int]:
    """The steps of one epoch, or of what is left of it.

    Args:
      state: the state to go on from; used up.
      step: the mapped training step.
      images: what to train on.
      key: the run's key for steps.
      config: the whole config of the run.
      where: which epoch, and how many of its steps are done.
      stop: looked at before each step; once it asks to stop, no further step is done.

    Returns:
      The new state, and how many of the epoch's steps are done.

    Raises:
      NonFiniteLossError: the loss became NaN or infinite.
    """
    done = where.steps_in_epoch
    bar = progress(
        len(images),
        f"epoch {where.epoch + 1}/{config.num_epochs}",
        initial=done * config.batch_size,
    )
    pending: dict[str, Any] | None = None
    with bar:
        for batch, size in epoch_batches(images, config, where):
            if stop.signal_number is not None:
                break
            state, metrics = step(state, batch, key)
            # Only now, with this step under way, is the one before it waited for.
            check_finite(pending, where.epoch, done)
            pending = metrics
            done += 1
            bar.update(size)
        check_finite(pending, where.epoch, done)
    return state, done


def epoch_batches(
    images: ImageSet | FreshImages, config: ConfigDict, where: Progress
) -> Iterator[tuple[Any, int]]:
    """The batches of what is left of an epoch, each with the number of its images.

    Args:
      images: what to train on.
      config: the whole config of the run.
      where: which epoch, and how many of its steps are done.
    """
    size, done = config.batch_size, where.steps_in_epoch
    if isinstance(images, FreshImages):
        per_epoch = math.ceil(len(images) / size)
        for index in range(done, per_epoch):
            yield images.batch(where.epoch * per_epoch + index, size), size
        return
    order = epoch_order(config.seed, where.epoch, len(images))
    for batch in batches(images, order, size, start=done):
        yield batch, int(batch["weights"].sum())


def check_finite(metrics: dict[str, Any] | None, epoch: int, batch: int) -> None:
    """Waits for a step's loss and refuses one that is not a number.

    Args:
      metrics: what the step gave; None before the first one.
      epoch: whole epochs done.
      batch: the step's number in its epoch, from 1.

    Raises:
      NonFiniteLossError: the loss is NaN or infinite.
    """
    if metrics is None:
        return
    loss = float(metrics["loss"])
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"the loss became {loss} in epoch {epoch + 1}, batch {batch}; the newest checkpoint is from "
            "before it. A lower config.optimizer.learning_rate is the first thing to try"
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
