"""What a training step takes and gives back."""

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


def epoch_means(totals: dict[str, Float[Array, ""]]) -> dict[str, float]:
    """Training metrics of an epoch, from its totals."""
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
    """The state before the first step.

    Args:
      model: the classifier.
      optimizer: what trains it.
      key: all initial parameters follow from it.
      image_size: height and width of an image, pixels.
      channels: of the model's input.
      terms: names of the loss terms.
      with_ema: whether to keep a running mean of the parameters; it starts equal to them.
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
    # A copy: a step donates its arguments, and no buffer can be donated twice.
    return state.replace(ema=jax.tree.map(jnp.copy, state.variables)) if with_ema else state


def stack_runs(trees: Sequence[PyTree]) -> PyTree:
    """The trees of several runs as one with a leading axis; that of a single run as it is."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def split_runs(tree: PyTree, number: int) -> Iterator[PyTree]:
    """The inverse of `stack_runs`, one run at a time."""
    for run in range(number):
        yield tree if number == 1 else jax.tree.map(lambda leaf, run=run: leaf[run], tree)


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
