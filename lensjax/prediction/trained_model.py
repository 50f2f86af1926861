"""A trained classifier, loaded from the folder of its run or from a model file.

A model file is a weight file (`lensjax.weights`) that also contains the domain of a run as arrays, and the
config, best epoch and temperature as metadata; `lensjax export --format safetensors` writes it. The files in
`lensjax/trained/` are part of the package.
"""

import dataclasses
import difflib
import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lensjax import models, weights
from lensjax.data.images import ImageSet
from lensjax.data.preparation import num_channels, prepared_size
from lensjax.data.residuals import add_residuals
from lensjax.errors import UserError
from lensjax.evaluation.calibration import apply_temperature, read_temperature
from lensjax.prediction import tta
from lensjax.prediction.domain import Domain, from_arrays, read_domain
from lensjax.prediction.predictor import ModelPredictions, Predictor, make_predictor
from lensjax.runtime.paths import user_path
from lensjax.runtime.progress import log
from lensjax.training.checkpoints import Checkpoints
from lensjax.workdir import CHECKPOINTS, CONFIG, check_single_run, parse_config, read_config

MODEL_SUFFIX = ".safetensors"
SHIPPED = Path(__file__).parent.parent / "trained"


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
      history: metrics of each epoch up to the newest checkpoint; empty for model files.
      workdir: the run's folder, or the model file.
    """

    config: ConfigDict
    model: Any
    variables: dict[str, Any]
    best_epoch: int
    history: list[dict[str, Any]]
    workdir: Path
    _predict: Predictor
    _stored_temperature: float | None = None
    _stored_domain: Domain | None = None

    @property
    def temperature(self) -> float | None:
        """Divisor of the logits that calibrates the probabilities; None if it was not fitted."""
        if self.workdir.suffix == MODEL_SUFFIX:
            return self._stored_temperature
        return read_temperature(self.workdir, self.best_epoch)

    @functools.cached_property
    def domain(self) -> Domain | None:
        """Range of images for which the predictions are reliable; None if it was not measured."""
        if self.workdir.suffix == MODEL_SUFFIX:
            return self._stored_domain
        return read_domain(self.workdir, self.best_epoch)

    def warn_without_domain(self) -> None:
        """Logs a warning if predictions cannot be compared with the validation images."""
        if self.domain is not None:
            return
        write = "lensjax evaluate --split validation --workdir"
        log.warning(
            "%s has no record of its validation images, so images unlike them are not marked; %s",
            self.workdir,
            f"export it again after {write} RUN"
            if self.workdir.suffix == MODEL_SUFFIX
            else f"write it with {write} {self.workdir}",
        )

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
            parts[0].features,
        )

    def add_residuals(self, images: ImageSet) -> ImageSet:
        """Adds the residuals of the lens fit to images if the classifier was trained with them."""
        return add_residuals(images, self.config.data.fit, keep=False)


def load_trained_model(workdir: str | os.PathLike[str], *, devices: Sequence[jax.Device]) -> TrainedModel:
    """Loads the best epoch of a run, or a model file.

    Args:
      workdir: the run's folder, or a model file (.safetensors).
      devices: devices to predict on.

    Raises:
      UserError: if there is no run or no complete epoch, or if the weights do not match the config.
    """
    workdir = Path(workdir)
    if workdir.suffix == MODEL_SUFFIX:
        return _load_model_file(workdir, devices)
    config = read_config(workdir)
    check_single_run(workdir, config)
    if not (workdir / CHECKPOINTS).is_dir():
        raise UserError(f"{workdir} has no {CHECKPOINTS}/ yet; train first")
    model = models.build(config)
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        variables, best_epoch, history = checkpoints.restore_best(_abstract_variables(config, model))
    return TrainedModel(
        config,
        model.clone(dtype=None),
        variables,
        best_epoch,
        history,
        workdir,
        make_predictor(config, model, devices=devices, with_features=True),
    )


def find_model(name: str) -> Path:
    """Path of a model that is part of the package, or of a run or model file.

    Args:
      name: name of a model in `lensjax/trained/`, the folder of a run, or a model file.

    Raises:
      UserError: if there is no such model, run or file.
    """
    path = user_path(name)
    if path.is_file() or (path / CONFIG).is_file():
        return path
    shipped = {file.stem: file for file in sorted(SHIPPED.glob("*" + MODEL_SUFFIX))}
    if name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(
        f"{name} is not the folder of a run, a model file, or a model of this package "
        f"({', '.join(shipped)}){hint}"
    )


def _load_model_file(path: Path, devices: Sequence[jax.Device]) -> TrainedModel:
    variables, metadata = weights.load(path)
    if "config" not in metadata:
        raise UserError(
            f"{path} has weights but no config of a run; write it with lensjax export --format safetensors"
        )
    config = parse_config(metadata["config"], path)
    best_epoch, temperature = _read_epoch_and_temperature(path, metadata)
    model = models.build(config)
    domain = from_arrays(variables.pop("domain", None), path)
    expected, found = (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
        for tree in (_abstract_variables(config, model), variables)
    )
    if expected != found:
        raise UserError(f"{path}: the weights do not match the config in the file; export the run again")
    return TrainedModel(
        config,
        model.clone(dtype=None),
        variables,
        best_epoch,
        [],
        path,
        make_predictor(config, model, devices=devices, with_features=True),
        temperature,
        domain,
    )


def _read_epoch_and_temperature(path: Path, metadata: Mapping[str, str]) -> tuple[int, float | None]:
    """Best epoch of a model file, and its temperature if it has one."""
    try:
        best_epoch, temperature = int(metadata["best_epoch"]), json.loads(metadata["temperature"])
        if temperature is None or (0 < float(temperature) < math.inf):
            return best_epoch, temperature and float(temperature)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        pass
    raise UserError(f"{path}: the best epoch or temperature in the file is invalid; export the run again")


def _abstract_variables(config: ConfigDict, model: models.ClassifierModule) -> Any:
    """Shapes and types of a model's variables."""
    size = prepared_size(config.data.image_size, config.preparation.crop)
    image = jnp.zeros((1, size, size, num_channels(config.data.fit)))
    return jax.eval_shape(lambda key: model.init(key, image, train=False), jax.random.key(0))
