"""Figures of a report. Each function returns a Matplotlib figure and leaves global state unchanged."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve

from lensjax.data.images import CLASSES, DISPLAY_NAMES
from lensjax.evaluation.reliability import Reliability
from lensjax.evaluation.types import Labels, Probabilities
from lensjax.report.published import PUBLISHED

# Okabe and Ito's color-blind-safe colors.
COLORS = ("#0072B2", "#E69F00", "#009E73")
RUN_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
RUN_STYLES = ("-", "--", "-.", ":")
RIGHT, WRONG = "#009E73", "#D55E00"
INK, MUTED, FAINT = "#1f2328", "#6b7280", "#c9ced6"

NARROW, WIDE = 3.4, 7.0  # column and page width of a journal, inches
_STYLE = {
    "font.family": "STIXGeneral",  # similar to journal fonts; included in Matplotlib
    "mathtext.fontset": "stix",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,  # TrueType fonts, which journals require
    "svg.hashsalt": "lensjax",  # reproducible files
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextlib.contextmanager
def paper_style() -> Iterator[None]:
    """Context in which figures are made and saved in the style of a paper, regardless of user settings."""
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # File names may contain characters that are missing from the font.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


def auc_figure(metrics: Mapping[str, Any]) -> Figure:
    """One-vs-rest AUCs and their mean, with intervals and published values.

    Args:
      metrics: content of metrics.json.
    """
    figure = Figure(figsize=(NARROW, 2.1), layout="constrained")
    axes = figure.subplots()
    names = [f"auc_{name}" for name in CLASSES] + ["auc"]
    rows = np.arange(len(names))[::-1]
    values = np.array([metrics[name] for name in names])
    limits = np.array([metrics["intervals"][name] for name in names])
    for marker, color, published in zip("sD", ("#CC79A7", MUTED), PUBLISHED, strict=True):
        axes.plot(
            [*published.aucs, published.auc],
            rows,
            marker,
            color=color,
            markersize=4,
            markerfacecolor="none",
            label=published.name,
        )
    axes.hlines(rows, limits[:, 0], limits[:, 1], color=COLORS[0], linewidth=1.6)
    axes.plot(values, rows, "o", color=COLORS[0], markersize=4.5, label="this run, 95 % interval")
    axes.set_yticks(rows, [*DISPLAY_NAMES, "mean"])
    axes.set(xlabel="one-vs-rest AUC", ylim=(-0.6, len(names) - 0.4))
    axes.set_xlim(right=1 + 0.03 * (1 - axes.get_xlim()[0]))
    axes.grid(axis="x", color=FAINT, linewidth=0.5, alpha=0.6)
    figure.legend(loc="outside lower center", ncols=3, columnspacing=1, handletextpad=0.2)
    return figure


def roc_figure(
    labels: Labels, probabilities: Probabilities, metrics: Mapping[str, Any], *, log: bool = False
) -> Figure:
    """One-vs-rest ROC curve of each class, with its AUC.

    Args:
      labels: class index of each image.
      probabilities: class probabilities of each image.
      metrics: scores of the same images, from `compute_scores`.
      log: if True, the false-positive axis is logarithmic and starts at the rate of half a false positive.
    """
    figure = Figure(figsize=(NARROW, NARROW), layout="constrained")
    axes = figure.subplots()
    if not log:
        axes.plot([0, 1], [0, 1], "--", color=FAINT, linewidth=1)
    least = 0.5 / max(len(labels) - int(np.min(np.bincount(labels, minlength=len(CLASSES)))), 1)
    for index, name in enumerate(CLASSES):
        false_positive, true_positive, _ = roc_curve(labels == index, probabilities[:, index])
        axes.plot(
            np.maximum(false_positive, least) if log else false_positive,
            true_positive,
            color=COLORS[index],
            label=f"{DISPLAY_NAMES[index]}: {metrics[f'auc_{name}']:.4f}",
            drawstyle="steps-post" if log else "default",
        )
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", ylim=(-0.02, 1.02))
    if log:
        axes.set(xscale="log", xlim=(least, 1))
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set(xlim=(-0.02, 1.02), aspect="equal")
    axes.legend(title="one-vs-rest AUC", title_fontsize=8)
    return figure


def roc_comparison_figure(
    labels: Labels, probabilities: Sequence[Probabilities], names: Sequence[str], aucs: Sequence[float]
) -> Figure:
    """One-vs-rest ROC curves of several classifiers, one panel per class.

    Args:
      labels: class index of each image.
      probabilities: class probabilities of each image, from each classifier.
      names: names of the classifiers.
      aucs: mean AUC of each classifier.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    for index, axes in enumerate(figure.subplots(1, len(CLASSES), sharey=True)):
        axes.plot([0, 1], [0, 1], color="0.75", linestyle="--", linewidth=1)
        for run, values in enumerate(probabilities):
            false_positive, true_positive, _ = roc_curve(labels == index, values[:, index])
            axes.plot(
                false_positive,
                true_positive,
                color=RUN_COLORS[run % len(RUN_COLORS)],
                linestyle=RUN_STYLES[run % len(RUN_STYLES)],
                linewidth=1.8,
                label=f"{names[run]}: mean AUC {aucs[run]:.4f}",
            )
        axes.set(
            title=f"{DISPLAY_NAMES[index]} vs. rest",
            xlabel="false-positive rate",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
        )
        if index == 0:
            axes.set_ylabel("true-positive rate")
            handles, texts = axes.get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", frameon=False, ncols=2)
    return figure


def confusion_figure(counts: Int[np.ndarray, "classes classes"]) -> Figure:
    """Confusion matrix with counts; colors and percentages are normalized by row."""
    figure = Figure(figsize=(NARROW, 3.0), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(CLASSES)):
        for column in range(len(CLASSES)):
            axes.text(
                column,
                row,
                f"{100 * shares[row, column]:.1f} %\n{counts[row, column]:,}",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.55 else "black",
            )
    axes.set_xticks(range(len(CLASSES)), DISPLAY_NAMES)
    axes.set_yticks(range(len(CLASSES)), DISPLAY_NAMES, rotation=90, va="center")
    axes.set(xlabel="predicted", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def reliability_figure(curves: Mapping[str, Reliability]) -> Figure:
    """Reliability diagram: accuracy as a function of the probability of the predicted class.

    Args:
      curves: reliability curves by name, such as "uncalibrated" and "T = 1.2".
    """
    figure = Figure(figsize=(NARROW, NARROW), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    axes.plot([0, 1], [0, 1], "--", color=FAINT, linewidth=1)
    for (name, curve), color, marker in zip(curves.items(), (MUTED, COLORS[0]), "sD", strict=False):
        axes.errorbar(
            curve.confidence,
            curve.accuracy,
            np.abs(curve.interval - curve.accuracy),
            color=color,
            marker=marker,
            markersize=3,
            linewidth=1,
            elinewidth=0.6,
            label=f"{name}: ECE {curve.ece:.4f}",
        )
        counts.stairs(curve.counts, curve.edges, color=color, linewidth=1)
    axes.set(ylabel="accuracy", ylim=(-0.02, 1.04))
    axes.legend(loc="lower right")
    counts.set(xlabel="probability of the predicted class", ylabel="images", yscale="log")
    counts.set(xlim=(0.3, 1.01), ylim=(0.6, None))
    counts.yaxis.set_major_formatter("{x:g}")
    return figure


def loss_figure(history: Sequence[dict[str, Any]], best_epoch: int) -> Figure:
    """Training and validation loss by epoch; the best epoch is marked.

    Args:
      history: metrics of each epoch.
      best_epoch: number of the epoch, from 1.
    """
    curves = {
        title: ([record[f"{part}_loss"] for record in history], color)
        for part, title, color in (("train", "training", MUTED), ("validation", "validation", INK))
    }
    return _learning_figure(history, best_epoch, curves, "loss")


def learning_figure(history: Sequence[dict[str, Any]], best_epoch: int) -> Figure:
    """Validation AUC of each class and their mean by epoch; arguments as for `loss_figure`."""
    curves = {
        title: ([record[f"validation_auc_{name}"] for record in history], color)
        for name, title, color in zip(CLASSES, DISPLAY_NAMES, COLORS, strict=True)
    }
    curves["mean"] = ([record["validation_auc"] for record in history], INK)
    return _learning_figure(history, best_epoch, curves, "validation AUC")


def _learning_figure(
    history: Sequence[dict[str, Any]],
    best_epoch: int,
    curves: Mapping[str, tuple[list[float], str]],
    ylabel: str,
) -> Figure:
    figure = Figure(figsize=(NARROW, 2.6), layout="constrained")
    axes = figure.subplots()
    epochs = [record["epoch"] for record in history]
    marker = "o" if len(epochs) < 12 else None
    for name, (values, color) in curves.items():
        axes.plot(epochs, values, color=color, label=name, marker=marker, markersize=3)
    axes.axvline(best_epoch, color=FAINT, linewidth=5, alpha=0.5, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel=ylabel, xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
    axes.legend()
    return figure
