"""The commands train, evaluate, predict and compare."""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from lensjax import models, workdir
from lensjax.cli.options import Options
from lensjax.data.image_record import check_images
from lensjax.data.source import load_split, load_splits
from lensjax.data.splits import Splits
from lensjax.errors import UserError
from lensjax.prediction import tta
from lensjax.prediction.predictor import make_evaluator, make_predictor
from lensjax.prediction.trained_model import TrainedModel, load_trained_model
from lensjax.runtime.progress import log
from lensjax.training import processes, seeds
from lensjax.training.parallel import AXIS
from lensjax.training.profiler import Profiler

# Modules that import Matplotlib or scikit-learn are imported only when needed: training starts sooner.


def train(options: Options, devices: Sequence[jax.Device]) -> int:
    """Trains a model or resumes its training, and reports on the test images."""
    config = options.config if options.config is not None else workdir.read_config(options.workdir)
    if options.debug_nans:
        jax.config.update("jax_debug_nans", True)
    if options.profile and config.seeds > 1:
        raise UserError(f"--profile: measures one run; set config.seeds=1 (it is {config.seeds})")
    first = processes.is_first()
    with workdir.hold(options.workdir, config) if first else contextlib.nullcontext():
        accept = functools.partial(check_images, options.workdir, config.data.source) if first else None
        splits = load_splits(config.data, accept)
        model = models.build(config, axis_name=AXIS)
        profiler = None
        if options.profile:
            profiler = Profiler(config, options.workdir, devices[0], len(devices))
        predict = make_predictor(config, model, devices=devices, with_loss=True, profiler=profiler)
        seeds.train(
            config,
            model,
            splits.train,
            make_evaluator(predict, splits.validation),
            options.workdir,
            devices=devices,
            profiler=profiler,
        )
        if first:
            report(options, config, splits, processes.local_devices(devices))
    return 0


def report(options: Options, config: ConfigDict, splits: Splits, devices: Sequence[jax.Device]) -> None:
    """Calibrates each run on the validation images, and reports on the test images."""
    from lensjax.report.assessment import calibrate_run, evaluate_run
    from lensjax.report.seeds import evaluate_seeds

    runs = load_runs(options.workdir, config, devices)
    for run in runs:
        calibrate_run(run, splits.validation)
        log_report(run.workdir, evaluate_run(run, splits.test, split="test"))
    if len(runs) > 1:
        log_report(options.workdir, evaluate_seeds(options.workdir, runs, splits.test, split="test"))


def evaluate(options: Options, devices: Sequence[jax.Device]) -> int:
    """Evaluates the best epoch of each run on one split."""
    from lensjax.report.assessment import evaluate_run
    from lensjax.report.seeds import evaluate_seeds

    config = workdir.read_config(options.workdir)
    if options.tta == "d4":
        tta.check(config, options.workdir)
    runs = load_runs(options.workdir, config, devices)
    _set_source(runs, options.source)
    images = load_split(runs[0].config.data, options.split)
    if len(runs) > 1:
        table = evaluate_seeds(options.workdir, runs, images, split=options.split, tta=options.tta)
    else:
        table = evaluate_run(runs[0], images, split=options.split, tta=options.tta)
    log_report(options.workdir, table)
    return 0


def load_runs(folder: Path, config: ConfigDict, devices: Sequence[jax.Device]) -> list[TrainedModel]:
    """Loads the best epoch of each seed's run."""
    return [load_trained_model(each, devices=devices) for each in workdir.list_runs(folder, config)]


def _set_source(runs: Sequence[TrainedModel], source: str | None) -> None:
    """Changes the source of the images if the data set has moved; reports then name the new one."""
    for run in runs if source is not None else ():
        run.config.data.source = source


def log_report(folder: Path, table: str) -> None:
    """Logs the table of a report, and the contents of the run's folder."""
    log.info("\n%s\n\n%s", table, workdir.describe(folder))


def predict(options: Options, devices: Sequence[jax.Device]) -> int:
    """Classifies image files; the exit code is 1 if some images could not be classified."""
    from lensjax.prediction.classifier import load_classifier
    from lensjax.prediction.files import predict_files

    classifier = load_classifier(options.workdir, devices=devices)
    if options.psf:
        from lensjax.cli.predict_lenses import predict_lenses

        return _log_predictions(options, *predict_lenses(options, classifier))
    num_good, num_bad = predict_files(
        classifier,
        str(options.input),
        options.output,
        crop=options.crop,
        pixel_scale=options.pixel_scale,
        extension=options.extension,
        overwrite=options.overwrite,
        calibrated=options.calibrated,
        tta=options.tta,
    )
    return _log_predictions(options, num_good, num_bad)


def _log_predictions(options: Options, num_good: int, num_bad: int) -> int:
    """Reports the numbers of images; returns the exit code."""
    log.info("%s: %s images classified", options.output, f"{num_good:,}")
    if num_bad:
        log.info("%s images failed; the column 'error' gives the reasons", f"{num_bad:,}")
    return 1 if num_bad else 0


def compare(options: Options, devices: Sequence[jax.Device]) -> int:
    """Compares the best epochs of runs on the same images."""
    from lensjax.report import comparison

    runs = [load_trained_model(folder, devices=devices) for folder in options.workdirs]
    _set_source(runs, options.source)
    table = comparison.compare_runs(
        runs, options.output, split=options.split, d4=options.tta == "d4", overwrite=options.overwrite
    )
    log.info("\n%s\n\n%s/: comparison.json, roc.png, roc.pdf", table, options.output)
    return 0
