"""The two pure functions that training repeats: a step and an evaluation.

Both see one device's share of a batch: a dict of

* `pixels` `[batch, height, width]`, uint16 or float32, and `scale` `[batch]`: images are their ratio;
* `labels` `[batch]`;
* `weights` `[batch]`: 1 for real rows, 0 for padding;
* `residuals` `[batch, height, width]` where lenses were fitted, in standard deviations.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, Key

from lensjax.models.precision import computed_in
from lensjax.ordered_sums import batch_sum, device_sum
from lensjax.training.augmentation import random_dihedral, random_rotation, random_shift
from lensjax.training.losses import loss_terms
from lensjax.training.state import PyTree, TrainState, running_mean

Batch = dict[str, Array]
Prepare = Callable[[Array], Array]


def decode(batch: Batch) -> Float[Array, "batch height width channels"]:
    """The images of a batch, from 0 to 1, and as a second channel the residuals where there are some."""
    dtype = batch["scale"].dtype
    images = batch["pixels"].astype(dtype) / batch["scale"][:, None, None]
    if "residuals" not in batch:
        return images[..., None]
    return jnp.stack([images, batch["residuals"].astype(dtype)], axis=-1)


def example_keys(
    key: Key[Array, ""], batch_size: int, axis_name: str | None
) -> Key[Array, " batch"]:
    """A key for each row of this device's share, by its place in the whole batch.

    The place, not the device, makes the key: the same batch gets the same keys on any number of
    devices.

    Args:
      key: the step's key.
      batch_size: rows on this device.
      axis_name: mapped axis that the batch is divided over; None where it is not divided.
    """
    first = 0 if axis_name is None else lax.axis_index(axis_name) * batch_size
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(batch_size))


def train_step(
    state: TrainState,
    batch: Batch,
    key: Key[Array, ""],
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    prepare: Prepare,
    max_rotation: float,
    dihedral: bool = False,
    max_shift: int = 0,
    physics_weight: float,
    label_smoothing: float = 0.0,
    ema_decay: float = 0.0,
    precision: str = "float32",
    axis_name: str | None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One step of training on a batch that may be divided over devices.

    Args:
      state: what to train further.
      batch: this device's share; see above.
      key: the run's key; the step's own is made from it and the step's number.
      model: the classifier, built with the same `axis_name`.
      optimizer: turns gradients into updates.
      prepare: what is done to images before the model sees them.
      max_rotation: largest random angle of an image, degrees.
      dihedral: whether each image is mirrored and turned by quarters at random.
      max_shift: largest random shift of an image along each axis, pixels.
      physics_weight: weight of the physics loss.
      label_smoothing: share of each label that is spread over all classes.
      ema_decay: share of the old value in the running mean of the parameters; only where the state has
        one.
      precision: what the model computes in, see `models.precision`.
      axis_name: mapped axis that the batch is divided over; None where it is not divided.

    Returns:
      The new state, and the means over the whole batch of each loss term and of right answers.
    """
    weights = batch["weights"]
    step_key = jax.random.fold_in(key, state.step)
    keys = jax.vmap(functools.partial(jax.random.split, num=2))(
        example_keys(step_key, weights.shape[0], axis_name)
    )
    images = decode(batch)
    if dihedral:
        images = random_dihedral(images, jax.vmap(jax.random.fold_in, (0, None))(keys[:, 0], 1))
    images = random_rotation(images, keys[:, 0], max_rotation)
    if max_shift:
        shift_keys = jax.vmap(jax.random.fold_in, (0, None))(keys[:, 0], 2)
        images = random_shift(images, shift_keys, max_shift)
    images = prepare(images)

    count = device_sum(batch_sum(weights), axis_name)

    def loss_of(params: PyTree) -> tuple[Array, tuple[PyTree, dict[str, Array]]]:
        outputs, updates = computed_in(precision, model)(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            weights=weights,
            keys=keys[:, 1],
            with_physics_loss=True,
            mutable=["batch_stats"],
        )
        values = loss_terms(
            outputs,
            batch["labels"],
            physics_weight=physics_weight,
            label_smoothing=label_smoothing,
        )
        values["correct"] = (outputs.logits.argmax(-1) == batch["labels"]).astype(weights.dtype)
        sums = {name: batch_sum(value * weights) for name, value in values.items()}
        # This device's part of the batch's mean; the parts, and their gradients, add up.
        return sums["loss"] / count, (updates.get("batch_stats", {}), sums)

    # Some layers write out their own way back, which is traced after the model has returned.
    with jax.default_matmul_precision(precision):
        gradients, (batch_stats, sums) = jax.grad(loss_of, has_aux=True)(state.params)
    gradients, sums = device_sum((gradients, sums), axis_name)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema:
        new = {"params": params, "batch_stats": batch_stats}
        ema = running_mean(ema, new, state.step, ema_decay)
    new_state = TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        totals={
            name: value + (sums | {"count": count})[name] for name, value in state.totals.items()
        },
        ema=ema,
    )
    return new_state, {name: value / count for name, value in sums.items()}


def train_loop(
    state: TrainState,
    data: dict[str, Array],
    rows: Int[Array, "steps batch"],
    weights: Float[Array, "steps batch"],
    first: Int[Array, ""],
    last: Int[Array, ""],
    key: Key[Array, ""],
    *,
    step: Callable[..., tuple[TrainState, dict[str, Array]]],
) -> tuple[TrainState, Float[Array, ""], Int[Array, ""]]:
    """Many steps of training in one compiled loop, on images that lie on the device.

    Args:
      state: what to train further.
      data: what a batch has but `weights`, of all images.
      rows: of the data set in this device's share of each batch of the epoch.
      weights: 1 for real rows, 0 for padding.
      first, last: number of the first step in the epoch, from 0, and of the one after the last.
      key: the run's key.
      step: `train_step` with all but its three arguments given.

    Returns:
      The new state; the loss of the last step, or the first one that was not finite; and that step's
      number, from 1.
    """

    def body(
        index: Array, carry: tuple[TrainState, Array, Array]
    ) -> tuple[TrainState, Array, Array]:
        state, loss, number = carry
        batch = {name: values[rows[index]] for name, values in data.items()}
        state, metrics = step(state, batch | {"weights": weights[index]}, key)
        good = jnp.isfinite(loss)
        return state, jnp.where(good, metrics["loss"], loss), jnp.where(good, index + 1, number)

    start = (state, jnp.zeros((), weights.dtype), first)
    return lax.fori_loop(first, last, body, start)


def eval_step(
    variables: PyTree,
    batch: Batch,
    *,
    model: nn.Module,
    prepare: Prepare,
    physics_weight: float,
    with_loss: bool,
    precision: str = "float32",
) -> dict[str, Array]:
    """A model's answer to this device's share of a batch, image by image.

    Args:
      variables: the model's parameters and running statistics.
      batch: see above; padding gets an answer too.
      model: the classifier.
      prepare: what is done to images before the model sees them.
      physics_weight: weight of the physics loss.
      with_loss: whether to give the loss terms too, which may cost more than the answer.
      precision: what the model computes in, see `models.precision`.

    Returns:
      `logits` `[batch, classes]`, `theta_E` `[batch]` where the model has one, and, if asked for, each
      loss term `[batch]`.
    """
    outputs: Any = computed_in(precision, model)(
        variables, prepare(decode(batch)), train=False, with_physics_loss=with_loss
    )
    result = {"logits": outputs.logits}
    if outputs.theta_E is not None:
        result["theta_E"] = outputs.theta_E
    if with_loss:
        result |= loss_terms(outputs, batch["labels"], physics_weight=physics_weight)
    return result
