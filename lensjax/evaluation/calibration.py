"""Temperature scaling: one number that makes a classifier's probabilities mean what they say."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from lensjax.errors import UserError
from lensjax.workdir import write_atomically

CALIBRATION = "calibration.json"  # in the run's folder
LIMITS = (0.05, 20.0)  # of a temperature


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A temperature and where it comes from.

    Attributes:
      temperature: logits are divided by it; above 1 the classifier was too sure of itself.
      split: which images it was fitted to.
      images: how many.
      best_epoch: of which epoch's answers.
    """

    temperature: float
    split: str
    images: int
    best_epoch: int


def fit_temperature(
    labels: Integer[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> float:
    """The temperature that makes the labels most probable.

    The negative log-likelihood is convex in its inverse, so there is one optimum; where all answers are
    right it lies at 0, and the least temperature in `LIMITS` is given.

    Args:
      labels: index of each image's class.
      probabilities: of each class, for each image.

    Reference: Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    logits = logits_of(probabilities)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean())

    low, high = np.log(LIMITS)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def tempered(
    probabilities: Float[np.ndarray, "n classes"], temperature: float
) -> Float[np.ndarray, "n classes"]:
    """Probabilities with their logits divided by a temperature."""
    return softmax(logits_of(probabilities) / temperature, axis=1)


def logits_of(probabilities: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    """Logits with these probabilities, the same up to a constant an image as those they came from."""
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))


def write_calibration(workdir: Path, calibration: Calibration) -> None:
    """Keeps a temperature in a run's folder, in place of an earlier one."""
    content = json.dumps(dataclasses.asdict(calibration), indent=2)
    write_atomically(workdir / CALIBRATION, content + "\n")


def read_temperature(workdir: Path, best_epoch: int) -> float | None:
    """The temperature of a run's best epoch; None where none was fitted, or only to another epoch.

    Raises:
      UserError: the file is damaged.
    """
    path = workdir / CALIBRATION
    if not path.is_file():
        return None
    try:
        found = Calibration(**json.loads(path.read_text()))
        temperature = float(found.temperature)
        if not LIMITS[0] <= temperature <= LIMITS[1]:
            raise ValueError(f"a temperature of {temperature}")
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it and fit it again") from None
    return temperature if found.best_epoch == best_epoch else None
