import collections
import functools

import jax
import jax.extend
import numpy as np
import optax
import pytest

from lensjax.data.preparation import prepare
from lensjax.errors import UserError
from lensjax.models import BaselineCNN, LensViTPINN
from lensjax.training.parallel import (
    AXIS,
    check_batch_size,
    parallel_eval_step,
    parallel_train_step,
    replicated,
)
from lensjax.training.state import initial_state
from lensjax.training.step import eval_step, train_step

SIZE = 32
STAGES = (1, 1)  # every kind of block once: what is compiled takes most of the time
WHOLE = functools.partial(prepare, crop=0, stretch="none")
TERMS = {"baseline": ("cross_entropy",), "pinn": ("cross_entropy", "physics")}


def build(kind, axis_name):
    if kind == "baseline":
        return BaselineCNN(width=4, stage_sizes=STAGES, axis_name=axis_name)
    return LensViTPINN(
        width=4,
        stage_sizes=STAGES,
        patch_size=8,
        embedding_size=16,
        depth=1,
        num_heads=2,
        axis_name=axis_name,
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


def new_state(kind, optimizer):
    return initial_state(
        build(kind, None), optimizer, jax.random.key(0), image_size=SIZE, terms=TERMS[kind]
    )


def mapped_step(kind, optimizer, num_devices):
    step = functools.partial(
        train_step,
        model=build(kind, AXIS),
        optimizer=optimizer,
        prepare=WHOLE,
        max_rotation=10.0,
        physics_weight=0.01,
        axis_name=AXIS,
    )
    return parallel_train_step(step, jax.devices()[:num_devices])


def double(tree):
    """The same arrays in float64."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) if leaf.dtype == np.float32 else np.asarray(leaf),
        jax.device_get(tree),
    )


@pytest.mark.parametrize(
    ("kind", "numbers", "prepared", "tolerance"),
    [
        ("pinn", (1, 4), double, 1e-9),
        ("baseline", (1, 2, 4), jax.device_get, 1e-5),
        ("pinn", (1, 4), jax.device_get, 1e-5),
    ],
)
def test_one_two_and_four_devices_train_alike(kind, numbers, prepared, tolerance):
    """Losses and running statistics over ten steps, dropout, rotation and padding included."""
    optimizer = optax.adamw(1e-4)
    runs = {}
    size = 16 if prepared is double else 32
    with jax.enable_x64(prepared is double):
        start = prepared(new_state(kind, optimizer))
        for num_devices in numbers:
            step = mapped_step(kind, optimizer, num_devices)
            state = replicated(start, jax.devices()[:num_devices])
            losses = []
            for index in range(10):
                # The last batch is padded so far that one of four devices holds padding alone.
                rows = prepared(batch(size, index, 11 if index == 9 else size))
                state, metrics = step(state, rows, jax.random.key(1))
                losses.append(float(metrics["loss"]))
            runs[num_devices] = losses, jax.device_get((state.batch_stats, state.totals))
    assert len(set(runs[1][0])) == 10
    for num_devices in numbers[1:]:
        np.testing.assert_allclose(runs[num_devices][0], runs[1][0], rtol=0, atol=tolerance)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=10 * tolerance, atol=tolerance),
            runs[num_devices][1],
            runs[1][1],
        )


def test_padding_changes_nothing_but_the_shape():
    """A padded batch gives the step that the same images give without padding."""
    kind = "pinn"  # whose ResNet is the baseline's
    optimizer = optax.sgd(0.1)
    step = functools.partial(
        train_step,
        model=build(kind, None),
        optimizer=optimizer,
        prepare=WHOLE,
        max_rotation=10.0,
        physics_weight=0.01,
        axis_name=None,
    )
    padded = batch(8, real=5)
    plain = {name: value[:5] for name, value in padded.items()}
    with jax.enable_x64(True):
        wide = double((new_state(kind, optimizer), padded, plain))
        one, _ = jax.jit(step)(wide[0], wide[1], jax.random.key(1))
        other, _ = jax.jit(step)(wide[0], wide[2], jax.random.key(1))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), one, other)


def test_totals_add_up_to_the_mean_over_the_epoch_s_real_images():
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
    """The precision of each product and convolution, in what it calls too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.primitive.name, equation.params["precision"]
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize(
    ("precision", "wanted"), [("float32", "HIGHEST"), ("tensorfloat32", "HIGH")]
)
def test_the_model_s_products_have_the_precision_asked_for_forward_and_backward(precision, wanted):
    optimizer = optax.adamw(1e-4)
    state = new_state("pinn", optimizer)

    def counted(function, *arguments):
        return collections.Counter(products(jax.make_jaxpr(function)(*arguments).jaxpr))

    step = functools.partial(
        train_step,
        model=build("pinn", None),
        optimizer=optimizer,
        prepare=WHOLE,
        max_rotation=0.0,
        physics_weight=0.01,
        precision=precision,
        axis_name=None,
    )
    evaluation = functools.partial(
        eval_step,
        model=build("pinn", None),
        prepare=WHOLE,
        physics_weight=0.01,
        with_loss=True,
        precision=precision,
    )
    training = counted(step, state, batch(4), jax.random.key(0))
    answering = counted(evaluation, state.variables, batch(4))
    exact, asked = ((getattr(jax.lax.Precision, name),) * 2 for name in ("HIGHEST", wanted))
    assert training.total() > 2 * answering.total() > 40
    for found in (training, answering):
        found = collections.Counter([precision for _, precision in found.elements()])
        # The position embeddings are always resized exactly.
        assert found.keys() <= {asked, exact}
        assert found[asked] > 0.9 * found.total()


def test_each_step_and_each_row_has_a_random_rotation_of_its_own():
    """Without learning, the same batch still gives another loss at every step."""
    optimizer = optax.sgd(0.0)
    state, step = new_state("baseline", optimizer), mapped_step("baseline", optimizer, 1)
    same = batch(8)
    same["pixels"] = np.repeat(same["pixels"][:1], 8, axis=0)
    losses = []
    for _ in range(4):
        state, metrics = step(state, same, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 4


@pytest.mark.parametrize("num_devices", [1, 4])
def test_evaluation_gives_one_row_an_image_in_order(num_devices):
    optimizer = optax.sgd(0.0)
    state, model = new_state("pinn", optimizer), build("pinn", None)
    step = functools.partial(
        eval_step, model=model, prepare=WHOLE, physics_weight=0.01, with_loss=True
    )
    rows, alone_step = batch(8), jax.jit(step)
    found = parallel_eval_step(step, jax.devices()[:num_devices])(state.variables, rows)
    for index in range(8):
        alone = {name: value[index : index + 1] for name, value in rows.items()}
        expected = alone_step(state.variables, alone)
        assert set(found) == {"logits", "theta_E", "cross_entropy", "physics", "loss"}
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][index], value[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "devices", "advice"),
    [(30, 4, "use 28 or 32"), (3, 4, "use 4"), (0, 2, "use 2"), (9, 2, "use 8 or 10")],
)
def test_a_batch_that_devices_cannot_share_is_refused_with_sizes_that_they_can(
    size, devices, advice
):
    with pytest.raises(UserError, match=rf"config\.batch_size={size} .* {advice}"):
        check_batch_size("batch_size", size, devices)


@pytest.mark.parametrize(("size", "devices"), [(32, 4), (4, 4), (7, 1)])
def test_a_batch_that_devices_can_share_is_taken(size, devices):
    check_batch_size("batch_size", size, devices)
