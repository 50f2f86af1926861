"""A trained classifier, loaded from the folder of its run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lensjax import models
from lensjax.data.images import ImageSet
from lensjax.data.preparation import num_channels, prepared_size
from lensjax.data.residuals import add_residuals
from lensjax.errors import UserError
from lensjax.evaluation.calibration import apply_temperature
from lensjax.prediction import tta
from lensjax.prediction.predictor import ModelPredictions, Predictor, make_predictor
from lensjax.training.checkpoints import Checkpoints
from lensjax.workdir import CHECKPOINTS, check_single_run, read_config


@dataclasses.dataclass(frozen=True)
class PredictionOptions:
    """Options of a prediction.

    Attributes:
      temperature: divisor of the logits, applied to each view separately.
      d4: if True, probabilities are averaged over eight views of each image (`lensjax.prediction.tta`).
    """

    temperature: float = 1.0
    d4: bool = False


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """The best epoch of a run.

    Attributes:
      config: config of the run.
      model: the classifier's module, in float32.
      variables: parameters and running statistics.
      best_epoch: number of the epoch, from 1.
      history: metrics of each epoch up to the newest checkpoint.
      workdir: the run's folder.
    """

    config: ConfigDict
    model: Any
    variables: dict[str, Any]
    best_epoch: int
    history: list[dict[str, Any]]
    workdir: Path
    _predict: Predictor

    def predict(
        self, images: ImageSet, options: PredictionOptions = PredictionOptions(), *, quiet: bool = False
    ) -> ModelPredictions:
        """Classifies a set of images; fits smooth lenses first if the classifier needs them.

        Args:
          images: images of the size used in training.
          options: temperature and test-time augmentation.
          quiet: if True, no progress bar is shown.
        """
        images = self.add_residuals(images)
        views = tta.views(images) if options.d4 else [images]
        parts = [self._predict(self.variables, view, quiet=quiet) for view in views]
        probabilities = [part.probabilities for part in parts]
        if options.temperature != 1:
            probabilities = [apply_temperature(part, options.temperature) for part in probabilities]
        radii = [part.theta_E for part in parts if part.theta_E is not None]
        return ModelPredictions(
            np.mean(probabilities, axis=0) if options.d4 else probabilities[0],
            np.mean(radii, axis=0) if radii else None,
            parts[0].losses,
        )

    def add_residuals(self, images: ImageSet) -> ImageSet:
        """Adds the residuals of the lens fit to images if the classifier was trained with them."""
        return add_residuals(images, self.config.data.fit, keep=False)


def load_trained_model(workdir: Path, *, devices: Sequence[jax.Device]) -> TrainedModel:
    """Loads the best epoch of a run.

    Args:
      workdir: the run's folder.
      devices: devices to predict on.

    Raises:
      UserError: if there is no run, no complete epoch, or the checkpoint belongs to a different model.
    """
    config = read_config(workdir)
    check_single_run(workdir, config)
    if not (workdir / CHECKPOINTS).is_dir():
        raise UserError(f"{workdir} has no {CHECKPOINTS}/ yet; train first")
    model = models.build(config)
    size = prepared_size(config.data.image_size, config.preparation.crop)
    image = jnp.zeros((1, size, size, num_channels(config.data.fit)))
    like = jax.eval_shape(lambda key: model.init(key, image, train=False), jax.random.key(0))
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        variables, best_epoch = checkpoints.restore_best(like)
        history = checkpoints.newest_history()
    return TrainedModel(
        config,
        model.clone(dtype=None),
        variables,
        best_epoch,
        history,
        workdir,
        make_predictor(config, model, devices=devices),
    )
