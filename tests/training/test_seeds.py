"""Several seeds in one run: each is the run that it would be alone, whichever way they are trained."""

import types

import jax
import numpy as np
import pytest
from test_loop import SIZE, TRAIN, Killed, metrics_without_times, tiny_config

from lensjax import models
from lensjax.data.streamed import StreamedImages
from lensjax.errors import NonFiniteLossError, UserError
from lensjax.prediction.trained import load_trained
from lensjax.training import loop, seeds
from lensjax.training.parallel import AXIS
from lensjax.workdir import claim, runs_of

# A model that compiles fast, and steps so small that rounding stays rounding.
SMALL = {"model.name": "lens_fit_net", "model.num_blocks": 0, "num_epochs": 2, "seed": 3}
SMALL |= {"optimizer.learning_rate": 1e-4, "optimizer.ema_decay": 0.5, "augmentation.max_shift": 2}


def validate(variables):
    """Numbers that follow from the parameters, in place of an evaluation."""
    mean = np.mean([np.abs(leaf).mean() for leaf in jax.tree.leaves(jax.device_get(variables))])
    names = ("auc", "auc_no", "auc_sphere", "auc_vort", "accuracy", "loss")
    return {f"validation_{name}": float(mean) for name in names}


def dies_at(call):
    """`validate` until that call."""
    calls = []

    def evaluate(variables):
        calls.append(variables)
        if len(calls) == call:
            raise Killed
        return validate(variables)

    return evaluate


def train(workdir, *, evaluate=validate, devices=1, **overrides):
    """Trains all seeds, and gives the folders of their runs."""
    config = tiny_config(**SMALL | overrides)
    model = models.build(config, axis_name=AXIS)
    devices = jax.devices()[:devices]
    claim(workdir, config)
    seeds.train(config, model, TRAIN, evaluate, workdir, devices=devices)
    return list(runs_of(workdir, config))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folders of three runs, each trained by itself."""
    folder = tmp_path_factory.mktemp("alone")
    return [train(folder / str(seed), seed=seed)[0] for seed in (3, 4, 5)]


def test_one_after_another_each_seed_is_a_run_like_any_other_and_goes_on_with_the_same_bits(
    alone, tmp_path
):
    with pytest.raises(Killed):  # in the second seed's second epoch
        train(tmp_path, seeds=2, evaluate=dies_at(4))
    with pytest.raises(Killed):  # nothing is left but that epoch
        train(tmp_path, seeds=2, evaluate=dies_at(1))
    folders = train(
        tmp_path,
        seeds=2,
    )
    assert [folder.name for folder in folders] == ["seed_3", "seed_4"]
    for folder, expected in zip(folders, alone, strict=False):
        assert metrics_without_times(folder) == metrics_without_times(expected)
        assert (folder / "config.json").read_text() == (expected / "config.json").read_text()
        one, other = (load_trained(each, devices=jax.devices()[:1]) for each in (folder, expected))
        assert one.best_epoch == other.best_epoch
        jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


def test_side_by_side_each_seed_sees_what_it_would_see_alone(alone, tmp_path):
    """On two devices; one seed of three is ahead of the others, as after a death while they were saved."""
    overrides = {"seeds": 3, "seeds_at_once": 3}
    config = tiny_config(**SMALL | overrides)
    claim(tmp_path, config)
    with pytest.raises(Killed):
        train(tmp_path / "seed_4", seed=4, evaluate=dies_at(2))
    seen = []
    folders = train(
        tmp_path, devices=2, evaluate=lambda v: seen.append(v) or validate(v), **overrides
    )
    assert len(seen) == 2 * 2 + 1
    assert_near(folders, alone)


def test_groups_of_seeds_resume(alone, tmp_path):
    """Three in groups of two; the first two stop after an epoch."""
    overrides = {"seeds": 3, "seeds_at_once": 2}
    with pytest.raises(Killed):
        train(tmp_path, evaluate=dies_at(4), **overrides)
    assert_near(train(tmp_path, **overrides), alone)


def assert_near(folders, expected):
    for folder, other in zip(folders, expected, strict=True):
        for one, two in zip(*map(metrics_without_times, (folder, other)), strict=True):
            assert one == pytest.approx(two, rel=1e-5)
        best = [load_trained(each, devices=jax.devices()[:1]) for each in (folder, other)]
        assert best[0].best_epoch == best[1].best_epoch
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            *(run.variables for run in best),
        )


def test_a_loss_that_is_not_finite_names_its_seed(tmp_path, monkeypatch):
    session = types.SimpleNamespace(configs=[tiny_config(seed=seed) for seed in (6, 7, 8)])
    with pytest.raises(NonFiniteLossError, match="of seed 8 became inf in epoch 2, batch 4"):
        loop.check_finite(np.array([1.0, 2.0, np.inf]), session, 1, 4)

    def fails(runs, *_, **__):
        if any(config.seed == 4 for config in runs.values()):
            raise NonFiniteLossError("the loss became nan")

    monkeypatch.setattr(loop, "train", fails)
    with pytest.raises(NonFiniteLossError, match="seed 4: the loss became nan"):
        train(tmp_path, seeds=3)


def test_where_memory_is_short_fewer_seeds_are_trained_side_by_side(tmp_path, monkeypatch):
    tried = []

    def train_runs(runs, *_, **__):
        tried.append([config.seed for config in runs.values()])
        if len(runs) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(loop, "train", train_runs)
    train(tmp_path, seeds=5, seeds_at_once=5)
    assert tried == [[3, 4, 5, 6, 7], [3, 4, 5], [3, 4], [5, 6], [7]]


def test_accelerators_take_all_seeds_at_once_and_images_on_disk_one():
    gpu = types.SimpleNamespace(platform="gpu")
    config = tiny_config(seeds=5)
    assert seeds.seeds_at_once(config, TRAIN, jax.devices()) == 1
    assert seeds.seeds_at_once(config, TRAIN, [gpu]) == 5
    assert seeds.seeds_at_once(tiny_config(seeds=5, seeds_at_once=2), TRAIN, [gpu]) == 2
    streamed = StreamedImages(TRAIN.subset, np.arange(44), TRAIN.labels, (SIZE, SIZE))
    assert seeds.seeds_at_once(config, streamed, [gpu]) == 1
    with pytest.raises(UserError, match="seeds_at_once=5: images that stay on disk"):
        seeds.seeds_at_once(tiny_config(seeds=5, seeds_at_once=5), streamed, [gpu])
