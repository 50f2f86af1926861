"""Optimizer settings, moving average, label smoothing and bfloat16, compared with NumPy and definitions."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lensjax.config import default_config
from lensjax.models import BaselineCNN
from lensjax.models.classifier import Outputs
from lensjax.models.resnet import BasicBlock
from lensjax.models.vit import Block
from lensjax.training.losses import loss_terms
from lensjax.training.optimizer import build_optimizer
from lensjax.training.state import update_ema

GRADIENTS = np.random.default_rng(0).normal(size=(6, 4))


def optimize(gradients, **changes):
    """Parameters that start at 1, after updates by these gradients."""
    config = default_config().optimizer
    config.update({"learning_rate": 0.1, "weight_decay": 0.0} | changes)
    optimizer = build_optimizer(config, len(gradients))
    params = jnp.ones(4)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(jnp.asarray(gradient, params.dtype), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


def test_accumulated_gradients_are_averaged():
    means = GRADIENTS.reshape(3, 2, 4).mean(1)
    for schedule in ("constant", "cosine"):
        found = optimize(GRADIENTS, accumulate_steps=2, schedule=schedule)
        np.testing.assert_allclose(found, optimize(means, schedule=schedule), rtol=1e-6)
    # Parameters do not change at the first step of each pair.
    np.testing.assert_array_equal(optimize(GRADIENTS[:1], accumulate_steps=2), 1)


def test_only_gradients_above_clip_norm_are_clipped():
    length = np.linalg.norm(GRADIENTS, axis=1, keepdims=True)
    clipped = GRADIENTS * np.minimum(1, 1.5 / length)
    assert (length > 1.5).any()
    assert (length < 1.5).any()
    np.testing.assert_allclose(optimize(GRADIENTS, clip_norm=1.5), optimize(clipped), rtol=1e-6)


def test_moving_average_follows_its_recurrence():
    values = np.random.default_rng(1).normal(size=200)
    mean, expected = jnp.asarray(5.0), 5.0
    for step, value in enumerate(values):
        mean = update_ema(mean, jnp.asarray(value, jnp.float32), jnp.asarray(step), 0.9)
        rate = min(0.9, (1 + step) / (10 + step))
        expected = rate * expected + (1 - rate) * value
    np.testing.assert_allclose(mean, expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_label_smoothing_matches_cross_entropy_of_smooth_labels(smoothing):
    logits = np.random.default_rng(0).normal(size=(5, 3))
    labels = np.array([0, 1, 2, 1, 0])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    terms = loss_terms(
        Outputs(jnp.asarray(logits, jnp.float32)),
        jnp.asarray(labels),
        physics_weight=0.0,
        label_smoothing=smoothing,
    )
    expected = -(target * np.log(probabilities)).sum(1)
    np.testing.assert_allclose(terms["loss"], expected, rtol=1e-5)


def test_bfloat16_keeps_float32_parameters_statistics_and_logits():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 1)), jnp.float32)
    exact, rounded = (BaselineCNN(width=4, stage_sizes=(1, 1), dtype=dtype) for dtype in (None, jnp.bfloat16))
    variables = rounded.init(jax.random.key(0), images, train=False)

    def gradient_and_updates(params):
        def loss(params):
            outputs, updates = rounded.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return (outputs.logits**2).mean(), (outputs.logits, updates)

        return jax.grad(loss, has_aux=True)(params)

    training = jax.eval_shape(gradient_and_updates, variables["params"])
    leaves = jax.tree.leaves((variables, training))
    assert {leaf.dtype for leaf in leaves} == {jnp.float32.dtype}

    def logits(model):
        return jax.jit(functools.partial(model.apply, train=False))(variables, images).logits

    difference = np.abs(logits(rounded) - logits(exact)).max()
    assert 0 < difference < 0.03 * np.abs(logits(exact)).max()


@pytest.mark.parametrize("layer", [BasicBlock(4, dtype=jnp.bfloat16), Block(2, dtype=jnp.bfloat16)])
def test_layers_compute_in_their_dtype(layer):
    """Every product and convolution, forward and backward, has a bfloat16 operand."""
    conv = isinstance(layer, BasicBlock)
    x = jnp.ones((2, 12, 12, 4) if conv else (2, 5, 4), jnp.float32)
    options = {"train": True, "mutable": ["batch_stats"]} if conv else {}
    variables = layer.init(jax.random.key(0), x, **({"train": False} if conv else {}))

    def loss(variables):
        y = layer.apply(variables, x, **options)
        return (y[0] if conv else y).astype(jnp.float32).sum()

    text = jax.jit(jax.grad(loss)).lower(variables).as_text()
    products = re.findall(r"stablehlo\.(?:dot_general|convolution).* : \((.*)\) ->", text)
    assert len(products) >= 5
    assert all("bf16" in operands for operands in products)
