"""The report of a run: a page, figures for a paper, final metrics as JSON, a table for the terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from lensjax.data.images import CLASSES, DISPLAY_NAMES, ImageSet
from lensjax.evaluation.calibration import tempered
from lensjax.evaluation.metrics import confusion
from lensjax.evaluation.reliability import reliability
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
from lensjax.prediction.predictor import Predictions
from lensjax.report import plots
from lensjax.report.galleries import examples, gallery
from lensjax.report.page import page
from lensjax.report.panels import Panel, panel_figure
from lensjax.report.run_facts import Facts
from lensjax.workdir import write_atomically

PAGE, FIGURES = "index.html", "figures"
_DPI = 180  # of the PNG files


def write_report(
    folder: Path,
    *,
    facts: Facts,
    images: ImageSet,
    predictions: Predictions,
    best_epoch: int,
    history: Sequence[dict[str, Any]],
    temperature: float | None = None,
    inside: Sequence[Panel] = (),
) -> str:
    """Writes index.html, metrics.json and, as PNG and PDF in figures/, each figure of the page.

    metrics.json has every figure of `lensjax.evaluation.scores` with its 95 % bootstrap interval and, where a
    temperature is known, what the calibration is with it.

    The figures are auc, roc, roc_log, confusion_matrix, reliability, loss and learning_curves where epochs
    are known, most_certain_right, most_certain_wrong, examples, residuals for images with a lens fit, and
    the panels of the model's inside.

    Args:
      folder: where to; made if it is not there.
      facts: how the run was made.
      images: what was classified.
      predictions: the best epoch's answers to them.
      best_epoch: number of the epoch, from 1; 0 for a model that was not trained here.
      history: the metrics of each epoch.
      temperature: that was fitted to the validation images; None where there is none.
      inside: panels of what the model makes of a few images.

    Returns:
      A table of the final metrics, for the terminal.
    """
    folder.joinpath(FIGURES).mkdir(parents=True, exist_ok=True)
    probabilities, labels = predictions.probabilities, images.labels
    metrics = scores(labels, probabilities)
    drawn = bootstrap(labels, probabilities, resample_weights(labels))
    counts = confusion(labels, probabilities)
    content = {
        "split": facts.split,
        "images": dict(zip(CLASSES, images.class_counts(), strict=True)),
        "best_epoch": best_epoch,
        "epochs": len(history),
        "tta": facts.tta,
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
        "calibration": calibrated(labels, probabilities, temperature),
    }
    write_atomically(folder / "metrics.json", json.dumps(content, indent=2) + "\n")
    panels = [
        gallery(images, probabilities, right=right, split=facts.split) for right in (True, False)
    ]
    panels += [*inside, examples(images, probabilities, split=facts.split)]
    if images.residuals is not None:
        panels.append(examples(images, probabilities, split=facts.split, residuals=True))
    curves = {"as trained": reliability(labels, probabilities)}
    if temperature is not None:
        curves[f"with T = {temperature:.3f}"] = reliability(
            labels, tempered(probabilities, temperature)
        )
    with plots.paper_style():
        figures = {
            "auc": plots.auc_figure(content),
            "roc": plots.roc_figure(labels, probabilities, metrics),
            "roc_log": plots.roc_figure(labels, probabilities, metrics, log=True),
            "confusion_matrix": plots.confusion_figure(counts),
            "reliability": plots.reliability_figure(curves),
        }
        if history:
            figures["loss"] = plots.loss_figure(history, best_epoch)
            figures["learning_curves"] = plots.learning_figure(history, best_epoch)
        write_atomically(folder / PAGE, page(content, facts, figures, panels))
        figures |= {panel.name: panel_figure(panel) for panel in panels}
        for name, figure in figures.items():
            figure.savefig(folder / FIGURES / f"{name}.pdf", metadata={"CreationDate": None})
            figure.set_layout_engine("none")  # it is laid out by now
            figure.savefig(folder / FIGURES / f"{name}.png", dpi=_DPI)
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
    with matplotlib.style.context(["default", {"pdf.fonttype": 42}]):
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
