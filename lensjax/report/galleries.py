"""Which images to show, and the galleries of them: right and wrong, as certain as can be."""

import numpy as np
from jaxtyping import Float, Int, Integer

from lensjax.data.images import CLASSES, DISPLAY_NAMES, ImageSet
from lensjax.prediction.table_files import printable
from lensjax.report.panels import Panel, Picture, Strip

COLUMNS = 6
Probabilities = Float[np.ndarray, "n classes"]


def most_certain(
    labels: Integer[np.ndarray, " n"], probabilities: Probabilities, *, label: int, right: bool
) -> Int[np.ndarray, " found"]:
    """Rows of a class's images that were called rightly, or wrongly, the most certain call first.

    Args:
      labels: index of each image's class.
      probabilities: of each class, for each image.
      label: the true class.
      right: whether right or wrong calls are sought.
    """
    rows = np.flatnonzero((labels == label) & ((probabilities.argmax(1) == labels) == right))
    return rows[np.argsort(-probabilities[rows].max(1), kind="stable")]


def shown_in_depth(
    labels: Integer[np.ndarray, " n"], probabilities: Probabilities
) -> Int[np.ndarray, " shown"]:
    """Two images a class to look into: the most certain right one and the most certain wrong one.

    Where a class has none of the one kind, there is a second one of the other.
    """
    rows: list[int] = []
    for label in range(len(CLASSES)):
        good, bad = (
            most_certain(labels, probabilities, label=label, right=right).tolist()
            for right in (True, False)
        )
        rows += [*good[:1], *bad[:1], *good[1:], *bad[1:]][:2]
    return np.asarray(rows, int)


def image_name(images: ImageSet, row: int, split: str) -> str:
    """The name of an image's file, or its place in the split where there is none."""
    return printable(images.names[row]) or f"{split} image {row}"


def answer(probabilities: Float[np.ndarray, " classes"]) -> str:
    """The class that is called, and its probability."""
    called = int(probabilities.argmax())
    value = f"{probabilities[called]:.4f}"
    return f"{DISPLAY_NAMES[called]} {'> 0.9999' if value == '1.0000' else value}"


def gallery(images: ImageSet, probabilities: Probabilities, *, right: bool, split: str) -> Panel:
    """The images of each class whose right, or wrong, answers are the most certain.

    Args:
      images: what was classified.
      probabilities: of each class, for each image.
      right: whether right or wrong answers are shown.
      split: what to call the set where images have no names.
    """
    word = "right" if right else "wrong"
    strips = []
    for label, title in enumerate(DISPLAY_NAMES):
        rows = most_certain(images.labels, probabilities, label=label, right=right)
        number = f"{len(rows):,} of {int((images.labels == label).sum()):,} called {word}"
        pictures = _pictures(images, probabilities, rows[:COLUMNS], split)
        strips.append(Strip(f"True class: {title}", number, pictures))
    return Panel(
        f"most_certain_{word}",
        f"Most certain and {word}",
        f"Of each true class the images whose {word} answers have the highest probabilities: the name of the "
        "image, then the class that was called and its probability. Brightness runs from 0 to 1.",
        tuple(strips),
    )


def examples(
    images: ImageSet, probabilities: Probabilities, *, split: str, residuals: bool = False
) -> Panel:
    """The first images of each class, chosen by nothing; or what lens fits leave over of them.

    Args:
      images: what was classified.
      probabilities: of each class, for each image.
      split: what to call the set where images have no names.
      residuals: whether the residuals of the images' lens fits are shown, from -4 to 4 standard deviations.
    """
    strips = []
    for label, title in enumerate(DISPLAY_NAMES):
        rows = np.flatnonzero(images.labels == label)[:COLUMNS]
        pictures = _pictures(images, probabilities, rows, split, residuals=residuals)
        strips.append(Strip(f"True class: {title}", "the first of the set", pictures))
    if residuals:
        text = (
            "What the fit of a smooth lens leaves over of the same images, from -4 (blue) to 4 (red) "
            "standard deviations of the noise: white noise where nothing but the lens is there, dipoles at "
            "subhalos, a line along a vortex."
        )
        return Panel("residuals", "What a smooth lens leaves over", text, tuple(strips))
    text = (
        "The first images of each class in the set, chosen by nothing. Brightness runs from 0 to 1."
    )
    return Panel("examples", "The first images", text, tuple(strips))


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
    for place, row in enumerate(rows):
        name, called = image_name(images, row, split), answer(probabilities[row])
        truth = DISPLAY_NAMES[images.labels[row]]
        kind = "Residual of the fit to" if residuals else "Lens image"
        pictures.append(
            Picture(
                shown[place],
                f"{name}\n{called}",
                f"{kind} {name}: true class {truth}, called {called}",
                "RdBu_r" if residuals else "magma",
                (-4, 4) if residuals else (0, 1),
                "right" if probabilities[row].argmax() == images.labels[row] else "wrong",
            )
        )
    return tuple(pictures)
