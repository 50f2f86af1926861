"""Reliability diagrams: accuracy as a function of predicted probability."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Integer

from lensjax.evaluation.scores import ECE_BINS
from lensjax.evaluation.types import Labels, Probabilities

_Z_95 = 1.959964  # two-sided 95 % quantile of the standard normal distribution


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Images binned by the probability of the predicted class.

    Attributes:
      edges: bin edges.
      counts: number of images per bin.
      confidence: mean probability in each non-empty bin.
      accuracy: fraction of correct predictions in each non-empty bin.
      interval: lower and upper ends of the Wilson 95 % interval of `accuracy`.
      ece: expected calibration error, the mean of |confidence - accuracy| weighted by the number of images.
    """

    edges: Float[np.ndarray, " bins+1"]
    counts: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " filled"]
    accuracy: Float[np.ndarray, " filled"]
    interval: Float[np.ndarray, "2 filled"]
    ece: float


def reliability_diagram(labels: Labels, probabilities: Probabilities, *, bins: int = ECE_BINS) -> Reliability:
    """Reliability diagram, by default with the same bins as `lensjax.evaluation.scores`.

    Args:
      labels: class index of each image.
      probabilities: class probabilities of each image.
      bins: number of bins of equal width between 0 and 1; each bin includes its upper edge.

    Reference: Guo et al. 2017, "On Calibration of Modern Neural Networks"; Wilson 1927, "Probable Inference".
    """
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(1)
    bin_index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(bin_index, minlength=bins)
    filled = counts > 0
    number = counts[filled]
    mean = np.bincount(bin_index, confidence, bins)[filled] / number
    right = np.bincount(bin_index, probabilities.argmax(1) == labels, bins)[filled] / number
    return Reliability(
        edges=edges,
        counts=counts,
        confidence=mean,
        accuracy=right,
        interval=wilson_interval(right, number),
        ece=float(np.sum(number * np.abs(mean - right)) / len(labels)),
    )


def wilson_interval(
    fractions: Float[np.ndarray, " n"], trials: Integer[np.ndarray, " n"]
) -> Float[np.ndarray, "2 n"]:
    """Lower and upper ends of Wilson's 95 % interval of binomial fractions.

    Args:
      fractions: observed fractions of successes.
      trials: number of trials.
    """
    z = _Z_95
    center = (fractions + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half_width = np.sqrt(fractions * (1 - fractions) / trials + z**2 / (4 * trials**2))
    half_width *= z / (1 + z**2 / trials)
    return np.stack([np.minimum(center - half_width, fractions), np.maximum(center + half_width, fractions)])
