"""Figures of a report. Each function gives a matplotlib figure and touches no global state."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve

from lensjax.data.images import CLASSES, DISPLAY_NAMES

# Okabe and Ito's colours, told apart by colour-blind readers.
COLORS = ("#0072B2", "#E69F00", "#009E73")
RUN_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
RUN_STYLES = ("-", "--", "-.", ":")
RIGHT, WRONG = "#009E73", "#D55E00"


def roc_figure(
    labels: Integer[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n classes"],
    metrics: dict[str, float],
) -> Figure:
    """One-vs-rest ROC curve of each class, with its AUC.

    Args:
      labels: index of each image's class.
      probabilities: of each class, for each image.
      metrics: what `classification_metrics` gave for the same.
    """
    figure = Figure(figsize=(5.2, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.75", linestyle="--", linewidth=1)
    for index, name in enumerate(CLASSES):
        false_positive, true_positive, _ = roc_curve(labels == index, probabilities[:, index])
        label = f"{DISPLAY_NAMES[index]}: AUC {metrics[f'auc_{name}']:.4f}"
        axes.plot(false_positive, true_positive, color=COLORS[index], linewidth=1.8, label=label)
    axes.set(
        title=f"One class against the rest, mean AUC {metrics['auc']:.4f}",
        xlabel="false-positive rate",
        ylabel="true-positive rate",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
    )
    axes.legend(loc="lower right", frameon=False)
    return figure


def roc_comparison_figure(
    labels: Integer[np.ndarray, " n"],
    probabilities: Sequence[Float[np.ndarray, "n classes"]],
    names: Sequence[str],
    aucs: Sequence[float],
) -> Figure:
    """One-vs-rest ROC curves of several classifiers, one class a panel.

    Args:
      labels: index of each image's class.
      probabilities: of each classifier: of each class, for each image.
      names: of the classifiers.
      aucs: the mean over the classes of each.
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
            title=f"{DISPLAY_NAMES[index]} against the rest",
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
    """Confusion matrix: colour and percentage by row, with the counts."""
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
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
    axes.set(xlabel="predicted", ylabel="true", title=f"{counts.sum():,} images")
    figure.colorbar(picture, label="share of the true class")
    return figure


def learning_figure(history: Sequence[dict[str, Any]], best_epoch: int) -> Figure:
    """Loss and validation AUC by epoch, the best epoch marked."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    for part, color in (("train", "0.5"), ("validation", "black")):
        losses.plot(epochs, [record[f"{part}_loss"] for record in history], color=color, label=part)
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend(frameon=False)
    for index, name in enumerate(CLASSES):
        values = [record[f"validation_auc_{name}"] for record in history]
        scores.plot(epochs, values, color=COLORS[index], label=DISPLAY_NAMES[index])
    means = [record["validation_auc"] for record in history]
    scores.plot(epochs, means, color="black", linewidth=2, label="mean")
    scores.set(xlabel="epoch", ylabel="validation AUC")
    scores.legend(frameon=False, loc="lower right")
    for axes in (losses, scores):
        axes.axvline(best_epoch, color="0.8", linewidth=6, alpha=0.6, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def gallery_figure(
    images: Float[np.ndarray, "n height width"],
    labels: Integer[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n classes"],
    *,
    columns: int = 6,
    colors: str = "magma",
    limits: tuple[float, float] = (0, 1),
) -> Figure:
    """The first images of each class, one class a row, with what the model says of them.

    Args:
      images: brightness from 0 to 1, or what else is to be shown.
      labels: index of each image's class.
      probabilities: of each class, for each image.
      columns: images a class, where there are as many.
      colors: name of a colour map.
      limits: values that have its first and its last colour.
    """
    figure = Figure(figsize=(1.7 * columns, 1.95 * len(CLASSES)), layout="constrained")
    grid = figure.subplots(len(CLASSES), columns, squeeze=False)
    for index, row in enumerate(grid):
        chosen = np.flatnonzero(labels == index)[:columns]
        for place, axes in enumerate(row):
            axes.set(xticks=[], yticks=[])
            if place >= len(chosen):
                axes.axis("off")
                continue
            low, high = limits
            axes.imshow(images[chosen[place]], cmap=colors, origin="lower", vmin=low, vmax=high)
            answer = int(probabilities[chosen[place]].argmax())
            color = RIGHT if answer == index else WRONG
            axes.set_title(
                f"{DISPLAY_NAMES[answer]} {probabilities[chosen[place], answer]:.2f}",
                fontsize=8,
                color=color,
            )
            for spine in axes.spines.values():
                spine.set(color=color, linewidth=2)
        row[0].set_ylabel(f"true: {DISPLAY_NAMES[index]}", fontsize=9)
    return figure
