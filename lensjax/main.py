"""Trains, evaluates and predicts: `python -m lensjax.main --config configs/pinn.py`."""

import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from lensjax import models, workdir
from lensjax.cli import runner
from lensjax.cli.options import USAGE, Options, parse
from lensjax.data.source import load_split, load_splits
from lensjax.data.splits import Splits
from lensjax.errors import UserError
from lensjax.prediction import tta
from lensjax.prediction.predictor import evaluator, predictor
from lensjax.prediction.trained import Trained, load_trained
from lensjax.runtime.progress import log
from lensjax.training import processes, seeds
from lensjax.training.meter import Meter
from lensjax.training.parallel import AXIS

# Figures and statistics are imported by what needs them: a run gets to its first step a second earlier.


def main(arguments: Sequence[str]) -> int:
    """Does what a command asks for.

    Args:
      arguments: the words after the program's name.

    Returns:
      The exit code.

    Raises:
      UserError: something in the command, the config or the files is wrong.
    """
    options = parse(arguments)
    if options.distributed:
        processes.join(options.coordinator, options.num_processes, options.process_id)
        log.setLevel(logging.INFO if processes.is_first() else logging.WARNING)
    devices = processes.all_devices()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    log.info("lensjax on %d %s device(s): %s", len(devices), devices[0].platform, kinds)
    if options.mode != "train" and options.config is not None:
        workdir.check_same_config(options.workdir, options.config)
    modes = {"train": train, "evaluate": evaluate, "predict": predict, "compare": compare_runs}
    return modes[options.mode](options, devices)


def train(options: Options, devices: Sequence[jax.Device]) -> int:
    """Trains a model, or goes on with it, and reports on the test images."""
    config = options.config if options.config is not None else workdir.read_config(options.workdir)
    if options.debug_nans:
        jax.config.update("jax_debug_nans", True)
    if options.profile and config.seeds > 1:
        raise UserError(
            f"--profile measures one run; config.seeds={config.seeds} is to be 1 for it"
        )
    first = processes.is_first()
    if first:
        workdir.claim(options.workdir, config)
    with workdir.locked(options.workdir) if first else contextlib.nullcontext():
        splits = load_splits(config.data)
        model = models.build(config, axis_name=AXIS)
        meter = (
            Meter(config, options.workdir, devices[0], len(devices)) if options.profile else None
        )
        answers = predictor(config, model, devices=devices, with_loss=True, meter=meter)
        validate = evaluator(answers, splits.validation)
        seeds.train(
            config, model, splits.train, validate, options.workdir, devices=devices, meter=meter
        )
        if first:
            report(options, config, splits, processes.own(devices))
    return 0


def report(
    options: Options, config: ConfigDict, splits: Splits, devices: Sequence[jax.Device]
) -> None:
    """Calibrates what was trained on the validation images, and reports on the test images."""
    from lensjax.report.assessment import assess, calibrate
    from lensjax.report.seeds import assess_seeds

    runs = load_runs(options.workdir, config, devices)
    for run in runs:
        calibrate(run, splits.validation)
        tell(run.workdir, assess(run, splits.test, split="test"))
    if len(runs) > 1:
        tell(options.workdir, assess_seeds(options.workdir, runs, splits.test, split="test"))


def evaluate(options: Options, devices: Sequence[jax.Device]) -> int:
    """Reports on the best epoch of a run, or of each seed's, on the split asked for and no other."""
    from lensjax.report.assessment import assess
    from lensjax.report.seeds import assess_seeds

    config = workdir.read_config(options.workdir)
    if options.tta == "d4":
        tta.check(config, options.workdir)
    runs = load_runs(options.workdir, config, devices)
    images = load_split(config.data, options.split)
    how: Any = {"split": options.split, "tta": options.tta}
    if len(runs) > 1:
        table = assess_seeds(options.workdir, runs, images, **how)
    else:
        table = assess(runs[0], images, **how)
    tell(options.workdir, table)
    return 0


def load_runs(folder: Path, config: ConfigDict, devices: Sequence[jax.Device]) -> list[Trained]:
    """The best epoch of each seed that a config asks for."""
    return [load_trained(each, devices=devices) for each in workdir.runs_of(folder, config)]


def tell(folder: Path, table: str) -> None:
    """Says what is in a report and where the run lies."""
    log.info("\n%s\n\n%s", table, workdir.describe(folder))


def predict(options: Options, devices: Sequence[jax.Device]) -> int:
    """Classifies image files with the best epoch of a run; 1 where some images could not be."""
    from lensjax.prediction.classifier import load_classifier
    from lensjax.prediction.files import predict_files

    num_good, num_bad = predict_files(
        load_classifier(options.workdir, devices=devices),
        str(options.input),
        options.output,
        crop=options.crop,
        pixel_scale=options.pixel_scale,
        overwrite=options.overwrite,
        calibrated=options.calibrated,
        tta=options.tta,
    )
    log.info("%s: %s images classified", options.output, f"{num_good:,}")
    if num_bad:
        log.info("%s could not be; the column 'error' says why", f"{num_bad:,}")
    return 1 if num_bad else 0


def compare_runs(options: Options, devices: Sequence[jax.Device]) -> int:
    """Compares the best epochs of runs on the same images."""
    from lensjax.report.comparison import compare

    runs = [load_trained(folder, devices=devices) for folder in options.workdirs]
    table = compare(
        runs,
        options.output,
        split=options.split,
        d4=options.tta == "d4",
        overwrite=options.overwrite,
    )
    log.info("\n%s\n\n%s/: comparison.json, roc.png, roc.pdf", table, options.output)
    return 0


def run() -> int:
    """The console script `lensjax`."""
    code = runner.run(main, USAGE, name="lensjax")
    processes.leave(code)
    return code


if __name__ == "__main__":
    sys.exit(run())
