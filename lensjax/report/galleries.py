"""Selection of images for a report, and galleries of correct and wrong predictions."""

import numpy as np
from jaxtyping import Float, Int

from lensjax.data.images import CLASSES, DISPLAY_NAMES, ImageSet
from lensjax.evaluation.types import Labels, Probabilities
from lensjax.prediction.table_files import to_valid_utf8
from lensjax.report.panels import Panel, Picture, Strip

COLUMNS = 6


def most_certain(
    labels: Labels, probabilities: Probabilities, *, label: int, right: bool
) -> Int[np.ndarray, " found"]:
    """Indices of the correctly or incorrectly classified images of a class, most confident first.

    Args:
      labels: class index of each image.
      probabilities: class probabilities of each image.
      label: the true class.
      right: True for correct predictions, False for wrong ones.
    """
    rows = np.flatnonzero((labels == label) & ((probabilities.argmax(1) == labels) == right))
    return rows[np.argsort(-probabilities[rows].max(1), kind="stable")]


def select_for_detail(labels: Labels, probabilities: Probabilities) -> Int[np.ndarray, " shown"]:
    """Indices of two images per class: the most confident correct and the most confident wrong prediction.

    If a class has no prediction of one kind, a second prediction of the other kind is used.

    Args:
      labels: class index of each image.
      probabilities: class probabilities of each image.
    """
    rows: list[int] = []
    for label in range(len(CLASSES)):
        good, bad = (
            most_certain(labels, probabilities, label=label, right=right).tolist() for right in (True, False)
        )
        rows += [*good[:1], *bad[:1], *good[1:], *bad[1:]][:2]
    return np.asarray(rows, int)


def image_name(images: ImageSet, row: int, split: str) -> str:
    """Name of an image's file, or its index in the split if it has no name."""
    return to_valid_utf8(images.names[row]) or f"{split} image {row}"


def format_prediction(probabilities: Float[np.ndarray, " classes"]) -> str:
    """Predicted class and its probability, as text."""
    predicted = int(np.argmax(probabilities))
    value = f"{probabilities[predicted]:.4f}"
    return f"{DISPLAY_NAMES[predicted]} {'> 0.9999' if value == '1.0000' else value}"


def certainty_gallery(images: ImageSet, probabilities: Probabilities, *, right: bool, split: str) -> Panel:
    """Gallery of the most confident correct, or wrong, predictions of each class.

    Args:
      images: the classified images.
      probabilities: class probabilities of each image.
      right: True for correct predictions, False for wrong ones.
      split: name of the split, used for images without names.
    """
    adjective, adverb = ("correct", "correctly") if right else ("wrong", "incorrectly")
    strips = []
    for label, title in enumerate(DISPLAY_NAMES):
        rows = most_certain(images.labels, probabilities, label=label, right=right)
        total = int((images.labels == label).sum())
        note = f"{len(rows):,} of {total:,} classified {adverb}"
        pictures = _pictures(images, probabilities, rows[:COLUMNS], split)
        strips.append(Strip(f"True class: {title}", note, pictures))
    return Panel(
        f"most_certain_{'right' if right else 'wrong'}",
        f"Most confident {adjective} predictions",
        f"The {adverb} classified images of each class with the highest probability of the predicted class. "
        "Captions: name of the image, predicted class and its probability. Brightness is scaled from 0 to 1.",
        tuple(strips),
    )


def first_images_gallery(
    images: ImageSet, probabilities: Probabilities, *, split: str, residuals: bool = False
) -> Panel:
    """Gallery of the first images of each class, or of the residuals of their lens fits.

    Args:
      images: the classified images.
      probabilities: class probabilities of each image.
      split: name of the split, used for images without names.
      residuals: if True, the residuals are shown, from -4 to 4 standard deviations.
    """
    strips = []
    for label, title in enumerate(DISPLAY_NAMES):
        rows = np.flatnonzero(images.labels == label)[:COLUMNS]
        pictures = _pictures(images, probabilities, rows, split, residuals=residuals)
        strips.append(Strip(f"True class: {title}", "first images of the split", pictures))
    if residuals:
        text = (
            "Residuals of the smooth-lens fit for the same images, from -4 (blue) to 4 (red) standard "
            "deviations of the noise: white noise if the lens is smooth, dipoles at subhalos, a line along a "
            "vortex."
        )
        return Panel("residuals", "Residuals of the smooth-lens fit", text, tuple(strips))
    text = "The first images of each class in the split, without selection. Brightness is scaled from 0 to 1."
    return Panel("examples", "First images", text, tuple(strips))


def _pictures(
    images: ImageSet,
    probabilities: Probabilities,
    rows: Int[np.ndarray, " shown"],
    split: str,
    *,
    residuals: bool = False,
) -> tuple[Picture, ...]:
    shown = images.images(rows)[..., 0]
    if residuals and images.residuals is not None:
        shown = images.residuals[rows].astype(np.float32)
    pictures = []
    for index, row in enumerate(rows):
        name, predicted = image_name(images, row, split), format_prediction(probabilities[row])
        truth = DISPLAY_NAMES[images.labels[row]]
        kind = "Residual of the fit to" if residuals else "Lens image"
        pictures.append(
            Picture(
                shown[index],
                f"{name}\n{predicted}",
                f"{kind} {name}: true class {truth}, predicted {predicted}",
                "RdBu_r" if residuals else "magma",
                (-4, 4) if residuals else (0, 1),
                "right" if probabilities[row].argmax() == images.labels[row] else "wrong",
            )
        )
    return tuple(pictures)
