"""What a training step takes and gives back."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int, Key

PyTree = Any


class TrainState(struct.PyTreeNode):
    """Everything that training changes.

    Attributes:
      step: how many steps were done.
      params: the model's parameters.
      batch_stats: the model's running statistics.
      opt_state: the optimiser's state.
      ema: running mean of parameters and statistics; empty where none is kept.
      totals: sums over the real images of the present epoch: of each loss term, of right answers, and
        of the images themselves (`count`).
    """

    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState
    totals: dict[str, Float[Array, ""]]
    ema: PyTree = struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, PyTree]:
        """What the model's `apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated(self) -> dict[str, PyTree]:
        """What is evaluated and kept: the running mean where there is one."""
        return self.ema or self.variables


def zero_totals(terms: tuple[str, ...]) -> dict[str, Float[Array, ""]]:
    """The totals at the start of an epoch.

    Args:
      terms: names of the loss terms.
    """
    return {name: jnp.zeros(()) for name in (*terms, "loss", "correct", "count")}


def initial_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    *,
    image_size: int,
    channels: int = 1,
    terms: tuple[str, ...],
    with_ema: bool = False,
) -> TrainState:
    """The state before the first step.

    Args:
      model: what is to be trained.
      optimizer: what trains it.
      key: all initial parameters follow from it.
      image_size: height and width of an image, pixels.
      channels: of what the model is given.
      terms: names of the loss terms.
      with_ema: whether a running mean of the parameters is kept; it starts as they do.
    """
    image = jnp.zeros((1, image_size, image_size, channels))
    variables = _initial_variables(model, image, key)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        totals=zero_totals(terms),
    )
    # A copy: the step uses its arguments up, and one buffer cannot be used up twice.
    return state.replace(ema=jax.tree.map(jnp.copy, state.variables)) if with_ema else state


@functools.partial(jax.jit, static_argnums=0)
def _initial_variables(model: nn.Module, image: Array, key: Key[Array, ""]) -> dict[str, PyTree]:
    """Compiled once for all seeds of a model."""
    return dict(model.init(key, image, train=False))


def running_mean(ema: PyTree, new: PyTree, step: Int[Array, ""], decay: float) -> PyTree:
    """The running mean after a step; it follows quickly at first, so that the start is soon forgotten.

    Args:
      ema: the mean so far.
      new: the newest values.
      step: how many steps were done before.
      decay: share of the mean so far in the new one, after many steps.
    """
    share = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, value: old + (1 - share) * (value - old), ema, new)
