"""What a run starts from: its state, its step and its key, all of them from the config."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import linen as nn
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from lensjax.data.preparation import num_channels, prepare, prepared_size
from lensjax.training import optimizer
from lensjax.training.losses import term_names
from lensjax.training.parallel import AXIS
from lensjax.training.state import TrainState, initial_state
from lensjax.training.step import train_step


def first_state(
    config: ConfigDict, model: nn.Module, num_batches: int
) -> tuple[TrainState, Key[Array, ""]]:
    """A run's state before its first step, and the key of its steps.

    Args:
      config: the whole config of the run.
      model: the classifier.
      num_batches: steps in an epoch.
    """
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    state = initial_state(
        model,
        _adamw(config, num_batches),
        init_key,
        image_size=prepared_size(config.data.image_size, config.preparation.crop),
        channels=num_channels(config.data.fit),
        terms=term_names(config.model.name),
        with_ema=config.optimizer.ema_decay > 0,
    )
    return state, step_key


def step_of(
    config: ConfigDict, model: nn.Module, num_batches: int, *, axis_name: str | None = AXIS
) -> Callable[..., Any]:
    """A run's `train_step`, with all but its three arguments given.

    Args:
      config: the whole config of the run.
      model: the classifier, built with the same `axis_name`.
      num_batches: steps in an epoch.
      axis_name: mapped axis that batches are divided over; None where they are not divided.
    """
    return functools.partial(
        train_step,
        model=model,
        optimizer=_adamw(config, num_batches),
        prepare=functools.partial(prepare, **config.preparation),
        max_rotation=config.augmentation.max_rotation,
        dihedral=config.augmentation.dihedral,
        max_shift=config.augmentation.max_shift,
        physics_weight=config.loss.physics_weight,
        label_smoothing=config.loss.label_smoothing,
        ema_decay=config.optimizer.ema_decay,
        precision=config.precision,
        axis_name=axis_name,
    )


def _adamw(config: ConfigDict, num_batches: int) -> optax.GradientTransformation:
    return optimizer.build(config.optimizer, max(config.num_epochs, 1) * num_batches)
