"""Runs side by side on the same images: figures, differences, and how sure these are."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensjax.data.images import ImageSet, Split
from lensjax.data.source import load_split
from lensjax.errors import UserError
from lensjax.evaluation.delong import auc_differences
from lensjax.evaluation.scores import (
    AUCS,
    LEVEL,
    NAMES,
    RESAMPLES,
    SEED,
    bootstrap,
    intervals,
    resample_weights,
    scores,
)
from lensjax.prediction import tta
from lensjax.prediction.trained import Manner, Trained
from lensjax.report import plots
from lensjax.report.comparison_table import table
from lensjax.report.writer import save
from lensjax.workdir import write_atomically

RESULT = "comparison.json"


def compare(
    runs: Sequence[Trained],
    output: Path,
    *,
    split: Split,
    d4: bool = False,
    overwrite: bool = False,
) -> str:
    """Compares runs on the images of a split that is the same for all.

    Writes comparison.json, roc.png and roc.pdf.

    Args:
      runs: the best epochs of two runs or more.
      output: folder to write to; made if it is not there.
      split: name of the split.
      d4: whether answers are means over eight views.
      overwrite: whether an earlier comparison in the folder is replaced.

    Returns:
      A table, for the terminal.

    Raises:
      UserError: the images are not the same, the folder holds a comparison already, or a run cannot give
        means over views.
    """
    if (output / RESULT).exists() and not overwrite:
        raise UserError(
            f"{output / RESULT} exists; name another folder with --output, or add --overwrite"
        )
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; --output names a folder here")
    for run in runs if d4 else ():
        tta.check(run.config, run.workdir)
    labels, probabilities = _answers(runs, split, Manner(d4=d4))
    content = compared([str(run.workdir) for run in runs], labels, probabilities)
    content = {"split": split, "tta": "d4" if d4 else "none", **content}
    output.mkdir(parents=True, exist_ok=True)
    figure = plots.roc_comparison_figure(
        labels, probabilities, content["runs"], [run["auc"] for run in content["figures"]]
    )
    for suffix in ("png", "pdf"):
        save(figure, output / f"roc.{suffix}")
    write_atomically(output / RESULT, json.dumps(content, indent=2) + "\n")
    return table(content)


def compared(
    names: Sequence[str], labels: np.ndarray, probabilities: Sequence[np.ndarray]
) -> dict[str, Any]:
    """The figures of each run and the differences of each two.

    Args:
      names: of the runs.
      labels: `[n]`, index of each image's class.
      probabilities: of each run, `[n, classes]`.
    """
    weights = resample_weights(labels)
    points = [scores(labels, each) for each in probabilities]
    drawn = [bootstrap(labels, each, weights) for each in probabilities]
    pairs = []
    for one, other in itertools.combinations(range(len(names)), 2):
        draws = {name: drawn[other][name] - drawn[one][name] for name in NAMES}
        limits = intervals(draws)
        tests = auc_differences(labels, probabilities[one], probabilities[other])
        differences = {
            name: {
                "difference": points[other][name] - points[one][name],
                "interval": limits[name],
                "bootstrap_p": bootstrap_p(draws[name]),
            }
            for name in NAMES
        }
        for name in AUCS:
            differences[name]["delong"] = dataclasses.asdict(tests[name])
        pairs.append({"first": one, "second": other, "differences": differences})
    return {
        "runs": list(names),
        "images": len(labels),
        "bootstrap": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED},
        "figures": [
            {**point, "intervals": intervals(draws)}
            for point, draws in zip(points, drawn, strict=True)
        ],
        "pairs": pairs,
    }


def bootstrap_p(differences: np.ndarray) -> float:
    """Twice the share of paired resamples whose difference has the rarer sign: a two-sided p-value.

    Args:
      differences: of each resample; one more of either sign is counted, so that none is impossible.
    """
    number = len(differences) + 1
    rarer = min(np.sum(differences <= 0), np.sum(differences >= 0)) + 1
    return float(min(1, 2 * rarer / number))


def _answers(
    runs: Sequence[Trained], split: Split, manner: Manner
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The labels of the images, and each run's answers to them."""
    labels, expected = np.zeros(0, np.int32), ""
    found: list[np.ndarray] = []
    for run in runs:
        images = load_split(run.config.data, split)
        fingerprint = _fingerprint(images)
        if not found:
            labels, expected = images.labels, fingerprint
        elif fingerprint != expected:
            raise UserError(
                f"the {split} images of {runs[0].workdir} ({len(labels):,}) and of {run.workdir} "
                f"({len(images):,}) are not the same; compare runs with the same "
                "config.data.source, selection and seed"
            )
        found.append(run.predict(images, manner).probabilities)
    return labels, found


def _fingerprint(images: ImageSet) -> str:
    """The same for the same images with the same labels in the same order."""
    key = hashlib.sha256(np.ascontiguousarray(images.labels, np.int32).tobytes())
    for first in range(0, len(images), 256):
        key.update(images.images(slice(first, first + 256)).tobytes())
    return key.hexdigest()
