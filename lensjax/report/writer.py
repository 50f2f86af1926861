"""Writes the report of a run: page, figures, metrics as JSON, and a table for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from lensjax.data.images import CLASSES, DISPLAY_NAMES, ImageSet
from lensjax.errors import naming
from lensjax.evaluation.calibration import apply_temperature
from lensjax.evaluation.metrics import confusion_matrix
from lensjax.evaluation.reliability import reliability_diagram
from lensjax.evaluation.scores import (
    ECE_BINS,
    LEVEL,
    RESAMPLES,
    SEED,
    bootstrap_scores,
    compute_scores,
    percentile_intervals,
    resample_weights,
)
from lensjax.json_text import encode_json
from lensjax.prediction.predictor import ModelPredictions
from lensjax.report import plots
from lensjax.report.galleries import certainty_gallery, first_images_gallery
from lensjax.report.page import render_page
from lensjax.report.panels import Panel, panel_figure
from lensjax.report.provenance import Provenance
from lensjax.workdir import write_atomically

PAGE, FIGURES = "index.html", "figures"
_DPI = 180  # of the PNG files


def write_report(
    folder: Path,
    *,
    provenance: Provenance,
    images: ImageSet,
    predictions: ModelPredictions,
    best_epoch: int,
    history: Sequence[dict[str, Any]],
    temperature: float | None = None,
    reasons: Sequence[str] | None = None,
    detail_panels: Sequence[Panel] = (),
) -> str:
    """Writes index.html, metrics.json and, in figures/, each figure of the page as PNG and PDF.

    metrics.json contains all scores of `lensjax.evaluation.scores` with 95 % bootstrap intervals and, if a
    temperature is given, the calibration scores before and after temperature scaling.

    The figures are auc, roc, roc_log, confusion_matrix, reliability, most_certain_right, most_certain_wrong
    and examples; loss and learning_curves if there is a history; residuals if the images have a lens fit;
    and one for each of `detail_panels`.

    Args:
      folder: output folder; created if needed.
      provenance: settings, versions and command of the report.
      images: the classified images.
      predictions: predictions of the best epoch.
      best_epoch: number of the epoch, from 1; 0 for a model that was not trained here.
      history: metrics of each epoch.
      temperature: temperature fitted to the validation images; None if there is none.
      reasons: why each image is outside the classifier's domain, "" if it is inside; None if unknown.
      detail_panels: panels that explain the predictions for a few images.

    Returns:
      A table of the scores, for the terminal.
    """
    folder.joinpath(FIGURES).mkdir(parents=True, exist_ok=True)
    probabilities, labels = predictions.probabilities, images.labels
    scores = compute_scores(labels, probabilities)
    samples = bootstrap_scores(labels, probabilities, resample_weights(labels))
    counts = confusion_matrix(labels, probabilities)
    content = {
        "split": provenance.split,
        "images": dict(zip(CLASSES, images.class_counts(), strict=True)),
        "best_epoch": best_epoch,
        "epochs": len(history),
        "tta": provenance.tta,
        **scores,
        "confusion_matrix": counts.tolist(),
        "intervals": percentile_intervals(samples),
        "bootstrap": {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "seed": SEED,
            "drawn": "multinomial counts within each class, percentiles",
        },
        "ece_bins": ECE_BINS,
        "calibration": calibration_summary(labels, probabilities, temperature),
        "outside_domain": None if reasons is None else sum(map(bool, reasons)),
    }
    write_atomically(folder / "metrics.json", encode_json(content, indent=2) + "\n")
    split = provenance.split
    panels = [certainty_gallery(images, probabilities, right=right, split=split) for right in (True, False)]
    panels += [*detail_panels, first_images_gallery(images, probabilities, split=split)]
    if images.residuals is not None:
        panels.append(first_images_gallery(images, probabilities, split=split, residuals=True))
    curves = {"uncalibrated": reliability_diagram(labels, probabilities)}
    if temperature is not None:
        curves[f"T = {temperature:.3f}"] = reliability_diagram(
            labels, apply_temperature(probabilities, temperature)
        )
    with plots.paper_style():
        figures = {
            "auc": plots.auc_figure(content),
            "roc": plots.roc_figure(labels, probabilities, scores),
            "roc_log": plots.roc_figure(labels, probabilities, scores, log=True),
            "confusion_matrix": plots.confusion_figure(counts),
            "reliability": plots.reliability_figure(curves),
        }
        if history:
            figures["loss"] = plots.loss_figure(history, best_epoch)
            figures["learning_curves"] = plots.learning_figure(history, best_epoch)
        write_atomically(folder / PAGE, render_page(content, provenance, figures, panels))
        figures |= {panel.name: panel_figure(panel) for panel in panels}
        for name, figure in figures.items():
            with naming(folder / FIGURES / name):
                figure.savefig(folder / FIGURES / f"{name}.pdf", metadata={"CreationDate": None})
                figure.set_layout_engine("none")  # the layout is final after the first draw
                figure.savefig(folder / FIGURES / f"{name}.png", dpi=_DPI)
    return format_table(content)


def calibration_summary(
    labels: np.ndarray, probabilities: np.ndarray, temperature: float | None
) -> dict[str, float] | None:
    """Temperature, and calibration scores before and after temperature scaling; None without a temperature.

    Args:
      labels: class index of each image.
      probabilities: uncalibrated class probabilities of each image.
      temperature: divisor of the logits.
    """
    if temperature is None:
        return None
    calibrated = apply_temperature(probabilities, temperature)
    before, after = (compute_scores(labels, values) for values in (probabilities, calibrated))
    names = ("ece", "brier", "nll")
    summary = {"temperature": temperature} | {f"{name}_before": before[name] for name in names}
    return summary | {f"{name}_after": after[name] for name in names}


def save_figure(figure: Figure, path: Path) -> None:
    """Saves a figure in the default style, regardless of user settings; the suffix determines the format."""
    with matplotlib.style.context(["default", {"pdf.fonttype": 42}]), naming(path):
        figure.savefig(path, dpi=144)


def format_table(content: Mapping[str, Any]) -> str:
    """Text table of the scores with their intervals, at most 80 columns wide.

    Args:
      content: content of metrics.json.
    """

    def score(name: str) -> str:
        low, high = content["intervals"][name]
        return f"{content[name]:.4f} ({low:.4f} to {high:.4f})"

    epochs = content["epochs"]
    epoch = f"Best epoch {content['best_epoch']} of {epochs}" if epochs else "Weights as loaded"
    views = ", mean over eight views" if content["tta"] == "d4" else ""
    lines = [
        f"{epoch}, evaluated on the {content['split']} images{views}",
        "(95 % bootstrap intervals in parentheses, 1,000 resamples):",
        f"  {'class':<18}{'images':>7}  {'AUC':<26}F1",
    ]
    for name, shown in zip(CLASSES, DISPLAY_NAMES, strict=True):
        count = f"{content['images'][name]:,}"
        lines += [f"  {shown:<18}{count:>7}  {score(f'auc_{name}'):<26}{score(f'f1_{name}')}"]
    total = f"{sum(content['images'].values()):,}"
    lines += [f"  {'mean':<18}{total:>7}  {score('auc'):<26}{score('f1')}"]
    titles = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "brier": "Brier score",
        "nll": "log loss",
        "ece": "calibration error",
    }
    lines += [f"  {title:<25}  {score(name)}" for name, title in titles.items()]
    if (after := content["calibration"]) is not None:
        lines += [
            f"  {'  calibrated':<25}  {after['ece_after']:.4f}, T = {after['temperature']:.3f}; "
            f"log loss {after['nll_after']:.4f}"
        ]
    if (number := content["outside_domain"]) is not None:
        lines += [f"  {'outside the domain':<25}  {number:,} of {total}, unlike validation images"]
    return "\n".join(lines)
