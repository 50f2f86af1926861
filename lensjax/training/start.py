"""Start of a run: builds its training step, and initializes its state or restores it from a checkpoint."""

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
from lensjax.training.checkpoint_files import Progress
from lensjax.training.checkpoints import Checkpoints
from lensjax.training.losses import term_names
from lensjax.training.optimizer import build_optimizer
from lensjax.training.pretrained import load_pretrained
from lensjax.training.recipe import Recipe
from lensjax.training.state import TrainState, initial_state, stack_runs
from lensjax.training.step import StepFunction, train_step

_FAST_COMPILATION: dict[str, Any] = {"xla_backend_optimization_level": 1}


def build_step(config: ConfigDict, model: ClassifierModule, num_steps: int) -> StepFunction:
    """Builds the training step of a config.

    Args:
      config: the full config.
      model: the classifier; its `axis_name` is the mapped axis over which batches are sharded.
      num_steps: steps in an epoch.
    """
    return functools.partial(
        train_step,
        model=model,
        optimizer=_run_optimizer(config, num_steps),
        recipe=Recipe.from_config(config),
    )


def initialize_run(
    config: ConfigDict, model: ClassifierModule, num_steps: int
) -> tuple[TrainState, Key[Array, ""]]:
    """Initial state of a run, and the key of its steps; see `build_step` for the arguments."""
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    arguments: Any = model, _run_optimizer(config, num_steps)
    initialize = _compile_initialization(*arguments, **_state_options(config))
    return initialize(init_key), step_key


def abstract_state(config: ConfigDict, model: ClassifierModule) -> TrainState:
    """Shapes and types of the state of `initialize_run`; nothing is computed."""
    options = _state_options(config)
    initialize = functools.partial(initial_state, model, _run_optimizer(config, 1), **options)
    return jax.eval_shape(initialize, jax.random.key(0))


def _state_options(config: ConfigDict) -> dict[str, Any]:
    """The keyword arguments of `initial_state`."""
    return {
        "image_size": prepared_size(config.data.image_size, config.preparation.crop),
        "channels": num_channels(config.data.fit),
        "terms": term_names(config.model.name),
        "with_ema": config.optimizer.ema_decay > 0,
    }


@functools.lru_cache(maxsize=8)
def _compile_initialization(
    model: ClassifierModule, optimizer: optax.GradientTransformation, **options: Any
) -> Callable[[Key[Array, ""]], TrainState]:
    """`initial_state` as a function of the key, compiled once for all seeds."""
    initialize = functools.partial(initial_state, model, optimizer, **options)
    lowered = jax.jit(initialize).lower(jax.random.key(0))
    try:
        # It runs once; with less optimization it compiles in a third of the time.
        return lowered.compile(compiler_options=_FAST_COMPILATION)
    except jax.errors.JaxRuntimeError:  # XLA version without this option
        return lowered.compile()


def start_or_resume(
    configs: Sequence[ConfigDict], model: ClassifierModule, num_steps: int, checkpoints: Sequence[Checkpoints]
) -> tuple[TrainState, Key[Array, "*runs"], list[Progress], bool]:
    """Initial or restored state of one or more runs.

    Args:
      configs: config of each run.
      model, num_steps: see `build_step`.
      checkpoints: checkpoints of each run.

    Returns:
      State and key, stacked over runs if there are several; the progress of each run; and whether any run
      resumes from a checkpoint.

    Raises:
      UserError: if a checkpoint is damaged or belongs to a different model, or a weight file cannot be used.
    """
    states, keys, progress = [], [], []
    resumed = False
    for config, saved in zip(configs, checkpoints, strict=True):
        state, key = initialize_run(config, model, num_steps)
        restored = saved.restore_newest(state)
        if restored is None:
            # A resumed run does not need the weight file.
            variables = load_pretrained(state.variables, config.model)
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


def _run_optimizer(config: ConfigDict, num_steps: int) -> optax.GradientTransformation:
    total = max(config.num_epochs, 1) * num_steps
    return _cached_optimizer(FrozenConfigDict(config.optimizer), total)


@functools.lru_cache(maxsize=8)
def _cached_optimizer(config: FrozenConfigDict, num_steps: int) -> optax.GradientTransformation:
    """Returns the same object for the same settings, so that compiled functions are reused."""
    return build_optimizer(config, num_steps)
