"""Run folders with random parameters, for tests that do not need a trained model."""

import pathlib

import jax
import numpy as np
import optax

from lensjax import models
from lensjax.config import default_config
from lensjax.data.images import CLASSES
from lensjax.training.checkpoint_files import Progress
from lensjax.training.checkpoints import Checkpoints
from lensjax.training.state import initial_state
from lensjax.workdir import CHECKPOINTS, claim

SIZE = 32


def make_run(folder: pathlib.Path, seed: int = 0, **changes: object) -> pathlib.Path:
    """Creates the folder of a run of one epoch.

    Args:
      folder: path of the new folder.
      seed: seed of the parameters.
      changes: changed fields of the config, by dotted name.

    Returns:
      The folder.
    """
    config = default_config()
    small = {"data.image_size": SIZE, "model.width": 4, "eval_batch_size": 8}
    small |= {"model.name": "lens_fit_net", "model.num_blocks": 0, "model.input": "image"}
    config.update_from_flattened_dict(small | {"augmentation.dihedral": True} | changes)
    claim(folder, config)
    model = models.build(config)
    channels = 1 if config.data.fit == "none" else 2
    side = config.preparation.crop or config.data.image_size
    state = initial_state(
        model, optax.sgd(1.0), jax.random.key(seed), image_size=side, channels=channels, terms=()
    )
    # Triples the kernels of dense layers, so that the predictions for different images differ.
    scaled = jax.tree.map(lambda leaf: np.asarray(leaf) * (3 if leaf.ndim == 2 else 1), state.params)
    metrics = {"epoch": 1, "validation_auc": 0.5}
    curves = [f"validation_auc_{name}" for name in CLASSES]
    record = metrics | dict.fromkeys(("train_loss", "validation_loss", *curves), 1.0)
    progress = Progress(epoch=1, history=[record])
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        checkpoints.save(state.replace(params=scaled), progress)
        checkpoints.wait()
    return folder
