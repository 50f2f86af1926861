"""Predictions of a model for sets of images."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict
from scipy.special import softmax
from tqdm import tqdm

from lensjax.data.batches import iterate_batches
from lensjax.data.images import ImageSet
from lensjax.evaluation.metrics import classification_metrics
from lensjax.models import ClassifierModule
from lensjax.runtime.progress import progress_bar
from lensjax.training import processes
from lensjax.training.parallel import check_batch_size, parallelize, shard
from lensjax.training.profiler import Profiler
from lensjax.training.recipe import Recipe
from lensjax.training.step import eval_step

PyTree = Any


@dataclasses.dataclass(frozen=True)
class ModelPredictions:
    """Predictions of a model for a set of images, in the order of the set.

    Attributes:
      probabilities: class probabilities.
      theta_E: Einstein radius in the model's own units; None if the model has none.
      losses: loss terms by name; empty if not requested.
      features: inputs of the last layer; None if not requested.
    """

    probabilities: Float[np.ndarray, "n classes"]
    theta_E: Float[np.ndarray, " n"] | None
    losses: dict[str, Float[np.ndarray, " n"]]
    features: Float[np.ndarray, "n channels"] | None = None


class Predictor(Protocol):
    """Function that classifies an image set with a model's variables; `quiet` hides the progress bar."""

    def __call__(self, variables: PyTree, images: ImageSet, *, quiet: bool = False) -> ModelPredictions:
        """Predictions for the images."""


def make_predictor(
    config: ConfigDict,
    model: ClassifierModule,
    *,
    devices: Sequence[jax.Device],
    with_loss: bool = False,
    with_features: bool = False,
    profiler: Profiler | None = None,
) -> Predictor:
    """Makes a prediction function that is compiled once and works for all image sets.

    Args:
      config: the full config of the run.
      model: the classifier.
      devices: devices to run on. Each device gets an equal share of a batch; if other processes own some
        of the devices, the images are shared among the processes.
      with_loss: if True, the predictions include the loss terms.
      with_features: if True, the predictions include the inputs of the last layer.
      profiler: if given, measures the time of each step.

    Raises:
      UserError: if a batch cannot be divided equally among the devices.
    """
    here = processes.local_devices(devices)
    check_batch_size("eval_batch_size", config.eval_batch_size, len(devices))
    share = config.eval_batch_size // len(devices) * len(here)
    step = parallelize(
        functools.partial(
            eval_step,
            model=model,
            recipe=Recipe.from_config(config),
            with_loss=with_loss,
            with_features=with_features,
        ),
        here,
        in_axes=(None, 0),
        out_axes=0,
    )
    if profiler is not None:
        step = profiler.time_evaluation(step)

    def predict(variables: PyTree, images: ImageSet, *, quiet: bool = False) -> ModelPredictions:
        parts: list[dict[str, np.ndarray]] = []
        rows = processes.local_row_indices(len(images), devices)
        with tqdm(disable=True) if quiet else progress_bar(len(rows), "evaluating") as bar:
            for batch in iterate_batches(images, rows, share):
                real = batch["weights"] > 0
                values = jax.device_get(step(variables, shard(dict(batch), here)))
                parts.append({name: np.concatenate(value)[real] for name, value in values.items()})
                bar.update(int(real.sum()))
        values = {
            name: processes.gather_rows(np.concatenate([part[name] for part in parts]), devices)[
                : len(images)
            ]
            for name in parts[0]
        }
        logits = values.pop("logits").astype(np.float64)
        theta_E, features = values.pop("theta_E", None), values.pop("features", None)
        return ModelPredictions(softmax(logits, axis=1), theta_E, values, features)

    return predict


def make_evaluator(predict: Predictor, images: ImageSet) -> Callable[[PyTree], dict[str, float]]:
    """Makes a function that maps a model's variables to the validation metrics, by name.

    Args:
      predict: from `make_predictor`, with the loss terms.
      images: the validation images.
    """

    def evaluate(variables: PyTree) -> dict[str, float]:
        predictions = predict(variables, images)
        values = classification_metrics(images.labels, predictions.probabilities)
        values |= {name: float(losses.mean()) for name, losses in predictions.losses.items()}
        return {f"validation_{name}": value for name, value in values.items()}

    return evaluate
