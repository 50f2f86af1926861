"""The training step and the evaluation step, as pure functions.

They process one device's share of a batch. Sums over devices use `lax.psum` over the model's `axis_name`.
"""

from collections.abc import Mapping
from typing import Protocol, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Key

from lensjax.models import ClassifierModule, Outputs
from lensjax.training.losses import loss_terms
from lensjax.training.recipe import Recipe
from lensjax.training.state import PyTree, TrainState, update_ema

# `pixels` [batch, height, width] and `scale` [batch], whose ratio is the image; `labels` [batch]; `weights`
# [batch], 1 for real rows and 0 for padding; and, if lenses were fitted, `residuals` [batch, height, width]
# in standard deviations of the noise.
Batch = Mapping[str, Array]
Metrics = dict[str, Float[Array, "*runs"]]


class StepFunction(Protocol):
    """A training step with its model and settings; state and key may have a leading axis over runs."""

    def __call__(
        self, state: TrainState, batch: Batch, key: Key[Array, "*runs"], /
    ) -> tuple[TrainState, Metrics]:
        """The new state, and the batch means of each loss term and of the accuracy (`correct`)."""


def decode(batch: Batch) -> Float[Array, "batch height width channels"]:
    """Images of a batch as the model's input, before preparation.

    Args:
      batch: see `Batch`.

    Returns:
      The images, from 0 to 1; residuals, if any, are a second channel, in standard deviations of the noise.
    """
    dtype = batch["scale"].dtype
    images = batch["pixels"].astype(dtype) / batch["scale"][:, None, None]
    if "residuals" not in batch:
        return images[..., None]
    return jnp.stack([images, batch["residuals"].astype(dtype)], axis=-1)


def example_keys(key: Key[Array, ""], batch_size: int, axis_name: str | None) -> Key[Array, " batch"]:
    """Random key of each row of this device's share.

    A row's key depends only on its position in the whole batch, not on the number of devices.

    Args:
      key: the step's key.
      batch_size: number of rows on this device.
      axis_name: mapped axis over which the batch is sharded; None if it is not sharded.
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
    """One training step on a batch that may be sharded over devices.

    Args:
      state: the state before the step.
      batch: this device's share of the batch.
      key: the run's key; it is combined with the number of the step.
      model: the classifier; its `axis_name` is the mapped axis over which the batch is sharded.
      optimizer: the optimizer.
      recipe: preparation, augmentation and loss settings.

    Returns:
      The state after the step, and the means of each loss term and of the accuracy (`correct`) over the whole
      batch.
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
        # The sum over devices of these shares is the mean of the batch; the same holds for gradients.
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
        ema=state.ema and update_ema(state.ema, new, state.step, recipe.ema_decay),
    )
    return new_state, {name: value / count for name, value in sums.items()}


def eval_step(
    variables: PyTree,
    batch: Batch,
    *,
    model: ClassifierModule,
    recipe: Recipe,
    with_loss: bool,
    with_features: bool = False,
) -> dict[str, Float[Array, "batch ..."]]:
    """A model's outputs for this device's share of a batch, including padding.

    Args:
      variables: the model's parameters and running statistics.
      batch: this device's share of the batch.
      model: the classifier.
      recipe: preparation and loss settings; augmentation and label smoothing are not applied.
      with_loss: whether to compute the loss terms, which can cost more than the logits.
      with_features: whether to return the inputs of the classifier's last layer; the logits if the model has
        no ResNet.

    Returns:
      `logits` `[batch, classes]`, `theta_E` `[batch]` if the model predicts it, each loss term `[batch]` if
      `with_loss`, and `features` `[batch, channels]` if `with_features`.
    """
    with jax.default_matmul_precision(recipe.precision):
        images = recipe.prepare(decode(batch))
        answer, stored = model.apply(
            variables, images, train=False, with_physics_loss=with_loss, mutable=["intermediates"]
        )
    outputs = cast(Outputs, answer)
    result = {"logits": outputs.logits}
    if with_features:
        layers = stored.get("intermediates", {})
        resnet = layers.get("resnet", layers.get("cnn", {}))  # the reference's PINN names it cnn
        result["features"] = resnet.get("features", (outputs.logits,))[0]
    if outputs.theta_E is not None:
        result["theta_E"] = outputs.theta_E
    if with_loss:
        result |= loss_terms(outputs, batch["labels"], physics_weight=recipe.physics_weight)
    return result
