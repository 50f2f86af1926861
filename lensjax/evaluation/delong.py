"""DeLong's test for the difference between two classifiers' AUCs on the same images."""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm, rankdata

from lensjax.data.images import CLASSES
from lensjax.evaluation.types import Labels, Probabilities


@dataclasses.dataclass(frozen=True)
class AucDifference:
    """Difference in AUC, second classifier minus first.

    Attributes:
      difference: difference between the AUCs.
      standard_error: estimated standard deviation of the difference over test sets of this size.
      p: two-sided p-value of the null hypothesis of equal AUCs.
    """

    difference: float
    standard_error: float
    p: float


def auc_differences(labels: Labels, first: Probabilities, second: Probabilities) -> dict[str, AucDifference]:
    """DeLong's test for each one-vs-rest AUC (`auc_<class>`) and for the mean AUC (`auc`).

    Each image contributes its placement among the images of the opposite kind to each AUC. The variance of a
    difference is the sum of the squared contributions. For the mean AUC, the contributions of each image are
    averaged over the classes first, which accounts for the covariance between classes.

    Args:
      labels: class index of each image; each class and its complement need at least two images.
      first, second: class probabilities of each image from the two classifiers.

    Reference: DeLong, DeLong & Clarke-Pearson 1988; computed from ranks as in Sun & Xu 2014.
    """
    contributions, differences = [], []
    for index in range(len(CLASSES)):
        positive = labels == index
        shift = placements(positive, second[:, index]) - placements(positive, first[:, index])
        differences.append(float(shift[positive].mean()))
        same_kind = np.where(positive, positive.sum(), (~positive).sum())
        contributions.append((shift - differences[-1]) / np.sqrt(same_kind * (same_kind - 1)))
    results = {
        f"auc_{name}": _test_difference(differences[index], contributions[index])
        for index, name in enumerate(CLASSES)
    }
    mean = _test_difference(float(np.mean(differences)), np.mean(contributions, axis=0))
    return results | {"auc": mean}


def placements(positive: Bool[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Fraction of negatives below each positive, and of positives above each negative; ties count half.

    The mean over the positives, or over the negatives, is the AUC.

    Args:
      positive: True for positive images.
      values: score of each image; images are ranked by it.
    """
    rank_within_kind = np.empty(len(values))
    for kind in (positive, ~positive):
        rank_within_kind[kind] = rankdata(values[kind])
    num_opposite = np.where(positive, (~positive).sum(), positive.sum())
    below = (rankdata(values) - rank_within_kind) / num_opposite
    return np.where(positive, below, 1 - below)


def _test_difference(difference: float, contributions: Float[np.ndarray, " n"]) -> AucDifference:
    error = math.sqrt(float((contributions**2).sum()))
    if error < 1e-12:  # zero up to rounding: the p-value is 1 for equal AUCs, else 0
        return AucDifference(difference, 0.0, 1.0 if abs(difference) < 1e-12 else 0.0)
    return AucDifference(difference, error, float(2 * norm.sf(abs(difference) / error)))
