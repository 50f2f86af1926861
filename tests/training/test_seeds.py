"""Training with several seeds: each seed gives the same results as a single run with it."""

import types

import jax
import numpy as np
import pytest
from helpers.tiny_runs import SIZE, TRAIN, Killed, metrics_without_times, tiny_config

from lensjax import models
from lensjax.data.streamed import StreamedImages
from lensjax.errors import NonFiniteLossError, UserError
from lensjax.prediction.trained_model import load_trained_model
from lensjax.training import loop, seeds
from lensjax.training.parallel import AXIS
from lensjax.workdir import claim, list_runs

# A model that compiles fast, and steps so small that they do not amplify rounding errors.
SMALL = {"model.name": "lens_fit_net", "model.num_blocks": 0, "num_epochs": 2, "seed": 3}
SMALL |= {"optimizer.learning_rate": 1e-4, "optimizer.ema_decay": 0.5, "augmentation.max_shift": 2}


def validate(variables):
    """Metrics that depend only on the parameters, instead of an evaluation."""
    mean = np.mean([np.abs(leaf).mean() for leaf in jax.tree.leaves(jax.device_get(variables))])
    names = ("auc", "auc_no", "auc_sphere", "auc_vort", "accuracy", "loss")
    return {f"validation_{name}": float(mean) for name in names}


def validate_until(call):
    """Returns a function like `validate` that raises `Killed` at a given call, counted from 1."""
    calls = []

    def evaluate(variables):
        calls.append(variables)
        if len(calls) == call:
            raise Killed
        return validate(variables)

    return evaluate


def train(workdir, *, evaluate=validate, devices=1, **overrides):
    """Trains all seeds and returns the folders of their runs."""
    config = tiny_config(**SMALL | overrides)
    model = models.build(config, axis_name=AXIS)
    devices = jax.devices()[:devices]
    claim(workdir, config)
    seeds.train(config, model, TRAIN, evaluate, workdir, devices=devices)
    return list(list_runs(workdir, config))


@pytest.fixture(scope="module")
def single_runs(tmp_path_factory):
    """The folders of three runs, each trained alone."""
    folder = tmp_path_factory.mktemp("single")
    return [train(folder / str(seed), seed=seed)[0] for seed in (3, 4, 5)]


def test_consecutive_seeds_match_single_runs_bit_for_bit(single_runs, tmp_path):
    with pytest.raises(Killed):  # in the second epoch of the second seed
        train(tmp_path, seeds=2, evaluate=validate_until(4))
    with pytest.raises(Killed):  # in the same epoch, the only one that remains
        train(tmp_path, seeds=2, evaluate=validate_until(1))
    folders = train(tmp_path, seeds=2)
    assert [folder.name for folder in folders] == ["seed_3", "seed_4"]
    for folder, expected in zip(folders, single_runs, strict=False):
        assert metrics_without_times(folder) == metrics_without_times(expected)
        assert (folder / "config.json").read_text() == (expected / "config.json").read_text()
        one, other = (load_trained_model(each, devices=jax.devices()[:1]) for each in (folder, expected))
        assert one.best_epoch == other.best_epoch
        jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


def test_seeds_side_by_side_match_single_runs(single_runs, tmp_path):
    """On two devices; one seed is ahead of the others, as after a crash while checkpoints are saved."""
    overrides = {"seeds": 3, "seeds_at_once": 3}
    config = tiny_config(**SMALL | overrides)
    claim(tmp_path, config)
    with pytest.raises(Killed):
        train(tmp_path / "seed_4", seed=4, evaluate=validate_until(2))
    evaluated = []

    def evaluate(variables):
        evaluated.append(variables)
        return validate(variables)

    folders = train(tmp_path, devices=2, evaluate=evaluate, **overrides)
    assert len(evaluated) == 2 * 2 + 1
    assert_close(folders, single_runs)


def test_groups_of_seeds_resume(single_runs, tmp_path):
    """Three seeds in groups of two; the first group is killed after an epoch."""
    overrides = {"seeds": 3, "seeds_at_once": 2}
    with pytest.raises(Killed):
        train(tmp_path, evaluate=validate_until(4), **overrides)
    assert_close(train(tmp_path, **overrides), single_runs)


def assert_close(folders, expected):
    for folder, other in zip(folders, expected, strict=True):
        for one, two in zip(*map(metrics_without_times, (folder, other)), strict=True):
            assert one == pytest.approx(two, rel=1e-5)
        best = [load_trained_model(each, devices=jax.devices()[:1]) for each in (folder, other)]
        assert best[0].best_epoch == best[1].best_epoch
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            *(run.variables for run in best),
        )


def test_nonfinite_loss_names_its_seed(tmp_path, monkeypatch):
    session = types.SimpleNamespace(configs=[tiny_config(seed=seed) for seed in (6, 7, 8)])
    with pytest.raises(NonFiniteLossError, match="of seed 8 became inf in epoch 2, batch 4"):
        loop.check_finite(np.array([1.0, 2.0, np.inf]), session, 1, 4)

    def fail_at_seed_4(runs, *_, **__):
        if any(config.seed == 4 for config in runs.values()):
            raise NonFiniteLossError("the loss became nan")

    monkeypatch.setattr(loop, "train", fail_at_seed_4)
    with pytest.raises(NonFiniteLossError, match="seed 4: the loss became nan"):
        train(tmp_path, seeds=3)


def test_groups_shrink_when_memory_is_exhausted(tmp_path, monkeypatch):
    groups = []

    def train_two_at_most(runs, *_, **__):
        groups.append([config.seed for config in runs.values()])
        if len(runs) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(loop, "train", train_two_at_most)
    train(tmp_path, seeds=5, seeds_at_once=5)
    assert groups == [[3, 4, 5, 6, 7], [3, 4, 5], [3, 4], [5, 6], [7]]


def test_group_size_depends_on_devices_and_images():
    gpu = types.SimpleNamespace(platform="gpu")
    config = tiny_config(seeds=5)
    assert seeds.max_group_size(config, TRAIN, jax.devices()) == 1
    assert seeds.max_group_size(config, TRAIN, [gpu]) == 5
    assert seeds.max_group_size(tiny_config(seeds=5, seeds_at_once=2), TRAIN, [gpu]) == 2
    streamed = StreamedImages(TRAIN.subset, np.arange(44), TRAIN.labels, (SIZE, SIZE))
    assert seeds.max_group_size(config, streamed, [gpu]) == 1
    with pytest.raises(UserError, match="seeds_at_once=5: images on disk"):
        seeds.max_group_size(tiny_config(seeds=5, seeds_at_once=5), streamed, [gpu])
