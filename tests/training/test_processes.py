"""Two processes of two devices each, on this machine's loopback, against one process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from lensjax import models
from lensjax.cli.options import parse
from lensjax.data.source import load_splits
from lensjax.prediction.predictor import evaluator, predictor
from lensjax.training import loop
from lensjax.training.parallel import AXIS
from lensjax.workdir import claim

TIMES = ("seconds", "images_per_second")
EPOCHS = 4
SETTINGS = {
    "model.width": 4,
    "model.stage_sizes": (1, 1),
    "preparation.crop": 32,
    "data.num_train": 120,
    "data.num_validation": 21,
    "data.num_test": 9,
    "batch_size": 32,
    "eval_batch_size": 8,
    "num_epochs": EPOCHS,
    "optimizer.learning_rate": 1e-3,
    "optimizer.ema_decay": 0.9,
}


def command(workdir, *words):
    settings = [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    start = [sys.executable, "-m", "lensjax.main", "--config", "configs/baseline.py"]
    return [*start, *settings, "--workdir", str(workdir), *words]


def start_two(workdir):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    together = ("--distributed", "--coordinator", address, "--num-processes", "2", "--process-id")
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2"}
    return [
        subprocess.Popen(
            command(workdir, *together, str(number)),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]


def train_here(workdir, num_devices):
    """The same run in this process."""
    config = parse(command(workdir)[3:]).config
    devices = jax.devices()[:num_devices]
    splits = load_splits(config.data)
    model = models.build(config, axis_name=AXIS)
    validate = evaluator(
        predictor(config, model, devices=devices, with_loss=True), splits.validation
    )
    claim(workdir, config)
    runs = {workdir: config}
    (progress,) = loop.train(runs, model, splits.train, validate, devices=devices)
    return without_times(progress.history)


def without_times(records):
    return [{name: value for name, value in one.items() if name not in TIMES} for one in records]


def metrics(workdir):
    return without_times(
        json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()
    )


def assert_near(records, expected):
    assert len(records) == len(expected)
    for one, other in zip(records, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


def test_two_processes_train_as_one_does_stop_together_and_any_number_goes_on(tmp_path):
    together = tmp_path / "together"
    both = start_two(together)
    expected = train_here(tmp_path / "alone", 1)
    until = time.monotonic() + 120
    while time.monotonic() < until and not (
        (together / "metrics.jsonl").exists() and (together / "metrics.jsonl").read_text()
    ):
        assert all(process.poll() is None for process in both), both[0].communicate()[0]
        time.sleep(0.05)
    both[1].send_signal(signal.SIGTERM)  # not to the one that writes
    texts = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [128 + signal.SIGTERM] * 2, texts
    assert "progress saved" in texts[0]
    assert "epoch" in texts[0]
    assert "epoch" not in texts[1]
    done = metrics(together)
    assert 1 <= len(done) < EPOCHS
    assert_near(done, expected[: len(done)])
    shutil.copytree(together, tmp_path / "four")
    assert_near(train_here(together, 1), expected)
    assert_near(train_here(tmp_path / "four", 4), expected)


def test_processes_that_cannot_meet_say_what_is_missing():
    start = [sys.executable, "-m", "lensjax.main", "--config", "configs/baseline.py"]
    done = subprocess.run([*start, "--distributed"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--coordinator HOST:PORT" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
