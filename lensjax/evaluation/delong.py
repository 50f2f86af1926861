"""DeLong's test of the difference of two classifiers' AUCs on the same images."""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.stats import norm, rankdata

from lensjax.data.images import CLASSES


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of AUCs, the second classifier's less the first's.

    Attributes:
      difference: of the areas.
      standard_error: its standard deviation over sets of images like this one.
      p: how probable so large a difference is, of either sign, where there is none.
    """

    difference: float
    standard_error: float
    p: float


def auc_differences(
    labels: Integer[np.ndarray, " n"],
    first: Float[np.ndarray, "n classes"],
    second: Float[np.ndarray, "n classes"],
) -> dict[str, Difference]:
    """DeLong's test for each class against the rest (`auc_<class>`), and for the mean over classes (`auc`).

    An image adds to each class's AUC by its placement among the images of the other kind. The variance of a
    difference is the sum of the squares of what each image adds to it; for the mean over the classes, what
    an image adds to that, so that the classes' covariance counts.

    Args:
      labels: index of each image's class; each class and its rest need two images.
      first, second: probabilities of each class, for each image.

    Reference: DeLong, DeLong & Clarke-Pearson 1988; ranks as Sun & Xu 2014.
    """
    added, differences = [], []
    for index in range(len(CLASSES)):
        positive = labels == index
        placed = placements(positive, second[:, index]) - placements(positive, first[:, index])
        differences.append(float(placed[positive].mean()))
        # Images of the same kind in the class's AUC.
        alike = np.where(positive, positive.sum(), (~positive).sum())
        added.append((placed - differences[-1]) / np.sqrt(alike * (alike - 1)))
    found = {
        f"auc_{name}": _difference(differences[index], added[index])
        for index, name in enumerate(CLASSES)
    }
    return found | {"auc": _difference(float(np.mean(differences)), np.mean(added, axis=0))}


def placements(
    positive: Bool[np.ndarray, " n"], values: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """The share of the negatives below each positive and of the positives above each negative, ties half.

    The mean over either kind is the AUC.

    Args:
      positive: which images are.
      values: by which images are ranked.
    """
    within = np.empty(len(values))
    for kind in (positive, ~positive):
        within[kind] = rankdata(values[kind])
    others = np.where(positive, (~positive).sum(), positive.sum())
    below = (rankdata(values) - within) / others
    return np.where(positive, below, 1 - below)


def _difference(difference: float, added: Float[np.ndarray, " n"]) -> Difference:
    error = math.sqrt(float((added**2).sum()))
    if error < 1e-12:  # rounding alone: the two rank all images alike, or never do
        return Difference(difference, 0.0, 1.0 if abs(difference) < 1e-12 else 0.0)
    return Difference(difference, error, float(2 * norm.sf(abs(difference) / error)))
