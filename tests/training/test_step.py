"""Training and evaluation steps on one and several devices."""

import collections
import functools

import jax
import numpy as np
import optax
import pytest

from lensjax.errors import UserError
from lensjax.models import BaselineCNN, LensViTPINN
from lensjax.training.parallel import AXIS, check_batch_size, parallelize, replicate, shard
from lensjax.training.recipe import Recipe
from lensjax.training.state import initial_state
from lensjax.training.step import eval_step, train_step

SIZE = 32
TERMS = {"baseline": ("cross_entropy",), "pinn": ("cross_entropy", "physics")}
PLAIN = Recipe(physics_weight=0.01)
ROTATED = Recipe(physics_weight=0.01, max_rotation=10.0)
EVERYTHING = Recipe(
    crop=28,
    stretch="sqrt",
    max_rotation=10.0,
    dihedral=True,
    max_shift=3,
    physics_weight=0.01,
    label_smoothing=0.1,
    ema_decay=0.9,
)


def build(kind, axis_name):
    if kind == "baseline":
        return BaselineCNN(width=4, stage_sizes=(1,), axis_name=axis_name)
    return LensViTPINN(
        width=4, stage_sizes=(1,), patch_size=7, embedding_size=16, depth=1, num_heads=2, axis_name=axis_name
    )


def batch(size, seed=0, real=None):
    generator = np.random.default_rng(seed)
    real = size if real is None else real
    return {
        "pixels": generator.integers(0, 800, (size, SIZE, SIZE)).astype(np.uint16),
        "scale": np.full(size, 800, np.float32),
        "labels": generator.integers(0, 3, size).astype(np.int32),
        "weights": (np.arange(size) < real).astype(np.float32),
    }


def new_state(kind, optimizer, recipe=PLAIN):
    return initial_state(
        build(kind, None),
        optimizer,
        jax.random.key(0),
        image_size=recipe.crop or SIZE,
        terms=TERMS[kind],
        with_ema=recipe.ema_decay > 0,
    )


def bound_step(kind, optimizer, recipe, axis_name=None):
    return functools.partial(train_step, model=build(kind, axis_name), optimizer=optimizer, recipe=recipe)


def mapped_step(kind, optimizer, num_devices, recipe=ROTATED):
    """A step that takes a whole batch and shards it."""
    devices = jax.devices()[:num_devices]
    step = bound_step(kind, optimizer, recipe, AXIS)
    mapped = parallelize(step, devices, in_axes=(None, 0, None), donate_argnums=[0])
    return lambda state, rows, key: mapped(state, shard(rows, devices), key)


def double(tree):
    """The same arrays in float64."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) if leaf.dtype == np.float32 else np.asarray(leaf),
        jax.device_get(tree),
    )


@pytest.mark.parametrize(
    ("kind", "optimizer", "prepared", "tolerance"),
    [
        # The ResNet of pinn is the baseline's.
        ("pinn", optax.adamw(1e-4), double, 1e-9),
        # In float32 AdamW turns rounding errors of gradients near 0 into whole steps.
        ("baseline", optax.sgd(1e-3), jax.device_get, 1e-5),
    ],
    ids=["float64-adamw", "float32-sgd"],
)
def test_one_two_and_four_devices_train_equally(kind, optimizer, prepared, tolerance):
    """Ten steps with dropout and every augmentation: losses, parameters, averages, statistics, totals."""
    runs = {}
    with jax.enable_x64(prepared is double):
        start = prepared(new_state(kind, optimizer, EVERYTHING))
        for num_devices in (1, 2, 4):
            step = mapped_step(kind, optimizer, num_devices, EVERYTHING)
            state = replicate(start, jax.devices()[:num_devices])
            losses = []
            for index in range(10):
                # The last batch has so much padding that one of the four devices gets only padding.
                rows = prepared(batch(16, index, 11 if index == 9 else 16))
                state, metrics = step(state, rows, jax.random.key(1))
                losses.append(float(metrics["loss"]))
            state = jax.device_get(state)
            learned = (state.params, state.batch_stats, state.ema, state.totals)
            runs[num_devices] = np.asarray(losses), learned
    assert len(set(runs[1][0])) == 10
    for num_devices in (2, 4):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance),
            runs[num_devices],
            runs[1],
        )


def test_padding_does_not_change_a_step():
    kind = "pinn"  # its ResNet is the baseline's
    optimizer = optax.sgd(0.1)
    step = bound_step(kind, optimizer, ROTATED)
    padded = batch(8, real=5)
    plain = {name: value[:5] for name, value in padded.items()}
    with jax.enable_x64(True):
        wide = double((new_state(kind, optimizer), padded, plain))
        one, _ = jax.jit(step)(wide[0], wide[1], jax.random.key(1))
        other, _ = jax.jit(step)(wide[0], wide[2], jax.random.key(1))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), one, other)


def test_totals_add_up_to_the_epoch_mean():
    optimizer = optax.sgd(0.0)
    state = new_state("baseline", optimizer)
    step = mapped_step("baseline", optimizer, 2)
    sums, count = 0.0, 0
    for index, real in enumerate([8, 8, 3]):
        state, metrics = step(state, batch(8, index, real), jax.random.key(1))
        sums, count = sums + float(metrics["loss"]) * real, count + real
    assert float(state.totals["count"]) == count
    np.testing.assert_allclose(state.totals["loss"], sums, rtol=1e-6)


def products(jaxpr):
    """Precision of each product and convolution, including those of nested programs."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.primitive.name, equation.params["precision"]
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize(("precision", "expected"), [("float32", "HIGHEST"), ("tensorfloat32", "HIGH")])
def test_products_have_requested_precision_forward_and_backward(precision, expected):
    optimizer = optax.adamw(1e-4)
    state = new_state("pinn", optimizer)

    def count_products(function, *arguments):
        return collections.Counter(products(jax.make_jaxpr(function)(*arguments).jaxpr))

    recipe = Recipe(physics_weight=0.01, precision=precision)
    step = bound_step("pinn", optimizer, recipe)
    evaluation = functools.partial(eval_step, model=build("pinn", None), recipe=recipe, with_loss=True)
    training = count_products(step, state, batch(4), jax.random.key(0))
    evaluating = count_products(evaluation, state.variables, batch(4))
    exact, requested = ((getattr(jax.lax.Precision, name),) * 2 for name in ("HIGHEST", expected))
    assert training.total() > 2 * evaluating.total() > 30
    for found in (training, evaluating):
        found = collections.Counter([precision for _, precision in found.elements()])
        # The position embeddings are always resized in full precision.
        assert found.keys() <= {requested, exact}
        assert found[requested] > 0.8 * found.total()


def test_each_row_and_step_has_its_own_rotation():
    """With a learning rate of 0, the losses of the same image differ between rows and between steps."""
    optimizer = optax.sgd(0.0)
    start, step = jax.device_get(new_state("baseline", optimizer)), mapped_step("baseline", optimizer, 1)
    same = {name: np.repeat(values[:1], 4, axis=0) for name, values in batch(4).items()}
    losses = []
    for row in range(4):
        state = start
        for _ in range(3):
            alone = same | {"weights": np.eye(4, dtype=np.float32)[row]}
            state, metrics = step(state, alone, jax.random.key(1))
            losses.append(float(metrics["loss"]))
    # Similar angles can move the same pixels. Without a rotation per row there would be 3 different losses.
    assert len(set(losses)) >= 10


@pytest.mark.parametrize("num_devices", [1, 4])
def test_evaluation_gives_one_row_per_image_in_order(num_devices):
    optimizer = optax.sgd(0.0)
    state, model = new_state("pinn", optimizer), build("pinn", None)
    step = functools.partial(eval_step, model=model, recipe=PLAIN, with_loss=True)
    rows, single_step = batch(8), jax.jit(step)
    devices = jax.devices()[:num_devices]
    mapped = parallelize(step, devices, in_axes=(None, 0), out_axes=0)
    values = mapped(state.variables, shard(rows, devices))
    found = {name: np.concatenate(value) for name, value in values.items()}
    for index in range(8):
        row = {name: value[index : index + 1] for name, value in rows.items()}
        expected = single_step(state.variables, row)
        assert set(found) == {"logits", "theta_E", "cross_entropy", "physics", "loss"}
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][index], value[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "devices", "advice"),
    [(30, 4, "use 28 or 32"), (3, 4, "use 4"), (0, 2, "use 2"), (9, 2, "use 8 or 10")],
)
def test_indivisible_batch_is_rejected_with_divisible_sizes(size, devices, advice):
    with pytest.raises(UserError, match=rf"config\.batch_size={size} .* {advice}"):
        check_batch_size("batch_size", size, devices)


@pytest.mark.parametrize(("size", "devices"), [(32, 4), (4, 4), (7, 1)])
def test_divisible_batch_is_accepted(size, devices):
    check_batch_size("batch_size", size, devices)
