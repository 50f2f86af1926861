"""The training state."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Key

from lensjax.models import ClassifierModule

PyTree = Any


class TrainState(struct.PyTreeNode):
    """The training state.

    Attributes:
      step: number of completed steps.
      params: the model's parameters.
      batch_stats: the model's running statistics.
      opt_state: the optimizer's state.
      totals: sums over the images of the current epoch, without padding: each loss term and `loss`, the
        number of correct classifications (`correct`) and the number of images (`count`).
      ema: exponential moving average of parameters and running statistics; empty if there is none.
    """

    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState
    totals: dict[str, Float[Array, ""]]
    ema: PyTree = struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, PyTree]:
        """Variables for the model's `apply`."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluation_variables(self) -> dict[str, PyTree]:
        """Variables to evaluate and save: the moving average if there is one."""
        return self.ema or self.variables


def zero_totals(terms: tuple[str, ...]) -> dict[str, Float[Array, ""]]:
    """Totals at the start of an epoch.

    Args:
      terms: names of the loss terms.
    """
    return {name: jnp.zeros(()) for name in (*terms, "loss", "correct", "count")}


def epoch_means(totals: dict[str, Float[Array, ""]]) -> dict[str, float]:
    """Training metrics of an epoch.

    Args:
      totals: the sums in `TrainState.totals` at the end of the epoch.
    """
    values = {name: float(value) for name, value in jax.device_get(totals).items()}
    count = values.pop("count")
    correct = values.pop("correct")
    means = {f"train_{name}": value / count for name, value in values.items()}
    return means | {"train_accuracy": correct / count}


def initial_state(
    model: ClassifierModule,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    *,
    image_size: int,
    channels: int = 1,
    terms: tuple[str, ...],
    with_ema: bool = False,
) -> TrainState:
    """Training state before the first step.

    Args:
      model: the classifier.
      optimizer: the optimizer.
      key: random key of the initial parameters.
      image_size: height and width of an image, pixels.
      channels: number of channels of the model's input.
      terms: names of the loss terms.
      with_ema: whether to keep a moving average of the parameters; it starts equal to them.
    """
    image = jnp.zeros((1, image_size, image_size, channels))
    variables = model.init(key, image, train=False)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        totals=zero_totals(terms),
    )
    # Copied because a step donates its arguments, and a buffer cannot be donated twice.
    return state.replace(ema=jax.tree.map(jnp.copy, state.variables)) if with_ema else state


def stack_runs(trees: Sequence[PyTree]) -> PyTree:
    """Stacks the trees of several runs along a leading axis; returns the tree of a single run unchanged."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def split_runs(tree: PyTree, number: int) -> Iterator[PyTree]:
    """Inverse of `stack_runs`; yields one tree per run."""
    for run in range(number):
        yield tree if number == 1 else jax.tree.map(lambda leaf, run=run: leaf[run], tree)


def update_ema(ema: PyTree, new: PyTree, step: Int[Array, ""], decay: float) -> PyTree:
    """Updates an exponential moving average; the decay rate is smaller in the first steps.

    Args:
      ema: the average before the step.
      new: the values after the step.
      step: number of steps before this one.
      decay: decay rate after many steps, the weight of `ema` in the result.
    """
    rate = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, value: old + (1 - rate) * (value - old), ema, new)
