"""The same run from several seeds: one after another, or side by side in one program.

Each seed has its own folder, which is that of an ordinary run, and sees what it would see alone. Side by
side is for devices that one run does not keep busy. On CPUs, seeds are trained one after another: side by
side, convolutions become grouped ones, and on two cores steps of two ResNet18 on 150 x 150 pixels take
about three times as long as one after another.
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
from lensjax.training.meter import Meter
from lensjax.workdir import CHECKPOINTS


def train(
    config: ConfigDict,
    model: ClassifierModule,
    images: TrainingImages,
    evaluate: loop.Evaluator,
    workdir: Path,
    *,
    devices: Sequence[jax.Device],
    meter: Meter | None = None,
) -> None:
    """Trains a model from each of `config.seeds` seeds, or resumes where an earlier command stopped.

    Args:
      config: the whole config.
      workdir: the folder of the whole, claimed and locked; that of each run is in
        `workdir.runs_of(workdir, config)`.
      model, images, evaluate, devices: see `loop.train`.
      meter: optional profiler of a single run.

    Raises:
      Interrupted: a signal asked to stop; all progress is saved.
      NonFiniteLossError: the loss of a seed became NaN or infinite.
      UserError: see `loop.train`; or another process uses one of the folders.
    """
    runs = folders.runs_of(workdir, config)
    if config.seeds == 1:
        loop.train(runs, model, images, evaluate, devices=devices, meter=meter)
        return
    at_once = seeds_at_once(config, images, devices)
    with contextlib.ExitStack() as stack:
        for folder, one in runs.items() if processes.is_first() else ():
            folders.claim(folder, one)
            stack.enter_context(folders.locked(folder))
        places = {folder: _place(folder, devices) for folder in runs}
        left = [folder for folder in runs if places[folder][0] < config.num_epochs]
        while left:
            same = [folder for folder in left if places[folder] == places[left[0]]]
            group = {folder: runs[folder] for folder in same[:at_once]}
            seeds = ", ".join(str(each.seed) for each in group.values())
            word = "seeds" if len(group) > 1 else "seed"
            log.info("%s %s; %d of %d are done", word, seeds, len(runs) - len(left), len(runs))
            if _train_group(group, model, images, evaluate, devices):
                left = [folder for folder in left if folder not in group]
            else:
                gc.collect()  # frees the device's memory
                at_once = (len(group) + 1) // 2
                log.info("they do not fit into the device's memory: %d at once", at_once)
                places |= {folder: _place(folder, devices) for folder in group}


def seeds_at_once(config: ConfigDict, images: TrainingImages, devices: Sequence[jax.Device]) -> int:
    """How many seeds are trained side by side, if they fit.

    Args:
      config: the whole config.
      images: the training images.
      devices: the devices to train on.

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


def _place(folder: Path, devices: Sequence[jax.Device]) -> tuple[int, int]:
    """Epochs and steps done at the newest checkpoint; epoch -1 before the first one."""
    with Checkpoints(folder / CHECKPOINTS, devices) as checkpoints:
        return checkpoints.newest_place() or (-1, 0)


def _train_group(
    runs: Mapping[Path, ConfigDict],
    model: ClassifierModule,
    images: TrainingImages,
    evaluate: loop.Evaluator,
    devices: Sequence[jax.Device],
) -> bool:
    """Trains some runs to their ends; false if the memory does not suffice for so many."""
    try:
        loop.train(runs, model, images, evaluate, devices=devices)
    except NonFiniteLossError as error:
        if len(runs) > 1:
            raise
        ((_, config),) = runs.items()
        raise NonFiniteLossError(f"seed {config.seed}: {error}") from error
    except jax.errors.JaxRuntimeError as error:
        # With several processes, the others would wait for this one.
        is_full = "RESOURCE_EXHAUSTED" in str(error) and len(runs) > 1
        if not is_full or processes.are_several(devices):
            raise
        return False
    return True
