"""What a training step takes and gives back."""

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
      totals: sums over the real images of the present epoch: of each loss term, of right answers, and
        of the images themselves (`count`).
    """

    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState
    totals: dict[str, Float[Array, ""]]

    @property
    def variables(self) -> dict[str, PyTree]:
        """What the model's `apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


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
) -> TrainState:
    """The state before the first step.

    Args:
      model: what is to be trained.
      optimizer: what trains it.
      key: all initial parameters follow from it.
      image_size: height and width of an image, pixels.
      channels: of what the model is given.
      terms: names of the loss terms.
    """
    image = jnp.zeros((1, image_size, image_size, channels))
    variables = jax.jit(lambda key: model.init(key, image, train=False))(key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        totals=zero_totals(terms),
    )
