"""Measures how well classifiers work on kinds of simulated images that they were not trained on."""

import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from likelihood_ratio import aucs, fit_and_compare

import lensjax
from lensjax import fitting, simulation
from lensjax.cli import runner
from lensjax.cli.flags import Flag, comma_list, integer, parse_flags, random_seed, switch, usage
from lensjax.data.images import CLASSES, ImageSet
from lensjax.data.npy import min_max_scale
from lensjax.data.pixel_scale import run_pixel_scale
from lensjax.data.residuals import counts_per_unit
from lensjax.data.simulated import simulated_images
from lensjax.errors import UserError
from lensjax.evaluation.scores import percentile_intervals, resample_weights
from lensjax.json_text import encode_json
from lensjax.prediction.classifier import Classifier
from lensjax.prediction.readers.sizes import resample
from lensjax.runtime.progress import log

WORLDS = ("common_test", "varied", "model_1", "model_2", "model_3", "euclid_like", "hubble_like")
EVIDENCE = "evidence for common_test"
# Log-probabilities `[n, 3]`, and whether each image is in the domain; None if the method has no domain.
Answers = tuple[np.ndarray, np.ndarray | None]

FLAGS = {
    "models": comma_list(
        "Models of the package, folders of runs or model files; common_test if not given.", ["common_test"]
    ),
    "worlds": comma_list(f"Presets of the test images; {', '.join(WORLDS)} if not given.", list(WORLDS)),
    "images": integer("Test images per world, all classes together; 1,500 if not given.", 1_500, 6),
    "seed": random_seed("of the simulation", 1),
    "evidence": switch("Also classify by the evidence, with the lens model and the priors of common_test."),
    "output": Flag("FILE", "Write the results as JSON."),
}
USAGE = usage(
    "Measures how well classifiers work on kinds of simulated images that they were not trained on.",
    ["python tools/studies/sim_to_sim.py --models common_test,runs/varied --output sim_to_sim.json"],
    FLAGS,
    "Each classifier fits its own lens model. Images with another pixel scale are resampled, including those "
    "with larger pixels, which lensjax predict rejects. A field smaller than that of the classifier is "
    "padded with its edge pixels.",
    "Tables: mean one-vs-rest AUC, accuracy, and fraction of the images that have a class and are not marked "
    "as unlike the training images. An image without a class counts as wrong, and has equal probabilities in "
    "the AUC. Intervals contain the central 95 % of 1,000 bootstrap samples.",
)


def main(arguments: Sequence[str]) -> None:
    """Prints the tables.

    Raises:
      UserError: if a flag is invalid, a model does not exist, or the output already exists.
    """
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    output = None if values.output is None else Path(values.output).expanduser()
    if output is not None and output.exists():
        raise UserError(f"{output} already exists; move it or choose another file")
    presets = {world: simulation.preset(world) for world in values.worlds}
    methods: dict[str, Callable[[np.ndarray, float], Answers]] = {
        model: make_method(lensjax.load(model)) for model in values.models
    }
    if values.evidence:
        methods[EVIDENCE] = classify_by_evidence
    cells = []
    for world, preset in presets.items():
        camera = preset.instrument
        images = simulated_images(
            world, split="test", num_images=values.images, seed=values.seed, image_size=camera.image_size
        )
        for name, method in methods.items():
            started = time.perf_counter()
            answers = method(images.pixels, camera.pixel_scale)
            seconds = time.perf_counter() - started
            cells.append(
                {"method": name, "world": world, "seconds": seconds, **score(images.labels, *answers)}
            )
            log.info("%s on %s: AUC %.4f, %.0f s", name, world, cells[-1]["auc"], seconds)
            if output is not None:
                record = {"images": values.images, "seed": values.seed, "cells": cells}
                output.write_text(encode_json(record, indent=2) + "\n", encoding="utf-8")
    log.info("%s", table(cells))


def make_method(classifier: Classifier) -> Callable[[np.ndarray, float], Answers]:
    """Function that classifies images `[n, height, width]` with a pixel scale in arcsec."""
    config = classifier.trained.config

    def classify(pixels: np.ndarray, pixel_scale: float) -> Answers:
        images = match_camera(pixels, pixel_scale, config.data.image_size, run_pixel_scale(config.data))
        predictions = classifier.predict(images, bad="mark")
        equal = np.full(len(CLASSES), 1 / len(CLASSES))
        known = np.isfinite(predictions.probabilities).all(1, keepdims=True)
        probabilities = np.where(known, predictions.probabilities, equal)
        return np.log(np.maximum(probabilities, np.finfo(float).tiny)), predictions.in_domain

    return classify


def classify_by_evidence(pixels: np.ndarray, pixel_scale: float) -> Answers:
    """Classifies images `[n, height, width]` by the evidence, with the assumptions of common_test."""
    camera = simulation.preset("common_test").instrument
    images = match_camera(pixels, pixel_scale, camera.image_size, fitting.COMMON_TEST.pixel_scale)
    scaled = np.stack([min_max_scale(image) for image in images]).astype(np.float32)
    number = len(scaled)
    image_set = ImageSet(scaled, np.ones(number, np.float32), np.zeros(number, np.int32), ("",) * number)
    _, evidence, _ = fit_and_compare(image_set.images(), counts_per_unit(image_set))
    return np.asarray(evidence.log_ratios, np.float64), None


def match_camera(images: np.ndarray, pixel_scale: float, size: int, target_scale: float) -> np.ndarray:
    """Resamples, crops and pads images to another camera; unchanged if they are from that camera.

    Args:
      images: images `[n, height, width]` of square fields.
      pixel_scale, target_scale: pixel scales of the images and of the result, arcsec.
      size: height and width of the result, pixels.
    """
    zoom = pixel_scale / target_scale
    if zoom == 1 and images.shape[1] == size:
        return images
    covered = min(size, int(images.shape[1] * zoom + 1e-9))
    margin = -(-(size - covered) // 2)  # the same on both sides, so that the center stays in place
    resampled = np.stack([resample(image, zoom, size - 2 * margin) for image in images])
    return np.pad(resampled, ((0, 0), (margin, margin), (margin, margin)), mode="edge")


def score(labels: np.ndarray, log_probabilities: np.ndarray, in_domain: np.ndarray | None) -> dict[str, Any]:
    """AUC with interval, accuracy, and fraction of the images in the domain (None if the method has none)."""
    areas = aucs(labels, log_probabilities, np.ones((1, len(labels))))[0]
    draws = aucs(labels, log_probabilities, resample_weights(labels).astype(np.float64))
    ties = np.ptp(log_probabilities, axis=1) == 0
    correct = (log_probabilities.argmax(1) == labels) & ~ties
    return {
        **{f"auc_{name}": float(area) for name, area in zip(CLASSES, areas, strict=False)},
        "auc": float(areas[-1]),
        "auc_interval": percentile_intervals({"auc": draws[:, -1]})["auc"],
        "accuracy": float(correct.mean()),
        "no_class": float(ties.mean()),
        "in_domain": None if in_domain is None else float(in_domain.mean()),
        "accuracy_in_domain": None
        if in_domain is None or not in_domain.any()
        else float(correct[in_domain].mean()),
    }


def table(cells: Sequence[Mapping[str, Any]]) -> str:
    """Markdown tables: a row per method, a column per world."""
    worlds = list(dict.fromkeys(cell["world"] for cell in cells))
    lines = []
    for name, title in (
        ("auc", "mean AUC"),
        ("accuracy", "accuracy"),
        ("in_domain", "fraction in the domain"),
        ("accuracy_in_domain", "accuracy of the images in the domain"),
    ):
        lines += ["", f"| {title} | {' | '.join(worlds)} |", "|---|" + "---|" * len(worlds)]
        for method in dict.fromkeys(cell["method"] for cell in cells):
            found = [
                next(c for c in cells if (c["method"], c["world"]) == (method, world)) for world in worlds
            ]
            lines.append(f"| {method} | {' | '.join(text(cell, name) for cell in found)} |")
    return "\n".join(lines[1:])


def text(cell: Mapping[str, Any], name: str) -> str:
    """A value of a cell, with its interval if it has one."""
    if cell[name] is None:
        return "-"
    low_high = cell.get(f"{name}_interval")
    return f"{cell[name]:.4f}" + ("" if low_high is None else " ({:.4f} to {:.4f})".format(*low_high))


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="sim_to_sim"))
