"""What a run starts from: its step, and its state and progress, new or from a checkpoint."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key
from ml_collections import ConfigDict, FrozenConfigDict

from lensjax.data.preparation import num_channels, prepared_size
from lensjax.models import ClassifierModule
from lensjax.runtime.progress import log
from lensjax.training import optimizer
from lensjax.training.checkpoints import Checkpoints, Progress
from lensjax.training.losses import term_names
from lensjax.training.pretrained import start_from
from lensjax.training.recipe import Recipe
from lensjax.training.state import TrainState, initial_state, stack_runs
from lensjax.training.step import StepFunction, train_step

_QUICK_COMPILATION: dict[str, Any] = {"xla_backend_optimization_level": 1}


def build_step(config: ConfigDict, model: ClassifierModule, num_steps: int) -> StepFunction:
    """The training step of a config.

    Args:
      config: the whole config.
      model: the classifier; its `axis_name` is the mapped axis that batches are divided over.
      num_steps: steps in an epoch.
    """
    return functools.partial(
        train_step,
        model=model,
        optimizer=_optimizer(config, num_steps),
        recipe=Recipe.from_config(config),
    )


def first_state(
    config: ConfigDict, model: ClassifierModule, num_steps: int
) -> tuple[TrainState, Key[Array, ""]]:
    """A run's state before its first step, and the key of its steps; arguments as for `build_step`."""
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    arguments: Any = model, _optimizer(config, num_steps)
    initialize = _compile_initialization(*arguments, **_settings(config))
    return initialize(init_key), step_key


def abstract_state(config: ConfigDict, model: ClassifierModule) -> TrainState:
    """Shapes and types of the state of `first_state`; nothing is computed."""
    settings = _settings(config)
    initialize = functools.partial(initial_state, model, _optimizer(config, 1), **settings)
    return jax.eval_shape(initialize, jax.random.key(0))


def _settings(config: ConfigDict) -> dict[str, Any]:
    return {
        "image_size": prepared_size(config.data.image_size, config.preparation.crop),
        "channels": num_channels(config.data.fit),
        "terms": term_names(config.model.name),
        "with_ema": config.optimizer.ema_decay > 0,
    }


@functools.lru_cache(maxsize=8)
def _compile_initialization(
    model: ClassifierModule, adamw: optax.GradientTransformation, **settings: Any
) -> Callable[[Key[Array, ""]], TrainState]:
    """`initial_state` as a function of the key, compiled once for all seeds."""
    initialize = functools.partial(initial_state, model, adamw, **settings)
    lowered = jax.jit(initialize).lower(jax.random.key(0))
    try:
        # It runs once. With less optimization it compiles in a third of the time.
        return lowered.compile(compiler_options=_QUICK_COMPILATION)
    except jax.errors.JaxRuntimeError:  # this XLA does not have the option
        return lowered.compile()


def start_or_resume(
    configs: Sequence[ConfigDict],
    model: ClassifierModule,
    num_steps: int,
    checkpoints: Sequence[Checkpoints],
) -> tuple[TrainState, Key[Array, "*runs"], list[Progress], bool]:
    """State and key of some runs, the progress of each, and whether they are from checkpoints.

    Args:
      configs: of each run.
      model, num_steps: see `build_step`.
      checkpoints: of each run.

    Raises:
      UserError: a checkpoint is of another model, or a file of weights cannot be used.
    """
    states, keys, progress = [], [], []
    resumed = False
    for config, saved in zip(configs, checkpoints, strict=True):
        state, key = first_state(config, model, num_steps)
        restored = saved.restore_newest(state)
        if restored is None:
            # Only now: a run that resumes does not need the file of weights any more.
            variables = start_from(state.variables, config.model)
            ema = jax.tree.map(jnp.copy, variables) if state.ema else {}
            restored = state.replace(**variables, ema=ema), Progress()
        else:
            resumed = True
        states.append(restored[0])
        keys.append(key)
        progress.append(restored[1])
    size = sum(leaf.size for leaf in jax.tree.leaves(states[0].params))
    several = f" in each of {len(states)} runs" if len(states) > 1 else ""
    log.info("%s: %s parameters%s", configs[0].model.name, f"{size:,}", several)
    return stack_runs(states), stack_runs(keys), progress, resumed


def _optimizer(config: ConfigDict, num_steps: int) -> optax.GradientTransformation:
    total = max(config.num_epochs, 1) * num_steps
    return _cached_optimizer(FrozenConfigDict(config.optimizer), total)


@functools.lru_cache(maxsize=8)
def _cached_optimizer(config: FrozenConfigDict, num_steps: int) -> optax.GradientTransformation:
    """The same object for the same settings, so that what is compiled with it is used again."""
    return optimizer.build(config, num_steps)
