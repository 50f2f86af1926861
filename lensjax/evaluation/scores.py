"""All figures of merit, of a set of images or of many resamples of it at once."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Integer

from lensjax.data.images import CLASSES

ECE_BINS = 15
RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
_AT_A_TIME = 2_000_000  # weights: bounds the memory

AUCS = (*(f"auc_{name}" for name in CLASSES), "auc")
F1S = (*(f"f1_{name}" for name in CLASSES), "f1")
NAMES = (*AUCS, "accuracy", "balanced_accuracy", *F1S, "ece", "brier", "nll")


def scores(
    labels: Integer[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> dict[str, float]:
    """The figures of a set of images, by the names in `NAMES`.

    `auc` and `f1` are the means over the classes. `ece` is the expected calibration error: images are put
    into 15 bins of equal width by the probability of the class that is called, and the distances between
    mean probability and share of right calls are averaged with the bins' images as weights. `brier` is the
    squared distance between probabilities and truth, summed over the classes (0 to 2); `nll` is the mean
    negative logarithm of the true class's probability, nats.

    Args:
      labels: index of each image's class; every class has to occur.
      probabilities: of each class, for each image.

    Reference: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning".
    """
    found = weighted_scores(labels, probabilities, np.ones((1, len(labels))))
    return {name: float(values[0]) for name, values in found.items()}


def weighted_scores(
    labels: Integer[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n classes"],
    weights: Float[np.ndarray, "resamples n"],
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """The figures of many resamples of a set: an image counts as often as its weight says.

    Args:
      labels, probabilities: see `scores`.
      weights: how often each resample has each image; each class has to occur in each.
    """
    found: dict[str, np.ndarray] = {}
    for index, name in enumerate(CLASSES):
        found[f"auc_{name}"] = weighted_auc(labels == index, probabilities[:, index], weights)
    found["auc"] = np.mean([found[f"auc_{name}"] for name in CLASSES], axis=0)
    number, calls = weights.sum(1), probabilities.argmax(1)
    pairs = np.eye(len(CLASSES) ** 2)[len(CLASSES) * labels + calls]
    counts = (weights @ pairs).reshape(-1, len(CLASSES), len(CLASSES))
    right = counts.diagonal(axis1=1, axis2=2)
    found["accuracy"] = right.sum(1) / number
    found["balanced_accuracy"] = (right / counts.sum(2)).mean(1)
    f1 = 2 * right / (counts.sum(1) + counts.sum(2))
    found |= {f"f1_{name}": f1[:, index] for index, name in enumerate(CLASSES)}
    found["f1"] = f1.mean(1)
    confidence = probabilities.max(1)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    excess = np.eye(ECE_BINS)[bins] * (confidence - (calls == labels))[:, None]
    found["ece"] = np.abs(weights @ excess).sum(1) / number
    truth = np.eye(len(CLASSES))[labels]
    found["brier"] = weights @ ((probabilities - truth) ** 2).sum(1) / number
    tiny = np.finfo(np.float64).tiny
    true_class = np.maximum(probabilities[np.arange(len(labels)), labels], tiny)
    found["nll"] = weights @ -np.log(true_class) / number
    return {name: found[name] for name in NAMES}


def weighted_auc(
    positive: np.ndarray, values: Float[np.ndarray, " n"], weights: Float[np.ndarray, "resamples n"]
) -> Float[np.ndarray, " resamples"]:
    """Area under the ROC curve: the chance that a positive has the larger value, ties counted half.

    Args:
      positive: which images are.
      values: by which images are ranked.
      weights: how often each resample has each image.
    """
    order = np.argsort(values)
    # Where a run of equal values starts, in rising order.
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    ordered = weights[:, order]
    positives = np.add.reduceat(ordered * positive[order], starts, axis=1)
    negatives = np.add.reduceat(ordered * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return (positives * below).sum(1) / (positives.sum(1) * negatives.sum(1))


def resample_weights(
    labels: Integer[np.ndarray, " n"], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Integer[np.ndarray, "resamples n"]:
    """How often each bootstrap resample has each image: multinomial counts within each class.

    The sizes of the classes are the data set's choice and stay as they are.

    Args:
      labels: index of each image's class.
      resamples: how many.
      seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(labels)), np.uint16)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        drawn = generator.integers(0, len(rows), (resamples, len(rows)))
        drawn += len(rows) * np.arange(resamples)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size)
        weights[:, rows] = counts.reshape(drawn.shape)
    return weights


def bootstrap(
    labels: Integer[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n classes"],
    weights: Integer[np.ndarray, "resamples n"],
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """The figures of each resample.

    Args:
      labels, probabilities: see `scores`.
      weights: made by `resample_weights`.
    """
    step = max(1, _AT_A_TIME // len(labels))
    parts = [
        weighted_scores(labels, probabilities, weights[first : first + step].astype(np.float64))
        for first in range(0, len(weights), step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in NAMES}


def intervals(
    draws: Mapping[str, Float[np.ndarray, " resamples"]], *, level: float = LEVEL
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the figures of resamples.

    Args:
      draws: the figures, by name.
      level: share of the resamples within.
    """
    tail = (1 - level) / 2
    return {
        name: (float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail)))
        for name, values in draws.items()
    }
