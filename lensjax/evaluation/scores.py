"""Scores of a classifier on a set of images and on its bootstrap resamples."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Integer

from lensjax.data.images import CLASSES
from lensjax.evaluation.types import Labels, Probabilities

ECE_BINS = 15
RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
_MAX_WEIGHTS = 2_000_000  # resamples x images per step; limits the memory

AUC_NAMES = (*(f"auc_{name}" for name in CLASSES), "auc")
F1_NAMES = (*(f"f1_{name}" for name in CLASSES), "f1")
SCORE_NAMES = (*AUC_NAMES, "accuracy", "balanced_accuracy", *F1_NAMES, "ece", "brier", "nll")


def compute_scores(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """All scores in `SCORE_NAMES` for a set of images.

    `auc` and `f1` are means over the classes. `ece` is the expected calibration error: images are binned by
    the probability of the predicted class (15 bins of equal width), and the absolute difference between mean
    probability and accuracy is averaged over the bins, weighted by the number of images. `brier` is the
    squared distance between probabilities and one-hot labels, summed over the classes (0 to 2). `nll` is the
    mean negative log-likelihood of the true class, in nats.

    Args:
      labels: class index of each image; every class must occur.
      probabilities: class probabilities of each image.

    Reference: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning".
    """
    scores = weighted_scores(labels, probabilities, np.ones((1, len(labels))))
    return {name: float(values[0]) for name, values in scores.items()}


def weighted_scores(
    labels: Labels, probabilities: Probabilities, weights: Float[np.ndarray, "resamples n"]
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """Scores of many resamples, each given by the weights of the images.

    Args:
      labels, probabilities: see `compute_scores`.
      weights: multiplicity of each image in each resample; every class must occur in every resample.
    """
    found: dict[str, np.ndarray] = {}
    for index, name in enumerate(CLASSES):
        found[f"auc_{name}"] = weighted_auc(labels == index, probabilities[:, index], weights)
    found["auc"] = np.mean([found[f"auc_{name}"] for name in CLASSES], axis=0)
    number, predicted = weights.sum(1), probabilities.argmax(1)
    pairs = np.eye(len(CLASSES) ** 2)[len(CLASSES) * labels + predicted]
    counts = (weights @ pairs).reshape(-1, len(CLASSES), len(CLASSES))
    right = counts.diagonal(axis1=1, axis2=2)
    found["accuracy"] = right.sum(1) / number
    found["balanced_accuracy"] = (right / counts.sum(2)).mean(1)
    f1 = 2 * right / (counts.sum(1) + counts.sum(2))
    found |= {f"f1_{name}": f1[:, index] for index, name in enumerate(CLASSES)}
    found["f1"] = f1.mean(1)
    confidence = probabilities.max(1)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    excess = np.eye(ECE_BINS)[bins] * (confidence - (predicted == labels))[:, None]
    found["ece"] = np.abs(weights @ excess).sum(1) / number
    one_hot = np.eye(len(CLASSES))[labels]
    found["brier"] = weights @ ((probabilities - one_hot) ** 2).sum(1) / number
    tiny = np.finfo(np.float64).tiny
    true_class = np.maximum(probabilities[np.arange(len(labels)), labels], tiny)
    found["nll"] = weights @ -np.log(true_class) / number
    return {name: found[name] for name in SCORE_NAMES}


def weighted_auc(
    positive: np.ndarray, values: Float[np.ndarray, " n"], weights: Float[np.ndarray, "resamples n"]
) -> Float[np.ndarray, " resamples"]:
    """Area under the ROC curve: the probability that a positive has the larger value; ties count half.

    Args:
      positive: True for positive images.
      values: score of each image; images are ranked by it.
      weights: multiplicity of each image in each resample.
    """
    order = np.argsort(values)
    # First index of each group of equal values.
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    ordered = weights[:, order]
    positives = np.add.reduceat(ordered * positive[order], starts, axis=1)
    negatives = np.add.reduceat(ordered * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return (positives * below).sum(1) / (positives.sum(1) * negatives.sum(1))


def resample_weights(
    labels: Labels, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Integer[np.ndarray, "resamples n"]:
    """Multiplicity of each image in each bootstrap resample, multinomial within each class.

    The class sizes are part of the design of the data set, so they stay fixed.

    Args:
      labels: class index of each image.
      resamples: number of resamples.
      seed: random seed.
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


def bootstrap_scores(
    labels: Labels, probabilities: Probabilities, weights: Integer[np.ndarray, "resamples n"]
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """All scores in `SCORE_NAMES` for each bootstrap resample.

    Args:
      labels, probabilities: see `compute_scores`.
      weights: from `resample_weights`.
    """
    step = max(1, _MAX_WEIGHTS // len(labels))
    parts = [
        weighted_scores(labels, probabilities, weights[first : first + step].astype(np.float64))
        for first in range(0, len(weights), step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in SCORE_NAMES}


def percentile_intervals(
    samples: Mapping[str, Float[np.ndarray, " resamples"]], *, level: float = LEVEL
) -> dict[str, tuple[float, float]]:
    """Central percentile interval of each score.

    Args:
      samples: bootstrap samples of the scores, by name.
      level: fraction of the resamples inside the interval.
    """
    tail = (1 - level) / 2
    return {
        name: (float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail)))
        for name, values in samples.items()
    }
