"""Comparison of runs on the same images: metrics, differences and their uncertainties."""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensjax.data.images import ImageSet, Split
from lensjax.data.source import load_split
from lensjax.errors import UserError
from lensjax.evaluation.delong import auc_differences
from lensjax.evaluation.scores import (
    AUC_NAMES,
    LEVEL,
    RESAMPLES,
    SCORE_NAMES,
    SEED,
    bootstrap_scores,
    compute_scores,
    percentile_intervals,
    resample_weights,
)
from lensjax.json_text import encode_json
from lensjax.prediction import tta
from lensjax.prediction.trained_model import PredictionOptions, TrainedModel
from lensjax.report import plots
from lensjax.report.comparison_table import format_table
from lensjax.report.writer import save_figure
from lensjax.workdir import write_atomically

RESULT = "comparison.json"


def compare_runs(
    runs: Sequence[TrainedModel], output: Path, *, split: Split, d4: bool = False, overwrite: bool = False
) -> str:
    """Compares runs on the images of a split, and writes comparison.json, roc.png and roc.pdf.

    Args:
      runs: best epochs of two or more runs.
      output: output folder; created if needed.
      split: name of the split; its images must be the same for all runs.
      d4: if True, predictions are averaged over eight views of each image.
      overwrite: if True, an earlier comparison in the folder is replaced.

    Returns:
      A table, for the terminal.

    Raises:
      UserError: if the images differ, `output` is a file or already contains a comparison, or a run does not
        support averaging over views.
    """
    if (output / RESULT).exists() and not overwrite:
        raise UserError(f"{output / RESULT} exists; choose another --output, or add --overwrite")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; --output must be a folder for a comparison")
    for run in runs if d4 else ():
        tta.check(run.config, run.workdir)
    labels, probabilities = _predict_all(runs, split, PredictionOptions(d4=d4))
    content = compare_predictions([str(run.workdir) for run in runs], labels, probabilities)
    content = {"split": split, "tta": "d4" if d4 else "none", **content}
    output.mkdir(parents=True, exist_ok=True)
    figure = plots.roc_comparison_figure(
        labels, probabilities, content["runs"], [run["auc"] for run in content["figures"]]
    )
    for suffix in ("png", "pdf"):
        save_figure(figure, output / f"roc.{suffix}")
    write_atomically(output / RESULT, encode_json(content, indent=2) + "\n")
    return format_table(content)


def compare_predictions(
    names: Sequence[str], labels: np.ndarray, probabilities: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Scores of each run and differences between all pairs, as in comparison.json.

    Args:
      names: names of the runs.
      labels: class index of each image, `[n]`.
      probabilities: class probabilities from each run, `[n, classes]`.
    """
    weights = resample_weights(labels)
    scores = [compute_scores(labels, each) for each in probabilities]
    samples = [bootstrap_scores(labels, each, weights) for each in probabilities]
    pairs = []
    for first, second in itertools.combinations(range(len(names)), 2):
        shifts = {name: samples[second][name] - samples[first][name] for name in SCORE_NAMES}
        limits = percentile_intervals(shifts)
        tests = auc_differences(labels, probabilities[first], probabilities[second])
        differences = {
            name: {
                "difference": scores[second][name] - scores[first][name],
                "interval": limits[name],
                "bootstrap_p": bootstrap_p(shifts[name]),
            }
            for name in SCORE_NAMES
        }
        for name in AUC_NAMES:
            differences[name]["delong"] = dataclasses.asdict(tests[name])
        pairs.append({"first": first, "second": second, "differences": differences})
    return {
        "runs": list(names),
        "images": len(labels),
        "bootstrap": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED},
        "figures": [
            {**score, "intervals": percentile_intervals(sample)}
            for score, sample in zip(scores, samples, strict=True)
        ],
        "pairs": pairs,
    }


def bootstrap_p(differences: np.ndarray) -> float:
    """Two-sided p-value: twice the fraction of resamples in which the difference has the rarer sign.

    One is added to the count of each sign and to the number of resamples, so that p is never 0.

    Args:
      differences: difference in each paired resample.
    """
    number = len(differences) + 1
    rarer = min(np.sum(differences <= 0), np.sum(differences >= 0)) + 1
    return float(min(1, 2 * rarer / number))


def _predict_all(
    runs: Sequence[TrainedModel], split: Split, options: PredictionOptions
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels of the images, and class probabilities from each run."""
    labels, expected = np.zeros(0, np.int32), ""
    probabilities: list[np.ndarray] = []
    for run in runs:
        images = load_split(run.config.data, split)
        fingerprint = _fingerprint(images)
        if not probabilities:
            labels, expected = images.labels, fingerprint
        elif fingerprint != expected:
            raise UserError(
                f"the {split} images of {runs[0].workdir} ({len(labels):,}) and of {run.workdir} "
                f"({len(images):,}) are not the same; compare runs with the same "
                "config.data.source, config.data.selection and config.data.seed"
            )
        probabilities.append(run.predict(images, options).probabilities)
    return labels, probabilities


def _fingerprint(images: ImageSet) -> str:
    """Hash of the images and labels, in order."""
    key = hashlib.sha256(np.ascontiguousarray(images.labels, np.int32).tobytes())
    for first in range(0, len(images), 256):
        key.update(images.images(slice(first, first + 256)).tobytes())
    return key.hexdigest()
