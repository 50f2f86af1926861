"""The pure functions that training repeats: a step and an evaluation.

They act on one device's share of a batch and sum over devices by `lax.psum` over the model's `axis_name`.
"""

from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Key

from lensjax.models import ClassifierModule
from lensjax.training.losses import loss_terms
from lensjax.training.recipe import Recipe
from lensjax.training.state import PyTree, TrainState, running_mean

# `pixels` [batch, height, width] and `scale` [batch], whose ratio is the image; `labels` [batch]; `weights`
# [batch], 1 for real rows and 0 for padding; and, if lenses were fitted, `residuals` [batch, height, width]
# in standard deviations.
Batch = Mapping[str, Array]
Metrics = dict[str, Float[Array, "*runs"]]


class StepFunction(Protocol):
    """A training step with its settings; of several runs if the arrays have a leading axis."""

    def __call__(
        self, state: TrainState, batch: Batch, key: Key[Array, "*runs"], /
    ) -> tuple[TrainState, Metrics]:
        """The new state, and the means of each loss term and of correct answers over the batch."""


def decode(batch: Batch) -> Float[Array, "batch height width channels"]:
    """The images of a batch, from 0 to 1, and the residuals as a second channel if it has them."""
    dtype = batch["scale"].dtype
    images = batch["pixels"].astype(dtype) / batch["scale"][:, None, None]
    if "residuals" not in batch:
        return images[..., None]
    return jnp.stack([images, batch["residuals"].astype(dtype)], axis=-1)


def example_keys(
    key: Key[Array, ""], batch_size: int, axis_name: str | None
) -> Key[Array, " batch"]:
    """One key per row of this device's share; it depends on the row's place in the whole batch alone.

    Args:
      key: the step's key.
      batch_size: rows on this device.
      axis_name: mapped axis that the batch is divided over; None if it is not divided.
    """
    first = 0 if axis_name is None else lax.axis_index(axis_name) * batch_size
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(batch_size))


def train_step(
    state: TrainState,
    batch: Batch,
    key: Key[Array, ""],
    *,
    model: ClassifierModule,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
) -> tuple[TrainState, Metrics]:
    """One training step on a batch that may be divided over devices.

    Args:
      state: the state to update.
      batch: this device's share.
      key: the run's key; the step's own key follows from it and the step's number.
      model: the classifier; its `axis_name` is the mapped axis that the batch is divided over.
      optimizer: turns gradients into updates.
      recipe: how images become a loss.

    Returns:
      The new state, and the means of each loss term and of correct answers over the whole batch.
    """
    weights, axis_name = batch["weights"], model.axis_name
    keys = example_keys(jax.random.fold_in(key, state.step), len(weights), axis_name)
    augmentation_keys, dropout_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    images = recipe.prepare(recipe.augment(decode(batch), augmentation_keys))

    def sum_over_devices(tree: PyTree) -> PyTree:
        return tree if axis_name is None else lax.psum(tree, axis_name)

    count = sum_over_devices(weights.sum())

    def loss_of(params: PyTree) -> tuple[Array, tuple[PyTree, Metrics]]:
        outputs, updates = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            weights=weights,
            keys=dropout_keys,
            with_physics_loss=True,
            mutable=["batch_stats"],
        )
        values = loss_terms(
            outputs,
            batch["labels"],
            physics_weight=recipe.physics_weight,
            label_smoothing=recipe.label_smoothing,
        )
        values["correct"] = (outputs.logits.argmax(-1) == batch["labels"]).astype(weights.dtype)
        sums = {name: (value * weights).sum() for name, value in values.items()}
        # The devices' parts of the mean add up to the mean, and so do their gradients.
        return sums["loss"] / count, (updates.get("batch_stats", {}), sums)

    with jax.default_matmul_precision(recipe.precision):
        gradients, (batch_stats, sums) = jax.grad(loss_of, has_aux=True)(state.params)
    gradients, sums = sum_over_devices((gradients, sums))
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new = {"params": params, "batch_stats": batch_stats}
    added = sums | {"count": count}
    new_state = TrainState(
        step=state.step + 1,
        **new,
        opt_state=opt_state,
        totals={name: total + added[name] for name, total in state.totals.items()},
        ema=state.ema and running_mean(state.ema, new, state.step, recipe.ema_decay),
    )
    return new_state, {name: value / count for name, value in sums.items()}


def eval_step(
    variables: PyTree, batch: Batch, *, model: ClassifierModule, recipe: Recipe, with_loss: bool
) -> dict[str, Float[Array, "batch ..."]]:
    """A model's outputs for this device's share of a batch, padding included.

    Args:
      variables: the model's parameters and running statistics.
      batch: this device's share.
      model: the classifier.
      recipe: how images become a loss; nothing is augmented and labels are not smoothed.
      with_loss: whether to compute the loss terms, which may cost more than the logits.

    Returns:
      `logits` `[batch, classes]`, `theta_E` `[batch]` if the model has one, and if asked for each loss
      term `[batch]`.
    """
    with jax.default_matmul_precision(recipe.precision):
        outputs = model.apply(
            variables, recipe.prepare(decode(batch)), train=False, with_physics_loss=with_loss
        )
    result = {"logits": outputs.logits}
    if outputs.theta_E is not None:
        result["theta_E"] = outputs.theta_E
    if with_loss:
        result |= loss_terms(outputs, batch["labels"], physics_weight=recipe.physics_weight)
    return result
