"""A trained classifier, read back from its run's folder."""

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
from lensjax.evaluation.calibration import tempered
from lensjax.prediction import tta
from lensjax.prediction.predictor import Predictions, Predictor, predictor
from lensjax.training.checkpoints import Checkpoints
from lensjax.workdir import CHECKPOINTS, check_single_run, read_config


@dataclasses.dataclass(frozen=True)
class Manner:
    """How a classifier answers.

    Attributes:
      temperature: what logits are divided by, each view's for itself.
      d4: whether to give the mean over the eight views of each image (`lensjax.prediction.tta`).
    """

    temperature: float = 1.0
    d4: bool = False


@dataclasses.dataclass(frozen=True)
class Trained:
    """The best epoch of a run.

    Attributes:
      config: the run's config.
      model: the classifier's module, in float32.
      variables: its parameters and running statistics.
      best_epoch: the epoch's number, from 1.
      history: the metrics of each epoch up to the newest checkpoint.
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
        self, images: ImageSet, manner: Manner = Manner(), *, quiet: bool = False
    ) -> Predictions:
        """The classifier's answers to a set of images; lenses are fitted to them first if it needs that.

        Args:
          images: of the size that the classifier was trained with.
          manner: how to answer.
          quiet: whether to show no progress.
        """
        images = self.add_residuals(images)
        seen = tta.views(images) if manner.d4 else [images]
        parts = [self._predict(self.variables, view, quiet=quiet) for view in seen]
        probabilities = [part.probabilities for part in parts]
        if manner.temperature != 1:
            probabilities = [tempered(part, manner.temperature) for part in probabilities]
        radii = [part.theta_E for part in parts if part.theta_E is not None]
        return Predictions(
            np.mean(probabilities, axis=0) if manner.d4 else probabilities[0],
            np.mean(radii, axis=0) if radii else None,
            parts[0].losses,
        )

    def add_residuals(self, images: ImageSet) -> ImageSet:
        """The set with the residuals of the fits that the classifier was trained with, if any."""
        return add_residuals(images, self.config.data.fit, keep=False)


def load_trained(workdir: Path, *, devices: Sequence[jax.Device]) -> Trained:
    """The best epoch of the run in `workdir`.

    Args:
      workdir: the folder of a run.
      devices: what to predict on.

    Raises:
      UserError: there is no run or no whole epoch, or the checkpoint is of another model.
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
    return Trained(
        config,
        model.clone(dtype=None),
        variables,
        best_epoch,
        history,
        workdir,
        predictor(config, model, devices=devices),
    )
