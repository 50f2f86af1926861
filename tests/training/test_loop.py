"""The training loop on tiny images: determinism, interruption and resumption, errors."""

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
from helpers.tiny_runs import SIZE, TRAIN, VALIDATION, Killed, metrics_without_times, tiny_config

from lensjax import models
from lensjax.data import epochs
from lensjax.data.batches import gather
from lensjax.data.fresh import FreshImages
from lensjax.data.streamed import StreamedImages
from lensjax.errors import Interrupted, NonFiniteLossError, UserError
from lensjax.prediction import predictor
from lensjax.prediction.predictor import make_evaluator, make_predictor
from lensjax.prediction.trained_model import load_trained_model
from lensjax.simulation.presets import COMMON_TEST
from lensjax.training import loop, processes
from lensjax.training.parallel import AXIS, prefetch
from lensjax.training.profiler import Profiler
from lensjax.workdir import METRICS, claim


def train(workdir, config=None, *, evaluate=None, devices=1, images=TRAIN):
    config = tiny_config() if config is None else config
    devices = jax.devices()[:devices]
    model = models.build(config, axis_name=AXIS)
    claim(workdir, config)
    evaluate = evaluate or make_evaluator(
        make_predictor(config, model, devices=devices, with_loss=True), VALIDATION
    )
    (progress,) = loop.train({workdir: config}, model, images, evaluate, devices=devices)
    return progress.history


def evaluate_validation(config):
    """The usual evaluation of a model's variables, on one device."""
    devices = jax.devices()[:1]
    model = models.build(config, axis_name=AXIS)
    return make_evaluator(make_predictor(config, model, devices=devices, with_loss=True), VALIDATION)


def raise_at_call(number, function):
    """Wraps a function so that it raises `Killed` at call `number`, counted from 1."""
    calls = iter(range(1, number))

    def call(*arguments):
        if next(calls, None) is None:
            raise Killed
        return function(*arguments)

    return call


def checkpoint_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The metrics of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
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


def test_repeated_run_is_bit_identical(expected, tmp_path):
    train(tmp_path / "again")
    assert metrics_without_times(tmp_path / "again") == expected


def test_fresh_images_resume_bit_for_bit(tmp_path):
    """Training images never repeat; the run is killed in its second evaluation."""
    instrument = dataclasses.replace(COMMON_TEST.instrument, image_size=SIZE)
    images = FreshImages(dataclasses.replace(COMMON_TEST, instrument=instrument), 0, 20)
    config = tiny_config(num_epochs=2)
    whole = train(tmp_path / "whole", config, images=images)

    def known_metrics(variables):
        return {name: whole[0][name] for name in whole[0] if name.startswith("validation")}

    with pytest.raises(Killed):
        train(tmp_path / "killed", config, images=images, evaluate=raise_at_call(2, known_metrics))
    train(tmp_path / "killed", config, images=images)
    assert metrics_without_times(tmp_path / "killed") == metrics_without_times(tmp_path / "whole")
    assert whole[0]["train_loss"] != whole[1]["train_loss"]


def test_killed_run_resumes_bit_for_bit(expected, tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, evaluate=raise_at_call(2, evaluate_validation(tiny_config())))
    assert len(metrics_without_times(tmp_path)) == 1
    train(tmp_path)
    assert metrics_without_times(tmp_path) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_interrupted_mid_epoch_resumes_bit_for_bit(expected, tmp_path, monkeypatch, number):
    def interrupt_at(batch_number):
        """Trains, sends a signal before a batch, and returns the steps of the checkpoints."""
        batches = []

        def gather_and_signal(*arguments):
            batches.append(arguments)
            if len(batches) == batch_number:
                os.kill(os.getpid(), number)
            return gather(*arguments)

        monkeypatch.setattr(epochs, "gather", gather_and_signal)
        with pytest.raises(Interrupted) as stopped:
            train(tmp_path)
        monkeypatch.undo()
        assert stopped.value.signal_number == number
        return checkpoint_steps(tmp_path)

    # An epoch has 6 batches. The checkpoints are the best epoch and the last two.
    assert interrupt_at(9) == [13, 16]
    assert len(metrics_without_times(tmp_path)) == 1
    assert interrupt_at(1) == [13, 16]  # before the first step of the resumed run
    assert interrupt_at(2) == [13, 16, 18]
    assert interrupt_at(2) == [13, 18, 20]
    train(tmp_path)
    assert metrics_without_times(tmp_path) == expected


def test_signal_interrupts_evaluation_and_run_resumes(expected, tmp_path):
    def signal_itself(variables):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the evaluation continued")  # pragma: no cover

    for _ in range(2):  # the second run has no training step left in the epoch
        with pytest.raises(Interrupted):
            train(tmp_path, evaluate=signal_itself)
        assert checkpoint_steps(tmp_path) == [12]
    train(tmp_path)
    assert metrics_without_times(tmp_path) == expected


def test_run_resumes_from_timed_checkpoint_bit_for_bit(expected, tmp_path, monkeypatch):
    config = tiny_config(checkpoint_minutes=1e-9)
    monkeypatch.setattr(epochs, "gather", raise_at_call(10, gather))
    with pytest.raises(Killed):
        train(tmp_path, config)
    monkeypatch.undo()
    assert checkpoint_steps(tmp_path) == [13, 16, 18]
    train(tmp_path, config)
    assert metrics_without_times(tmp_path) == expected


RECIPE = {
    "optimizer.ema_decay": 0.9,
    "optimizer.clip_norm": 1.0,
    "optimizer.accumulate_steps": 2,
    "loss.label_smoothing": 0.1,
    "augmentation.max_shift": 2,
}


def test_run_with_optional_settings_resumes_bit_for_bit(tmp_path):
    config = tiny_config(num_epochs=2, **RECIPE)
    whole = train(tmp_path / "whole", config)

    def known_metrics(variables):
        return {name: whole[0][name] for name in whole[0] if name.startswith("validation")}

    with pytest.raises(Killed):
        train(tmp_path / "killed", config, evaluate=raise_at_call(2, known_metrics))
    train(tmp_path / "killed", config)
    assert metrics_without_times(tmp_path / "killed") == metrics_without_times(tmp_path / "whole")


def test_images_from_disk_train_like_images_in_memory(expected, tmp_path, monkeypatch):
    """The run is killed in its second epoch and resumes."""
    reads = []

    def read(rows):
        reads.append(len(rows))
        return TRAIN.subset(rows)

    on_disk = StreamedImages(read, np.arange(len(TRAIN)), TRAIN.labels, (SIZE, SIZE))
    left = iter(range(9))

    def prefetch_nine(*arguments):
        for batch in prefetch(*arguments):
            if next(left, None) is None:
                raise Killed
            yield batch

    monkeypatch.setattr(loop, "prefetch", prefetch_nine)
    with pytest.raises(Killed):
        train(tmp_path, tiny_config(checkpoint_minutes=1e-9), images=on_disk)
    monkeypatch.undo()
    train(tmp_path, tiny_config(checkpoint_minutes=1e-9), images=on_disk)
    assert set(reads) == {8}
    assert metrics_without_times(tmp_path) == expected
    (first,) = train(tmp_path / "shared", tiny_config(num_epochs=1), images=on_disk, devices=2)
    assert first["train_loss"] == pytest.approx(expected[0]["train_loss"], rel=1e-4)


def test_profile_traces_steps_and_summarizes_each_epoch(tmp_path, caplog):
    config = tiny_config(num_epochs=2)
    devices = jax.devices()[:1]
    model = models.build(config, axis_name=AXIS)
    profiler = Profiler(config, tmp_path, devices[0], 1)
    predict = make_predictor(config, model, devices=devices, with_loss=True, profiler=profiler)
    claim(tmp_path, config)
    with caplog.at_level(logging.INFO, "lensjax"):
        evaluate = make_evaluator(predict, VALIDATION)
        loop.train({tmp_path: config}, model, TRAIN, evaluate, devices=devices, profiler=profiler)
    lines = [text for text in caplog.messages if "outside steps" in text]
    assert ["compilation" in text for text in lines] == [True, False]
    for text in lines:
        rate, share, memory, outside = map(float, re.findall(r"\d[\d.e+-]*", text))
        assert rate > 0
        assert 0 < share < 150
        assert memory > 0.1
        assert 0 < outside < 100
    (trace,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    names = {event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    assert "train" in names
    assert any("convolution" in str(name) for name in names)


def test_profile_of_short_and_of_resumed_runs(tmp_path, caplog):
    """A run of four steps traces two of them; a resumed epoch may need only its validation."""
    profiler = Profiler(tiny_config(), tmp_path, jax.devices()[0], 1)
    with caplog.at_level(logging.INFO, "lensjax"):
        evaluate = profiler.time_evaluation(jax.numpy.negative)
        evaluate(1.0)
        resumed = profiler.summarize_epoch(0, seconds=60.0)
        step = profiler.time_training(jax.numpy.negative)
        for _ in range(4):
            step(1.0)
        profiler.stop_trace()
        assert "compilation" in profiler.summarize_epoch(4, seconds=60.0)
    assert "no training steps, " in resumed
    assert "compilation" in resumed
    (message,) = (text for text in caplog.messages if "trace" in text)
    assert "a trace of 2 steps" in message


def test_signal_handlers_are_restored(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train(tmp_path, tiny_config(num_epochs=1))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_records_after_newest_checkpoint_are_discarded(expected, tmp_path):
    """The process can die after the record is written and before the checkpoint is complete."""
    train(tmp_path, tiny_config())
    metrics = tmp_path / METRICS
    metrics.write_text(metrics.read_text() + '{"epoch": 4, "half a li')
    train(tmp_path, tiny_config())
    assert metrics_without_times(tmp_path) == expected


def test_two_best_and_two_newest_checkpoints_are_kept(tmp_path):
    scores = iter([0.6, 0.9, 0.7, 0.8])
    evaluated = []

    def evaluate(variables):
        evaluated.append(jax.device_get(variables))
        names = ("auc_no", "auc_sphere", "auc_vort", "accuracy", "loss", "cross_entropy")
        return {"validation_auc": next(scores)} | {f"validation_{name}": 0.5 for name in names}

    train(tmp_path, tiny_config(num_epochs=4), evaluate=evaluate)
    assert checkpoint_steps(tmp_path) == [25, 37, 49]
    trained = load_trained_model(tmp_path, devices=jax.devices()[:1])
    assert trained.best_epoch == 2
    jax.tree.map(np.testing.assert_array_equal, trained.variables, evaluated[1])


def test_nonfinite_loss_stops_run_with_its_position(tmp_path):
    config = tiny_config(**{"optimizer.learning_rate": 1e30})
    with pytest.raises(NonFiniteLossError, match=r"nan in epoch 1, batch \d+.*learning_rate"):
        train(tmp_path, config)
    assert (tmp_path / METRICS).read_text() == ""


def test_checkpoint_of_different_model_is_rejected(tmp_path):
    train(tmp_path, tiny_config(num_epochs=1))
    other = tiny_config(num_epochs=1, **{"model.width": 8})
    (tmp_path / "config.json").write_text(other.to_json())
    with pytest.raises(UserError, match=r"different model: .* of shape \(4,\) in the checkpoint"):
        train(tmp_path, other)
    with pytest.raises(UserError, match="belongs to a different model"):
        load_trained_model(tmp_path, devices=jax.devices()[:1])


def test_run_resumes_on_different_number_of_devices(expected, tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, evaluate=raise_at_call(2, evaluate_validation(tiny_config())))
    train(tmp_path, devices=4)
    for one, other in zip(metrics_without_times(tmp_path), expected, strict=True):
        np.testing.assert_allclose(one["train_loss"], other["train_loss"], rtol=1e-3)


def test_evaluation_batch_is_shared_by_all_devices(monkeypatch):
    """This process owns one of two devices."""
    config, devices = tiny_config(eval_batch_size=8), jax.devices()[:2]
    monkeypatch.setattr(processes, "local_devices", lambda devices: devices[:1])
    sizes = []

    def record(images, rows, size):
        sizes.append(size)
        raise Killed

    monkeypatch.setattr(predictor, "iterate_batches", record)
    predict = make_predictor(config, models.build(config), devices=devices)
    with pytest.raises(Killed):
        predict(None, VALIDATION)
    assert sizes == [4]


def test_indivisible_batch_size_is_rejected(tmp_path):
    with pytest.raises(UserError, match="batch_size=6 cannot be shared equally by 4 devices"):
        train(tmp_path, tiny_config(batch_size=6), devices=4)
