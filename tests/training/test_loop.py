"""Runs of the whole training loop on tiny images: determinism, resuming, stopping, refusing."""

import dataclasses
import gzip
import json
import logging
import os
import re
import signal

import jax
import numpy as np
import pytest

from lensjax import models
from lensjax.config import default_config
from lensjax.data import epochs
from lensjax.data.batches import gather
from lensjax.data.fresh import FreshImages
from lensjax.data.images import ImageSet
from lensjax.data.streamed import StreamedImages
from lensjax.errors import Interrupted, NonFiniteLossError, UserError
from lensjax.prediction.predictor import evaluator, predictor
from lensjax.prediction.trained import load_trained
from lensjax.simulation.presets import COMMON_TEST
from lensjax.training import loop
from lensjax.training.parallel import AXIS, prefetch
from lensjax.training.profiler import Profiler
from lensjax.workdir import METRICS, claim

SIZE = 32
TIMES = ("seconds", "images_per_second")


def tiny_config(**overrides):
    config = default_config()
    config.data.image_size = SIZE
    config.model.width = 4
    config.model.stage_sizes = (1, 1)
    config.batch_size = 8
    config.eval_batch_size = 8
    config.num_epochs = 3
    config.optimizer.learning_rate = 1e-2
    config.update_from_flattened_dict(overrides)
    return config


def image_set(num_images, seed):
    """Noise in which each class has a bright bar of its own."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_images, dtype=np.int32) % 3
    pixels = generator.poisson(20, (num_images, SIZE, SIZE))
    for index, label in enumerate(labels):
        pixels[index, 8 + 6 * label] += 20
    return ImageSet(
        pixels.astype(np.uint16),
        pixels.max((1, 2)).astype(np.float32),
        labels,
        tuple(f"{index}.npy" for index in range(num_images)),
    )


TRAIN, VALIDATION = image_set(44, 0), image_set(21, 1)


def train(workdir, config=None, *, evaluate=None, devices=1, images=TRAIN):
    config = tiny_config() if config is None else config
    devices = jax.devices()[:devices]
    model = models.build(config, axis_name=AXIS)
    claim(workdir, config)
    evaluate = evaluate or evaluator(
        predictor(config, model, devices=devices, with_loss=True), VALIDATION
    )
    (progress,) = loop.train({workdir: config}, model, images, evaluate, devices=devices)
    return progress.history


def metrics_without_times(workdir):
    records = [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The metrics of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(folder)
    return metrics_without_times(folder)


def test_training_learns_and_writes_every_metric(expected):
    assert [record["epoch"] for record in expected] == [1, 2, 3]
    assert expected[-1]["train_loss"] < 0.8 * expected[0]["train_loss"]
    assert set(expected[0]) == {
        *("epoch", "train_loss", "train_cross_entropy", "train_accuracy"),
        *("validation_auc", "validation_auc_no", "validation_auc_sphere", "validation_auc_vort"),
        *("validation_accuracy", "validation_loss", "validation_cross_entropy"),
    }


def test_the_same_run_twice_gives_the_same_bits(expected, tmp_path):
    train(tmp_path / "again")
    assert metrics_without_times(tmp_path / "again") == expected


def test_fresh_images_train_and_go_on_where_they_stopped(tmp_path):
    """An epoch of images that are never repeated; a run that dies between epochs ends with the same bits."""
    instrument = dataclasses.replace(COMMON_TEST.instrument, image_size=SIZE)
    images = FreshImages(dataclasses.replace(COMMON_TEST, instrument=instrument), 0, 20)
    config = tiny_config(num_epochs=2)
    whole = train(tmp_path / "whole", config, images=images)
    calls = []

    def dies(variables):
        calls.append(variables)
        if len(calls) == 2:
            raise Killed
        return {name: whole[0][name] for name in whole[0] if name.startswith("validation")}

    with pytest.raises(Killed):
        train(tmp_path / "died", config, images=images, evaluate=dies)
    train(tmp_path / "died", config, images=images)
    assert metrics_without_times(tmp_path / "died") == metrics_without_times(tmp_path / "whole")
    assert whole[0]["train_loss"] != whole[1]["train_loss"]


class Killed(BaseException):
    """Stands for a death that nothing can be done about."""


def test_a_run_that_died_goes_on_and_ends_with_the_same_bits(expected, tmp_path):
    config = tiny_config()
    model = models.build(config, axis_name=AXIS)
    evaluate = evaluator(
        predictor(config, model, devices=jax.devices()[:1], with_loss=True), VALIDATION
    )
    calls = []

    def dies(variables):
        calls.append(variables)
        if len(calls) == 2:
            raise Killed
        return evaluate(variables)

    with pytest.raises(Killed):
        train(tmp_path, evaluate=dies)
    assert len(metrics_without_times(tmp_path)) == 1
    train(tmp_path)
    assert metrics_without_times(tmp_path) == expected


def test_a_run_stopped_within_an_epoch_saves_and_ends_with_the_same_bits(
    expected, tmp_path, monkeypatch
):
    number = signal.SIGINT

    def stop_at(batch_number):
        """Trains, and signals when that batch of this run is about to be trained on."""
        seen = []

        def signalling(*arguments):
            seen.append(arguments)
            if len(seen) == batch_number:
                os.kill(os.getpid(), number)
            return gather(*arguments)

        monkeypatch.setattr(epochs, "gather", signalling)
        with pytest.raises(Interrupted) as stopped:
            train(tmp_path)
        monkeypatch.undo()
        assert stopped.value.signal_number == number
        saved = (tmp_path / "checkpoints").iterdir()
        return sorted(int(path.name) for path in saved if path.is_dir())

    # An epoch has 6 batches; the best epoch stays beside the place where the run stopped.
    assert stop_at(9) == [13, 16]
    assert len(metrics_without_times(tmp_path)) == 1
    assert stop_at(1) == [13, 16]  # stopped again before its first step
    assert stop_at(2) == [13, 18]
    train(tmp_path)
    assert metrics_without_times(tmp_path) == expected


def test_a_run_stopped_while_it_validates_does_not_wait_and_ends_with_the_same_bits(
    expected, tmp_path
):
    def interrupted(variables):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("validation went on")  # pragma: no cover

    for _ in range(2):  # the second time with no step left to do
        with pytest.raises(Interrupted):
            train(tmp_path, evaluate=interrupted)
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["12"]
    train(tmp_path)
    assert metrics_without_times(tmp_path) == expected


def test_a_run_that_is_saved_by_the_clock_goes_on_from_there_with_the_same_bits(
    expected, tmp_path, monkeypatch
):
    config = tiny_config(checkpoint_minutes=1e-9)

    left = iter(range(9))

    def counted(*arguments):
        if next(left, None) is None:
            raise Killed
        return gather(*arguments)

    monkeypatch.setattr(epochs, "gather", counted)
    with pytest.raises(Killed):
        train(tmp_path, config)
    monkeypatch.undo()
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [13, 18]
    train(tmp_path, config)
    assert metrics_without_times(tmp_path) == expected


RECIPE = {
    "optimizer.ema_decay": 0.9,
    "optimizer.clip_norm": 1.0,
    "optimizer.accumulate_steps": 2,
    "loss.label_smoothing": 0.1,
    "augmentation.max_shift": 2,
}


def test_training_with_every_augmentation_resumes_bit_for_bit(tmp_path):
    config = tiny_config(num_epochs=2, **RECIPE)
    whole = train(tmp_path / "whole", config)
    calls = []

    def dies(variables):
        calls.append(variables)
        if len(calls) == 2:
            raise Killed
        return {name: whole[0][name] for name in whole[0] if name.startswith("validation")}

    with pytest.raises(Killed):
        train(tmp_path / "died", config, evaluate=dies)
    train(tmp_path / "died", config)
    assert metrics_without_times(tmp_path / "died") == metrics_without_times(tmp_path / "whole")


def test_images_from_disk_train_and_go_on_with_the_same_bits(expected, tmp_path, monkeypatch):
    reads = []

    def read(rows):
        reads.append(len(rows))
        return TRAIN.subset(rows)

    on_disk = StreamedImages(read, np.arange(len(TRAIN)), TRAIN.labels, (SIZE, SIZE))
    left = iter(range(9))

    def sent(*arguments):
        for batch in prefetch(*arguments):
            if next(left, None) is None:
                raise Killed
            yield batch

    monkeypatch.setattr(loop, "prefetch", sent)
    with pytest.raises(Killed):
        train(tmp_path, tiny_config(checkpoint_minutes=1e-9), images=on_disk)
    monkeypatch.undo()
    train(tmp_path, tiny_config(checkpoint_minutes=1e-9), images=on_disk, devices=2)
    assert set(reads) == {8}
    assert [one.keys() for one in metrics_without_times(tmp_path)] == [
        one.keys() for one in expected
    ]
    for one, other in zip(metrics_without_times(tmp_path), expected, strict=True):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, err_msg=name)


def test_a_profile_has_a_trace_of_the_steps_and_says_where_the_time_went(tmp_path, caplog):
    config = tiny_config(num_epochs=2)
    devices = jax.devices()[:1]
    model = models.build(config, axis_name=AXIS)
    profiler = Profiler(config, tmp_path, devices[0], 1)
    answers = predictor(config, model, devices=devices, with_loss=True, profiler=profiler)
    claim(tmp_path, config)
    with caplog.at_level(logging.INFO, "lensjax"):
        evaluate = evaluator(answers, VALIDATION)
        loop.train({tmp_path: config}, model, TRAIN, evaluate, devices=devices, profiler=profiler)
    lines = [text for text in caplog.messages if "outside steps" in text]
    assert ["compiled" in text for text in lines] == [True, False]
    for text in lines:
        rate, share, memory, outside = map(float, re.findall(r"\d[\d.e+-]*", text))
        assert rate > 0
        assert 0 < share < 150
        assert memory > 0.1
        assert 0 < outside < 100
    (trace,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    names = {
        event.get("name")
        for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    }
    assert "train" in names
    assert any("convolution" in str(name) for name in names)


def test_handlers_of_signals_are_given_back(expected, tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train(tmp_path, tiny_config(num_epochs=1))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_lines_beyond_the_newest_checkpoint_are_written_anew(expected, tmp_path):
    """As after a death between the log and the end of a checkpoint's saving."""
    train(tmp_path, tiny_config())
    metrics = tmp_path / METRICS
    metrics.write_text(metrics.read_text() + '{"epoch": 4, "half a li')
    train(tmp_path, tiny_config())
    assert metrics_without_times(tmp_path) == expected


def test_the_best_and_the_newest_epoch_are_kept(tmp_path):
    scores = iter([0.6, 0.9, 0.7, 0.8])
    seen = []

    def evaluate(variables):
        seen.append(jax.device_get(variables))
        names = ("auc_no", "auc_sphere", "auc_vort", "accuracy", "loss", "cross_entropy")
        return {"validation_auc": next(scores)} | {f"validation_{name}": 0.5 for name in names}

    train(tmp_path, tiny_config(num_epochs=4), evaluate=evaluate)
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.is_dir())
    assert steps == [25, 49]
    trained = load_trained(tmp_path, devices=jax.devices()[:1])
    assert trained.best_epoch == 2
    jax.tree.map(np.testing.assert_array_equal, trained.variables, seen[1])


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tmp_path):
    config = tiny_config(**{"optimizer.learning_rate": 1e30})
    with pytest.raises(NonFiniteLossError, match=r"nan in epoch 1, batch \d+.*learning_rate"):
        train(tmp_path, config)
    assert (tmp_path / METRICS).read_text() == ""


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    train(tmp_path, tiny_config(num_epochs=1))
    other = tiny_config(num_epochs=1, **{"model.width": 8})
    (tmp_path / "config.json").write_text(other.to_json())
    with pytest.raises(UserError, match=r"of another model: .* is \(4,\) in the checkpoint"):
        train(tmp_path, other)
    with pytest.raises(UserError, match="of another model"):
        load_trained(tmp_path, devices=jax.devices()[:1])


def test_a_run_goes_on_on_another_number_of_devices(expected, tmp_path):
    def dies(variables):
        raise Killed

    config = tiny_config()
    calls = iter([None])
    model = models.build(config, axis_name=AXIS)
    evaluate = evaluator(
        predictor(config, model, devices=jax.devices()[:1], with_loss=True), VALIDATION
    )
    with pytest.raises(Killed):
        train(tmp_path, evaluate=lambda v: evaluate(v) if next(calls, 1) is None else dies(v))
    train(tmp_path, devices=4)
    for one, other in zip(metrics_without_times(tmp_path), expected, strict=True):
        np.testing.assert_allclose(one["train_loss"], other["train_loss"], rtol=1e-3)


def test_a_batch_size_that_the_devices_cannot_share_is_refused(tmp_path):
    with pytest.raises(UserError, match="batch_size=6 cannot be shared equally by 4 devices"):
        train(tmp_path, tiny_config(batch_size=6), devices=4)
