"""Two processes with two devices each, connected over localhost, compared with one process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
from helpers.tiny_runs import drop_times, metrics_without_times

from lensjax import models
from lensjax.cli.options import parse
from lensjax.data.source import load_splits
from lensjax.prediction.predictor import make_evaluator, make_predictor
from lensjax.training import loop
from lensjax.training.parallel import AXIS
from lensjax.workdir import claim

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
    flags = ("--distributed", "--coordinator", address, "--num-processes", "2", "--process-id")
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2"}
    return [
        subprocess.Popen(
            command(workdir, *flags, str(number)),
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
    validate = make_evaluator(
        make_predictor(config, model, devices=devices, with_loss=True), splits.validation
    )
    claim(workdir, config)
    runs = {workdir: config}
    (progress,) = loop.train(runs, model, splits.train, validate, devices=devices)
    return drop_times(progress.history)


def wait_for_epoch(processes, workdir, number):
    """Waits until the metrics of an epoch are written."""
    deadline = time.monotonic() + 120
    metrics = workdir / "metrics.jsonl"
    while time.monotonic() < deadline and not (
        metrics.exists() and len(metrics.read_text().splitlines()) >= number
    ):
        assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
        time.sleep(0.05)


def assert_close(records, expected):
    assert len(records) == len(expected)
    for one, other in zip(records, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


def test_two_processes_train_and_stop_like_one(tmp_path):
    """A signal to one process stops both, and so does the death of one. The run resumes in one process."""
    workdir = tmp_path / "two"
    both = start_two(workdir)
    expected = train_here(tmp_path / "one", 1)
    wait_for_epoch(both, workdir, 1)
    both[1].send_signal(signal.SIGTERM)  # not to the process that writes
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [128 + signal.SIGTERM] * 2, outputs
    assert "progress saved" in outputs[0]
    assert "epoch" in outputs[0]
    assert "epoch" not in outputs[1]
    records = metrics_without_times(workdir)
    assert 1 <= len(records) < EPOCHS
    assert_close(records, expected[: len(records)])
    both = start_two(workdir)
    wait_for_epoch(both, workdir, len(records) + 1)
    both[1].kill()
    output = both[0].communicate(timeout=60)[0]
    both[1].communicate()
    assert both[0].returncode == 2, output
    assert "probably because one of them has ended" in output.splitlines()[-1]
    assert "Traceback" not in output
    shutil.copytree(workdir, tmp_path / "four")
    assert_close(train_here(workdir, 1), expected)
    assert_close(train_here(tmp_path / "four", 4), expected)


def test_missing_coordinator_is_reported():
    start = [sys.executable, "-m", "lensjax.main", "--config", "configs/baseline.py"]
    done = subprocess.run([*start, "--distributed"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--coordinator HOST:PORT" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
