"""The report of a run: final metrics as JSON, figures as PNG, a table for the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from lensjax.data.images import CLASSES, DISPLAY_NAMES, ImageSet
from lensjax.evaluation import plots
from lensjax.evaluation.metrics import classification_metrics, confusion
from lensjax.evaluation.prediction import Predictions
from lensjax.workdir import write_atomically


def write_report(
    folder: Path,
    *,
    split: str,
    images: ImageSet,
    predictions: Predictions,
    best_epoch: int,
    history: Sequence[dict[str, Any]],
) -> str:
    """Writes metrics.json, roc.png, confusion_matrix.png, examples.png and learning_curves.png.

    Of images with residuals of a lens fit, residuals.png shows those of the examples, from -4 to 4 standard
    deviations.

    Args:
      folder: where to; made if it is not there.
      split: name of the split that the images are of.
      images: what was classified.
      predictions: the best epoch's answers to them.
      best_epoch: number of the epoch, from 1; 0 for a model that was not trained here.
      history: the metrics of each epoch.

    Returns:
      A table of the final metrics, for the terminal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics = classification_metrics(images.labels, predictions.probabilities)
    counts = confusion(images.labels, predictions.probabilities)
    content = {
        "split": split,
        "images": dict(zip(CLASSES, images.class_counts(), strict=True)),
        "best_epoch": best_epoch,
        "epochs": len(history),
        **metrics,
        "confusion_matrix": counts.tolist(),
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
    return table(split, images, metrics, best_epoch, len(history))


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whatever the user's matplotlib settings are."""
    with matplotlib.style.context("default"):
        figure.savefig(path, dpi=144)


def table(
    split: str, images: ImageSet, metrics: dict[str, float], best_epoch: int, num_epochs: int
) -> str:
    """The final metrics, for the terminal."""
    which = f"Best epoch {best_epoch} of {num_epochs}" if num_epochs else "As it was given"
    lines = [f"{which}, on the {split} images:"]
    lines += [f"  {'class':<18}{'images':>8}{'AUC':>9}"]
    for name, shown, count in zip(CLASSES, DISPLAY_NAMES, images.class_counts(), strict=True):
        lines += [f"  {shown:<18}{count:>8,}{metrics[f'auc_{name}']:>9.4f}"]
    lines += [f"  {'mean':<18}{len(images):>8,}{metrics['auc']:>9.4f}"]
    lines += [f"  accuracy {metrics['accuracy']:.4f}"]
    return "\n".join(lines)
