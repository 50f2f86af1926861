"""What a run starts from: its state, its step and its key, all of them from the config."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import linen as nn
from jaxtyping import Array, Key
from ml_collections import ConfigDict, FrozenConfigDict

from lensjax.compiler_options import LESS_OPTIMISED, if_known
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
    return _compiled_start()(jax.random.key(config.seed), **_start_of(config, model, num_batches))


def abstract_state(config: ConfigDict, model: nn.Module, num_batches: int) -> TrainState:
    """The shapes and types of `first_state`'s state; nothing is computed."""
    start = functools.partial(_start, **_start_of(config, model, num_batches))
    return jax.eval_shape(start, jax.random.key(config.seed))[0]


def _start_of(config: ConfigDict, model: nn.Module, num_batches: int) -> dict[str, Any]:
    return {
        "model": model,
        "adamw": _adamw(config, num_batches),
        "image_size": prepared_size(config.data.image_size, config.preparation.crop),
        "channels": num_channels(config.data.fit),
        "terms": term_names(config.model.name),
        "with_ema": config.optimizer.ema_decay > 0,
    }


def _start(
    key: Key[Array, ""], *, model: nn.Module, adamw: optax.GradientTransformation, **how: Any
) -> tuple[TrainState, Key[Array, ""]]:
    init_key, step_key = jax.random.split(key)
    return initial_state(model, adamw, init_key, **how), step_key


@functools.cache
def _compiled_start() -> Callable[..., tuple[TrainState, Key[Array, ""]]]:
    """One program, for all seeds: hundreds of small ones, for each array, take a second to compile."""
    return jax.jit(
        _start,
        static_argnames=("model", "adamw", "image_size", "channels", "terms", "with_ema"),
        compiler_options=if_known(LESS_OPTIMISED),
    )


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
    num_steps = max(config.num_epochs, 1) * num_batches
    return _same_adamw(FrozenConfigDict(config.optimizer), num_steps)


@functools.lru_cache(maxsize=8)
def _same_adamw(config: FrozenConfigDict, num_steps: int) -> optax.GradientTransformation:
    """The same object for the same settings, so that what is compiled with it serves again."""
    return optimizer.build(config, num_steps)
