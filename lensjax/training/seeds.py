"""Training with several seeds: one after another, or side by side in one program.

Each seed is an ordinary run with its own folder, and gives the same results as a single run with that seed.
Training side by side is for devices that one run does not keep busy. On CPUs, seeds are trained one after
another: side by side, convolutions become grouped convolutions, and on two cores the steps of two ResNet18
models on images of 150 x 150 pixels take about three times as long as one after another.
"""

import contextlib
import gc
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from lensjax import workdir as folders
from lensjax.data.splits import TrainingImages
from lensjax.data.streamed import StreamedImages
from lensjax.errors import NonFiniteLossError, UserError
from lensjax.models import ClassifierModule
from lensjax.runtime.progress import log
from lensjax.training import loop, processes
from lensjax.training.checkpoints import Checkpoints
from lensjax.training.profiler import Profiler
from lensjax.workdir import CHECKPOINTS


def train(
    config: ConfigDict,
    model: ClassifierModule,
    images: TrainingImages,
    evaluate: loop.Evaluator,
    workdir: Path,
    *,
    devices: Sequence[jax.Device],
    profiler: Profiler | None = None,
) -> None:
    """Trains a model with each of `config.seeds` seeds; resumes unfinished runs.

    Args:
      config: the full config.
      workdir: the folder of all runs, claimed and locked; `workdir.list_runs` gives the folder of each run.
      model, images, evaluate, devices: see `loop.train`.
      profiler: optional profiler of a single run.

    Raises:
      Interrupted: if a signal stopped the run; all progress is saved.
      NonFiniteLossError: if the loss of a seed became NaN or infinite.
      UserError: see `loop.train`; or if another process uses one of the folders.
    """
    runs = folders.list_runs(workdir, config)
    if config.seeds == 1:
        loop.train(runs, model, images, evaluate, devices=devices, profiler=profiler)
        return
    group_size = max_group_size(config, images, devices)
    with contextlib.ExitStack() as stack:
        for folder, one in runs.items() if processes.is_first() else ():
            stack.enter_context(folders.hold(folder, one))
        positions = {folder: _newest_position(folder, devices) for folder in runs}
        unfinished = [folder for folder in runs if positions[folder][0] < config.num_epochs]
        while unfinished:
            # Runs can only be trained side by side from the same position.
            same = [folder for folder in unfinished if positions[folder] == positions[unfinished[0]]]
            group = {folder: runs[folder] for folder in same[:group_size]}
            seeds = ", ".join(str(each.seed) for each in group.values())
            word = "seeds" if len(group) > 1 else "seed"
            log.info("%s %s; %d of %d done", word, seeds, len(runs) - len(unfinished), len(runs))
            if _train_group(group, model, images, evaluate, devices):
                unfinished = [folder for folder in unfinished if folder not in group]
            else:
                gc.collect()  # frees the device's memory
                group_size = (len(group) + 1) // 2
                log.info("out of device memory; training %d at a time", group_size)
                positions |= {folder: _newest_position(folder, devices) for folder in group}


def max_group_size(config: ConfigDict, images: TrainingImages, devices: Sequence[jax.Device]) -> int:
    """Number of seeds to train side by side if memory suffices.

    Args:
      config: the full config.
      images: the training images.
      devices: the devices to train on.

    Raises:
      UserError: if `config.seeds_at_once` is above 1 and the images stay on disk.
    """
    if isinstance(images, StreamedImages):
        if config.seeds_at_once > 1:
            raise UserError(
                f"config.seeds_at_once={config.seeds_at_once}: images on disk are read for one seed at a "
                "time; use config.seeds_at_once=1 or config.data.residence='host'"
            )
        return 1
    if config.seeds_at_once:
        return min(config.seeds_at_once, config.seeds)
    return 1 if devices[0].platform == "cpu" else config.seeds


def _newest_position(folder: Path, devices: Sequence[jax.Device]) -> tuple[int, int]:
    """Epochs and steps at the newest checkpoint; epoch -1 if there is no checkpoint."""
    with Checkpoints(folder / CHECKPOINTS, devices) as checkpoints:
        return checkpoints.newest_position() or (-1, 0)


def _train_group(
    runs: Mapping[Path, ConfigDict],
    model: ClassifierModule,
    images: TrainingImages,
    evaluate: loop.Evaluator,
    devices: Sequence[jax.Device],
) -> bool:
    """Trains runs to the end; returns False if they do not fit in the device's memory together."""
    try:
        loop.train(runs, model, images, evaluate, devices=devices)
    except NonFiniteLossError as error:
        if len(runs) > 1:
            raise
        ((_, config),) = runs.items()
        raise NonFiniteLossError(f"seed {config.seed}: {error}") from error
    except jax.errors.JaxRuntimeError as error:
        # Several processes cannot retry: the others would wait for this one.
        is_full = "RESOURCE_EXHAUSTED" in str(error) and len(runs) > 1
        if not is_full or processes.is_multiprocess(devices):
            raise
        return False
    return True
