"""Temperature scaling of classifier probabilities."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from lensjax.errors import UserError
from lensjax.evaluation.types import Labels, Probabilities
from lensjax.json_text import encode_json
from lensjax.workdir import seal, unseal, write_atomically

CALIBRATION_FILE = "calibration.json"  # in the run's folder
TEMPERATURE_RANGE = (0.05, 20.0)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A fitted temperature and the data it was fitted to.

    Attributes:
      temperature: divisor of the logits; above 1 if the classifier is overconfident.
      split: name of the split.
      images: number of images in the split.
      best_epoch: epoch of the model whose predictions were used.
    """

    temperature: float
    split: str
    images: int
    best_epoch: int


def fit_temperature(labels: Labels, probabilities: Probabilities) -> float:
    """Temperature that maximizes the likelihood of the labels.

    The negative log-likelihood is convex in the inverse temperature, so there is a single optimum. If every
    prediction is correct, the optimum is 0 and the lower end of `TEMPERATURE_RANGE` is returned.

    Args:
      labels: class index of each image.
      probabilities: class probabilities of each image.

    Reference: Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    logits = to_logits(probabilities)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean())

    low, high = np.log(TEMPERATURE_RANGE)
    result = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(result.x))


def apply_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Probabilities after division of the logits by a temperature.

    Args:
      probabilities: class probabilities of each image.
      temperature: divisor of the logits.
    """
    return softmax(to_logits(probabilities) / temperature, axis=1)


def to_logits(probabilities: Probabilities) -> Float[np.ndarray, "n classes"]:
    """Logits that correspond to probabilities, up to an additive constant per image.

    Args:
      probabilities: class probabilities of each image; 0 is replaced by the smallest normal float64 number.
    """
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))


def write_calibration(workdir: Path, calibration: Calibration) -> None:
    """Writes the calibration to the run's folder, replacing any earlier one."""
    content = encode_json(seal(dataclasses.asdict(calibration)), indent=2)
    write_atomically(workdir / CALIBRATION_FILE, content + "\n")


def read_temperature(workdir: Path, best_epoch: int) -> float | None:
    """Temperature fitted to a run's best epoch; None if there is none for this epoch.

    Args:
      workdir: the run's folder.
      best_epoch: number of the epoch, from 1.

    Raises:
      UserError: if the file is damaged.
    """
    path = workdir / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        calibration = Calibration(**unseal(json.loads(path.read_text(encoding="utf-8"))))
        temperature = float(calibration.temperature)
        if not TEMPERATURE_RANGE[0] <= temperature <= TEMPERATURE_RANGE[1]:
            raise ValueError(f"temperature {temperature} is out of range")
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and fit the temperature again") from None
    return temperature if calibration.best_epoch == best_epoch else None
