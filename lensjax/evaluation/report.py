"""The report of a run: final metrics as JSON, figures as PNG, a table for the terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from lensjax.data.images import CLASSES, DISPLAY_NAMES, ImageSet
from lensjax.evaluation import plots
from lensjax.evaluation.calibration import tempered
from lensjax.evaluation.metrics import confusion
from lensjax.evaluation.prediction import Predictions
from lensjax.evaluation.scores import (
    ECE_BINS,
    LEVEL,
    RESAMPLES,
    SEED,
    bootstrap,
    intervals,
    resample_weights,
    scores,
)
from lensjax.workdir import write_atomically


def write_report(
    folder: Path,
    *,
    split: str,
    images: ImageSet,
    predictions: Predictions,
    best_epoch: int,
    history: Sequence[dict[str, Any]],
    temperature: float | None = None,
    tta: str = "none",
) -> str:
    """Writes metrics.json, roc.png, confusion_matrix.png, examples.png and learning_curves.png.

    metrics.json has every figure of `lensjax.evaluation.scores` with its 95 % bootstrap interval and, where a
    temperature is known, what the calibration is with it.

    Of images with residuals of a lens fit, residuals.png shows those of the examples, from -4 to 4 standard
    deviations.

    Args:
      folder: where to; made if it is not there.
      split: name of the split that the images are of.
      images: what was classified.
      predictions: the best epoch's answers to them.
      best_epoch: number of the epoch, from 1; 0 for a model that was not trained here.
      history: the metrics of each epoch.
      temperature: that was fitted to the validation images; None where there is none.
      tta: how the predictions were made, "none" or "d4".

    Returns:
      A table of the final metrics, for the terminal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics = scores(images.labels, predictions.probabilities)
    drawn = bootstrap(images.labels, predictions.probabilities, resample_weights(images.labels))
    counts = confusion(images.labels, predictions.probabilities)
    content = {
        "split": split,
        "images": dict(zip(CLASSES, images.class_counts(), strict=True)),
        "best_epoch": best_epoch,
        "epochs": len(history),
        "tta": tta,
        **metrics,
        "confusion_matrix": counts.tolist(),
        "intervals": intervals(drawn),
        "bootstrap": {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "seed": SEED,
            "drawn": "multinomial counts within each class, percentiles",
        },
        "ece_bins": ECE_BINS,
        "calibration": calibrated(images.labels, predictions.probabilities, temperature),
    }
    write_atomically(folder / "metrics.json", json.dumps(content, indent=2) + "\n")
    probabilities = predictions.probabilities
    shown = images.images()[..., 0] if len(images) < 100 else images.images(slice(100))[..., 0]
    figures = {
        "roc": plots.roc_figure(images.labels, probabilities, metrics),
        "confusion_matrix": plots.confusion_figure(counts),
        "examples": plots.gallery_figure(
            shown, images.labels[: len(shown)], probabilities[: len(shown)]
        ),
    }
    if images.residuals is not None:
        figures["residuals"] = plots.gallery_figure(
            images.residuals[: len(shown)].astype(np.float32),
            images.labels[: len(shown)],
            probabilities[: len(shown)],
            colors="RdBu_r",
            limits=(-4, 4),
        )
    if history:
        figures["learning_curves"] = plots.learning_figure(history, best_epoch)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
    return table(content)


def calibrated(
    labels: np.ndarray, probabilities: np.ndarray, temperature: float | None
) -> dict[str, float] | None:
    """What a temperature makes of the calibration; None without one.

    Args:
      labels: index of each image's class.
      probabilities: of each class, for each image, before the temperature.
      temperature: what logits are divided by.
    """
    if temperature is None:
        return None
    before, after = (
        scores(labels, values) for values in (probabilities, tempered(probabilities, temperature))
    )
    names = ("ece", "brier", "nll")
    found = {"temperature": temperature} | {f"{name}_before": before[name] for name in names}
    return found | {f"{name}_after": after[name] for name in names}


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whatever the user's matplotlib settings are."""
    with matplotlib.style.context("default"):
        figure.savefig(path, dpi=144)


def table(content: Mapping[str, Any]) -> str:
    """The figures with their intervals, for the terminal, within 80 columns.

    Args:
      content: what metrics.json holds.
    """

    def figure(name: str) -> str:
        low, high = content["intervals"][name]
        return f"{content[name]:.4f} ({low:.4f} to {high:.4f})"

    epochs = content["epochs"]
    which = f"Best epoch {content['best_epoch']} of {epochs}" if epochs else "As it was given"
    views = ", mean over eight views" if content["tta"] == "d4" else ""
    lines = [
        f"{which}, on the {content['split']} images{views}",
        "(in brackets 95 % intervals of 1,000 bootstrap resamples):",
        f"  {'class':<18}{'images':>7}  {'AUC':<26}F1",
    ]
    for name, shown in zip(CLASSES, DISPLAY_NAMES, strict=True):
        count = f"{content['images'][name]:,}"
        lines += [f"  {shown:<18}{count:>7}  {figure(f'auc_{name}'):<26}{figure(f'f1_{name}')}"]
    total = f"{sum(content['images'].values()):,}"
    lines += [f"  {'mean':<18}{total:>7}  {figure('auc'):<26}{figure('f1')}"]
    titles = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "brier": "Brier score",
        "nll": "log loss",
        "ece": "calibration error",
    }
    lines += [f"  {title:<25}  {figure(name)}" for name, title in titles.items()]
    if (after := content["calibration"]) is not None:
        lines += [
            f"  {'  with the temperature':<25}  {after['ece_after']:.4f}, "
            f"at T = {after['temperature']:.3f}; log loss {after['nll_after']:.4f}"
        ]
    return "\n".join(lines)
