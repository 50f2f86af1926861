"""Whether a probability of 0.9 is right nine times of ten: the numbers of a reliability diagram."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Integer

from lensjax.evaluation.scores import ECE_BINS

_DEVIATIONS = 1.959964  # of a normal, on either side of 95 %


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Images in bins of the probability of the class that is called.

    Attributes:
      edges: of all bins.
      counts: images in each bin.
      confidence: mean probability in each bin that has images.
      accuracy: share of right calls there.
      interval: Wilson's 95 % interval of that share: its lower ends, its upper ends.
      ece: expected calibration error: distances of `confidence` and `accuracy`, weighted by images.
    """

    edges: Float[np.ndarray, " bins+1"]
    counts: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " filled"]
    accuracy: Float[np.ndarray, " filled"]
    interval: Float[np.ndarray, "2 filled"]
    ece: float


def reliability(
    labels: Integer[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n classes"],
    *,
    bins: int = ECE_BINS,
) -> Reliability:
    """The reliability diagram of some answers, in the bins of `scores`.

    Args:
      labels: index of each image's class.
      probabilities: of each class, for each image.
      bins: of equal width between 0 and 1, closed above.

    Reference: Guo et al. 2017, "On Calibration of Modern Neural Networks"; Wilson 1927, "Probable Inference".
    """
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = counts > 0
    number = counts[filled]
    mean = np.bincount(place, confidence, bins)[filled] / number
    right = np.bincount(place, probabilities.argmax(1) == labels, bins)[filled] / number
    return Reliability(
        edges=edges,
        counts=counts,
        confidence=mean,
        accuracy=right,
        interval=wilson(right, number),
        ece=float(np.sum(number * np.abs(mean - right)) / len(labels)),
    )


def wilson(
    shares: Float[np.ndarray, " n"], numbers: Integer[np.ndarray, " n"]
) -> Float[np.ndarray, "2 n"]:
    """Wilson's 95 % interval of shares: lower ends, upper ends.

    Args:
      shares: of successes.
      numbers: of trials.
    """
    z = _DEVIATIONS
    centre = (shares + z**2 / (2 * numbers)) / (1 + z**2 / numbers)
    half = np.sqrt(shares * (1 - shares) / numbers + z**2 / (4 * numbers**2))
    half *= z / (1 + z**2 / numbers)
    return np.stack([np.minimum(centre - half, shares), np.maximum(centre + half, shares)])
