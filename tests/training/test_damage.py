"""Damaged, lost and unfinished checkpoints: which are used, which are rejected, and the messages."""

import functools
import json
import logging
import os
import random
import resource
import shutil
import signal

import jax
import numpy as np
import optax
import pytest
from absl import logging as absl_logging
from helpers.tiny_runs import metrics_without_times, tiny_config

from lensjax import models
from lensjax.cli.verify import check
from lensjax.errors import Interrupted, UserError
from lensjax.prediction.trained_model import load_trained_model
from lensjax.training import checkpoint_files as files
from lensjax.training import seeds
from lensjax.training.checkpoint_files import Progress
from lensjax.training.checkpoints import Checkpoints
from lensjax.training.parallel import AXIS
from lensjax.training.state import initial_state
from lensjax.workdir import claim

# Threads of TensorStore and Orbax report errors a second time.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::pytest.Pytest{kind}ExceptionWarning")
    for kind in ("Unraisable", "UnhandledThread")
]

SMALL = {"model.name": "lens_fit_net", "model.num_blocks": 0}
SCORES = (0.7, 0.9, 0.8)


@functools.cache
def initial():
    model = models.build(tiny_config(**SMALL))
    return initial_state(model, optax.adam(1.0), jax.random.key(0), image_size=32, terms=(), with_ema=True)


def state_after(step):
    """A training state whose arrays all depend on the step."""
    added = jax.tree.map(lambda leaf: np.asarray(leaf) + np.asarray(step, leaf.dtype), initial())
    return added.replace(step=np.int32(step))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run of three epochs, the second of which is the best."""
    folder = tmp_path_factory.mktemp("sound") / "run"
    claim(folder, tiny_config(**SMALL))
    records = [{"epoch": epoch, "validation_auc": score} for epoch, score in enumerate(SCORES, 1)]
    with Checkpoints(folder / "checkpoints") as checkpoints:
        for epoch in (1, 2, 3):
            checkpoints.save(state_after(10 * epoch), Progress(epoch, 0, records[:epoch]))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def run(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "run")


BEST, NEWEST = "41", "61"  # twice the number of steps, plus 1 at the end of an epoch


def best_model(run):
    trained = load_trained_model(run, devices=jax.devices()[:1])
    return trained.best_epoch, jax.tree.leaves(trained.variables)


def resume(run):
    with Checkpoints(run / "checkpoints") as checkpoints:
        return checkpoints.restore_newest(state_after(0))


def truncate(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_best_and_newest_epoch_are_restored_unchanged(run):
    epoch, leaves = best_model(run)
    assert epoch == 2
    jax.tree.map(np.testing.assert_array_equal, leaves, jax.tree.leaves(state_after(20).ema))
    state, progress = resume(run)
    assert (progress.epoch, progress.steps_in_epoch, len(progress.history)) == (3, 0, 3)
    jax.tree.map(np.testing.assert_array_equal, state, state_after(30))
    assert not list(check(run))


def test_flipped_bits_are_never_used_without_a_message(run, tmp_path):
    """Twenty flips like those of tools/studies/flip_bits.py, in the arrays and in the progress."""
    places = random.Random(7)
    expected = [leaf.tobytes() for leaf in best_model(run)[1]]
    paths = [path for path in (run / "checkpoints" / BEST).rglob("*") if path.is_file()]
    messages = []
    for _ in range(20):
        (path,) = places.choices(paths, [path.stat().st_size for path in paths])
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[places.randrange(len(content))] ^= 1 << places.randrange(8)
        path.write_bytes(flipped)
        try:
            assert [leaf.tobytes() for leaf in best_model(run)[1]] == expected
        except UserError as error:
            messages.append(str(error))
        path.write_bytes(content)
    assert messages
    assert all(str(run / "checkpoints") in message and "\n" not in message for message in messages)


@pytest.mark.parametrize("item", ["model", "rest", "progress"])
def test_training_resumes_from_newest_intact_checkpoint(run, caplog, item):
    truncate(run / "checkpoints" / NEWEST / item)
    with caplog.at_level(logging.WARNING, "lensjax"):
        state, progress = resume(run)
    assert progress.epoch == 2
    jax.tree.map(np.testing.assert_array_equal, state, state_after(20))
    assert f"checkpoints/{NEWEST} is damaged ({item}" in caplog.text
    assert (run / "checkpoints" / f"{NEWEST}.damaged").is_dir()  # kept
    assert best_model(run)[0] == 2


@pytest.mark.parametrize("loss", ["removed", "progress removed", "model truncated"])
def test_lost_best_epoch_is_refused(run, loss):
    best = run / "checkpoints" / BEST
    if loss == "removed":
        shutil.rmtree(best)
    elif loss == "progress removed":
        shutil.rmtree(best / "progress")
    else:
        truncate(best / "model")
    for use in (best_model, resume):
        with pytest.raises(
            UserError, match=r"checkpoints.* (missing or damaged|is damaged).*delete the folder"
        ):
            use(run)
    assert any(finding.damaged for finding in check(run))


def test_lost_newest_and_best_epoch_is_refused(run):
    """The best epoch in the metrics file is later than any remaining checkpoint."""
    records = [{"epoch": epoch, "validation_auc": epoch / 10} for epoch in (1, 2, 3, 4)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    shutil.rmtree(run / "checkpoints" / NEWEST)
    with pytest.raises(UserError, match="the checkpoint of the best epoch, 4, is missing"):
        best_model(run)


def test_run_survives_losing_newest_checkpoint_at_any_epoch(tmp_path):
    """As after a power failure: the checkpoint before the newest one, and its best epoch, are intact."""
    scores = (0.7, 0.9, 0.8, 0.95, 0.95, 0.6, 0.5)
    records = [{"epoch": epoch, "validation_auc": score} for epoch, score in enumerate(scores, 1)]
    claim(tmp_path / "run", tiny_config(**SMALL))
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        for epoch in range(1, len(scores) + 1):
            checkpoints.save(state_after(10 * epoch), Progress(epoch, 0, records[:epoch]))
            checkpoints.wait()
            assert len(files.list_steps(checkpoints.folder)) <= 4
            if epoch > 1:
                lost = shutil.copytree(tmp_path / "run", tmp_path / f"lost{epoch}")
                shutil.rmtree(lost / "checkpoints" / str(20 * epoch + 1))
                assert resume(lost)[1].epoch == epoch - 1
                best = max(range(epoch - 1), key=lambda index: (scores[index], index)) + 1
                assert best_model(lost)[0] == best
    assert best_model(tmp_path / "run")[0] == 5


@pytest.mark.parametrize("metrics", [None, "{"])
def test_resumed_run_keeps_best_epoch_whatever_orbax_recorded(run, metrics):
    """Earlier versions had an item with the metrics, which has no checksum."""
    for step in (BEST, NEWEST):
        if metrics is not None:
            (run / "checkpoints" / step / "metrics").mkdir()
            (run / "checkpoints" / step / "metrics" / "metrics").write_text(metrics)
    with Checkpoints(run / "checkpoints") as checkpoints:
        _, progress = checkpoints.restore_newest(state_after(0))
        history = progress.history
        for epoch in (4, 5, 6):
            history = [*history, {"epoch": epoch, "validation_auc": 0.1 * epoch}]
            checkpoints.save(state_after(10 * epoch), Progress(epoch, 0, history))
    assert files.list_steps(run / "checkpoints") == [41, 61, 101, 121]
    assert best_model(run)[0] == 2


def test_prediction_works_while_training_replaces_best_epoch(run, monkeypatch):
    """The best epoch is deleted, and a better one is saved, after the reader has listed the folder."""
    read, reads = files.read, []

    def read_late(*arguments):
        if not reads:
            shutil.rmtree(run / "checkpoints" / BEST)
            records = [{"epoch": 1, "validation_auc": score} for score in (*SCORES, 0.99)]
            with Checkpoints(run / "checkpoints") as checkpoints:
                reads.append(arguments)
                checkpoints.save(state_after(40), Progress(4, 0, records))
        return read(*arguments)

    monkeypatch.setattr(files, "read", read_late)
    assert best_model(run)[0] == 4


def test_empty_checkpoint_does_not_stop_prediction_or_training(run, caplog):
    (run / "checkpoints" / "999").mkdir()
    assert best_model(run)[0] == 2
    assert "checkpoints/999 is damaged (progress is missing) and not used" in caplog.text
    assert resume(run)[1].epoch == 3
    assert not (run / "checkpoints" / "999").exists()


def test_run_without_intact_checkpoint_gives_one_line(run):
    for step in (BEST, NEWEST):
        truncate(run / "checkpoints" / step / "model")
    with pytest.raises(UserError, match=rf"checkpoints/{NEWEST} is damaged \(model.*delete the folder"):
        resume(run)


def test_leftovers_of_killed_processes_are_removed(run):
    for name in ("70.orbax-checkpoint-tmp", "7.outdated", "outdated/21"):
        (run / "checkpoints" / name).mkdir(parents=True)
    assert len(list(check(run))) == 3
    resume(run)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {BEST, NEWEST}


def test_checkpoint_without_checksums_is_read(run, caplog):
    """Checkpoints of version 0.2.0 have only the position and the history."""
    for step in (BEST, NEWEST):
        path = run / "checkpoints" / step / "progress" / "metadata"
        content = json.loads(path.read_text())
        del content["sha256"]
        path.write_text(json.dumps(content))
    assert best_model(run)[0] == 2
    assert resume(run)[1].epoch == 3
    assert not caplog.text
    assert not any(finding.damaged for finding in check(run))


def test_full_disk_keeps_earlier_checkpoints(run):
    before = best_model(run)[1]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save():
        with Checkpoints(run / "checkpoints") as checkpoints:
            checkpoints.save(state_after(40), Progress(4, 0, [{"epoch": 4, "validation_auc": 1.0}] * 4))

    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.FATAL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # no larger files
    try:
        with pytest.raises(UserError, match=r"cannot be written: .*earlier checkpoints are kept"):
            save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        absl_logging.set_verbosity(verbosity)
    jax.tree.map(np.testing.assert_array_equal, best_model(run)[1], before)
    assert resume(run)[1].epoch == 3


def test_array_digest_covers_names_types_and_shapes():
    array = np.arange(6, dtype=np.float32)
    variants = [
        {"a": array},
        {"b": array},
        {"a": array.reshape(2, 3)},
        {"a": array.view(np.int32)},
        {"a": -array},
    ]
    assert len({files.array_digest(each) for each in variants}) == len(variants)


def test_signal_after_last_evaluation_stops_several_seeds(tmp_path):
    """Two seeds, one after another; the signal arrives while the last epoch of the first one is logged."""
    from helpers.tiny_runs import TRAIN

    config = tiny_config(**SMALL, num_epochs=1, seeds=2)
    claim(tmp_path, config)
    names = ("auc", "auc_no", "auc_sphere", "auc_vort", "accuracy", "loss")
    calls = []

    class Signaled(logging.Handler):
        def emit(self, record):
            if record.getMessage().lstrip().startswith("1/1"):
                calls.append(record)
                os.kill(os.getpid(), signal.SIGTERM)

    handler = Signaled()
    logger = logging.getLogger("lensjax")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(Interrupted):
            seeds.train(
                config,
                models.build(config, axis_name=AXIS),
                TRAIN,
                lambda variables: {f"validation_{name}": 0.5 for name in names},
                tmp_path,
                devices=jax.devices()[:1],
            )
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert len(calls) == 1
    assert len(metrics_without_times(tmp_path / "seed_0")) == 1
    assert not (tmp_path / "seed_1" / "metrics.jsonl").exists()
