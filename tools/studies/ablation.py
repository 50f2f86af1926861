"""Measures how much lens physics improves a classifier: one small ResNet on different inputs."""

import dataclasses
import json
import logging
import sys
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from ml_collections import ConfigDict
from scipy import stats

from lensjax import models, simulation, workdir
from lensjax.cli import options, runner
from lensjax.cli.flags import Flag, comma_list, integer, parse_flags, usage
from lensjax.config import check_choice
from lensjax.data.images import CLASSES, ImageSet
from lensjax.data.source import load_splits
from lensjax.data.splits import Splits
from lensjax.errors import UserError
from lensjax.evaluation.metrics import classification_metrics
from lensjax.json_text import encode_json
from lensjax.prediction.predictor import make_evaluator, make_predictor
from lensjax.prediction.trained_model import load_trained_model
from lensjax.runtime.progress import format_duration, log
from lensjax.training import loop
from lensjax.training.parallel import AXIS

FIT: dict[str, Any] = {"data.fit": "common_test"}  # replaced by the model of --source
ENCODER = {"model.name": "lens_encoder_net", "model.input": "image", "loss.physics_weight": 1.0}
INPUTS: dict[str, dict[str, Any]] = {
    "image": {"model.input": "image"},
    "reference": {"model.input": "image_and_reference_source"},
    "residual": FIT | {"model.input": "residual"},
    "both": FIT | {"model.input": "image_and_residual"},
    "other": FIT | {"model.input": "image_and_residual"},
    "encoder": ENCODER,
    "gauss_newton": ENCODER | {"model.gauss_newton_steps": 3},
}
TITLES = {
    "image": "image",
    "reference": "image and reference source",
    "residual": "residual",
    "both": "image and residual",
    "other": "image and shuffled residual",
    "encoder": "end-to-end encoder",
    "gauss_newton": "encoder and 3 Gauss-Newton steps",
}
EPOCHS = {300: 30, 3_000: 12, 30_000: 5}
SOURCES = ("common_test", "model_1", "model_2", "model_3")
VALIDATION = 600
RESULTS = "results.jsonl"


FLAGS = {
    "output": Flag("FOLDER", f"Folder of the runs and of {RESULTS}; rerun the same command to resume."),
    "source": Flag(
        "PRESET",
        "Preset of the images and lens model: common_test (default), model_1, model_2 or model_3.",
        default="common_test",
    ),
    "sizes": comma_list("Numbers of training images; 300,3000 if not given.", ["300", "3000"], value="N,.."),
    "inputs": comma_list(
        "Inputs to compare, see below; all but gauss_newton if not given.", list(INPUTS)[:-1]
    ),
    "seeds": integer("Seeds per input and size; 3 if not given.", 3, 1),
    "epochs": comma_list(
        "Epochs for each size; if not given, 30 for 300 images, 12 for 3,000 and 5 for 30,000.",
        None,
        value="N,..",
    ),
    "test": integer("Test images; 7,500 if not given.", 7_500, 3),
    "figure": Flag("FILE", "Plot the learning curves."),
}
USAGE = usage(
    "Measures how much lens physics improves a classifier: one small ResNet on different inputs.",
    ["python tools/studies/ablation.py --output runs/ablation"],
    FLAGS,
    "Inputs:",
    {
        "image": "The image.",
        "reference": "The image and the theta_S of the reference models.",
        "residual": "The residual of the lens fit.",
        "both": "The image and the residual.",
        "other": "The image and the residual of another image, as a control.",
        "encoder": "The image and the residual of a lens predicted by an encoder, trained end to end.",
        "gauss_newton": "The same, refined by three Gauss-Newton steps.",
    },
    "Prints a table of all runs with these sizes and epochs: mean test AUC of the best epoch according to "
    "the validation images, accuracy, and 95 % intervals over seeds (Student's t). Images are simulated and "
    "lenses are fitted once.",
)


def main(arguments: Sequence[str]) -> None:
    """Trains the missing runs and prints the table.

    Raises:
      UserError: if a flag is invalid.
    """
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments, required=("output",)))
    for name in values.inputs:
        if name not in INPUTS:
            raise UserError(f"--inputs {name}: expected one of {', '.join(INPUTS)}")
    check_choice("--source", values.source, SOURCES)
    if values.source != SOURCES[0] and {"encoder", "gauss_newton"} & set(values.inputs):
        raise UserError(f"the encoder describes lenses of {SOURCES[0]} only; choose other --inputs")
    sizes = _numbers("sizes", values.sizes)
    epochs = dict(zip(sizes, _numbers("epochs", values.epochs), strict=False)) or EPOCHS
    for size in sizes:
        if size not in epochs:
            raise UserError(f"--epochs has no value for {size} images; give one per size")
    output = Path(values.output).expanduser()
    output.mkdir(parents=True, exist_ok=True)

    done = read_results(output)
    missing = [
        (size, seed, name)
        for size in sizes
        for seed in range(values.seeds)
        for name in values.inputs
        if not any(_key(result) == (values.source, name, size, seed, epochs[size]) for result in done)
    ]
    if missing:
        splits = load_images(values.source, max(sizes), values.test)
        for number, (size, seed, name) in enumerate(missing, 1):
            log.info("%d of %d: %s, %s images, seed %d", number, len(missing), name, size, seed)
            config = config_of(values.source, name, size, seed, epochs[size])
            result = {"source": values.source, "input": name, **measure(config, name, splits, output)}
            with (output / RESULTS).open("a", encoding="utf-8") as file:
                file.write(encode_json(result) + "\n")
            log.info("test AUC %.4f in %s\n", result["auc"], format_duration(result["seconds"]))
    results = [
        result
        for result in read_results(output)
        if _key(result)[0] == values.source
        and result["size"] in sizes
        and result["epochs"] == epochs[result["size"]]
    ]
    log.info("%s", table(results))
    if values.figure:
        plot(results, Path(values.figure))


def recipe(source: str) -> ConfigDict:
    """Config of the lens-fit experiment on images of a preset."""
    file = Path(__file__).parent.parent.parent / "configs" / "lens_fit.py"
    config = options.load_config(str(file))
    config.data.source = f"simulated:{source}"
    config.data.image_size = simulation.preset(source).instrument.image_size
    config.preparation.crop = min(config.preparation.crop, config.data.image_size)
    config.data.fit = source
    config.data.num_validation = VALIDATION
    return config


def load_images(source: str, num_train: int, num_test: int) -> Splits:
    """Loads the images of all splits with their lens fits."""
    config = recipe(source)
    config.data.num_train = num_train
    config.data.num_test = num_test
    return load_splits(config.data)


def measure(config: ConfigDict, name: str, splits: Splits, output: Path) -> dict[str, Any]:
    """Trains on one input and evaluates the best epoch on the test images."""
    size, epochs, seed = config.data.num_train, config.num_epochs, config.seed
    prepared = {
        field.name: with_input(name, getattr(splits, field.name), seed)
        for field in dataclasses.fields(splits)
    }
    train = first_of_each_class(prepared["train"], size)
    folder = output / f"{name}-{size}-{epochs}-{seed}"
    workdir.claim(folder, config)
    devices = jax.local_devices()
    model = models.build(config, axis_name=AXIS)
    predict = make_predictor(config, model, devices=devices, with_loss=True)
    validate = make_evaluator(predict, prepared["validation"])
    started = time.perf_counter()
    log.setLevel(logging.WARNING)  # hide the progress of each run
    try:
        (progress,) = loop.train({folder: config}, model, train, validate, devices=devices)
    finally:
        log.setLevel(logging.INFO)
    seconds = time.perf_counter() - started
    trained = load_trained_model(folder, devices=devices)
    test = prepared["test"]
    answers = predict(trained.variables, test)
    return {
        "size": size,
        "seed": seed,
        "epochs": epochs,
        "best_epoch": trained.best_epoch,
        "test_images": len(test),
        "seconds": seconds,
        **classification_metrics(test.labels, answers.probabilities),
        "validation_auc": [record["validation_auc"] for record in progress.history],
    }


def config_of(source: str, name: str, size: int, seed: int, epochs: int) -> ConfigDict:
    """Config of a run."""
    config = recipe(source)
    config.update_from_flattened_dict(INPUTS[name])
    config.data.fit = source if "data.fit" in INPUTS[name] else "none"
    config.data.num_train = size
    config.seed = seed
    config.num_epochs = epochs
    return config.lock()


def with_input(name: str, image_set: ImageSet, seed: int) -> ImageSet:
    """Image set with the residuals of an input: its own, those of other images, or none."""
    if name == "other":
        assert image_set.residuals is not None  # for the type checker
        order = np.random.default_rng([seed, 1]).permutation(len(image_set))
        return dataclasses.replace(image_set, residuals=image_set.residuals[order])
    if INPUTS[name].get("data.fit"):
        return image_set
    return dataclasses.replace(image_set, residuals=None, fit=None)


def first_of_each_class(image_set: ImageSet, size: int) -> ImageSet:
    """First images of each class, in equal numbers, `size` in total."""
    rows = [np.flatnonzero(image_set.labels == label) for label in range(len(CLASSES))]
    return image_set.subset(np.sort(np.concatenate([row[: size // len(CLASSES)] for row in rows])))


def read_results(output: Path) -> list[dict[str, Any]]:
    """Reads the results so far."""
    file = output / RESULTS
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def groups(results: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """Results by number of training images and input, in the order of `INPUTS`."""
    found: dict[tuple[int, str], list[Any]] = {}
    for size in sorted({result["size"] for result in results}):
        for name in INPUTS:
            same = [r for r in results if (r["size"], r["input"]) == (size, name)]
            if same:
                found[size, name] = same
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half-width of its 95 % interval; the half-width of a single value is NaN."""
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(np.mean(values)), float(half)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of the results."""
    lines = [
        "| training images | input | seeds | no | sphere | vort | mean | accuracy |",
        "|---|---|" + "---|" * 6,
    ]
    for (size, name), same in groups(results).items():
        columns = []
        for metric in (*(f"auc_{label}" for label in CLASSES), "auc", "accuracy"):
            mean, half = interval([result[metric] for result in same])
            columns.append(f"{mean:.4f}" + ("" if np.isnan(half) else f" ± {half:.4f}"))
        head = [f"{size:,}", TITLES[name], str(len(same))]
        lines.append("| " + " | ".join([*head, *columns]) + " |")
    return "\n".join(lines)


def plot(results: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Plots validation AUC against epoch, one panel per size, and test AUC against the number of images."""
    found = groups(results)
    sizes = sorted({size for size, _ in found})
    colors = {name: f"C{index}" for index, name in enumerate(INPUTS)}
    figure, axes = plt.subplots(
        1, len(sizes) + 1, figsize=(4.2 * (len(sizes) + 1), 4), layout="constrained", sharey=True
    )
    for axis, size in zip(axes, sizes, strict=False):
        for name in INPUTS:
            curves = [result["validation_auc"] for result in found.get((size, name), [])]
            for curve in curves:
                axis.plot(range(1, len(curve) + 1), curve, color=colors[name], lw=1, alpha=0.7)
        axis.set(title=f"{size:,} training images", xlabel="epoch")
    last = axes[-1]
    for name in INPUTS:
        points = [
            (size, interval([r["auc"] for r in found[size, name]])) for size in sizes if (size, name) in found
        ]
        if points:
            where = [size for size, _ in points]
            means = [mean for _, (mean, _) in points]
            halves = np.nan_to_num([half for _, (_, half) in points])
            last.errorbar(where, means, halves, marker="o", color=colors[name], label=TITLES[name])
    last.set(title="best epoch, test images", xlabel="training images", xscale="log")
    last.set_xticks(sizes, [f"{size:,}" for size in sizes])
    last.minorticks_off()
    last.legend(fontsize=8, loc="center left", bbox_to_anchor=(0, 0.68))
    axes[0].set_ylabel("AUC, mean of the classes")
    for axis in axes:
        axis.grid(alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _key(result: Mapping[str, Any]) -> tuple[Any, ...]:
    source = result.get("source", SOURCES[0])
    return (source, *(result[name] for name in ("input", "size", "seed", "epochs")))


def _numbers(flag: str, words: Sequence[str] | None) -> list[int]:
    try:
        return [int(word) for word in words or []]
    except ValueError as error:
        raise UserError(f"--{flag} {','.join(words or [])}: expected integers") from error


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="ablation"))
