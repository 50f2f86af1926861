"""The folder of a run: its config, its lock, and atomic writes."""

import errno
import json
import multiprocessing
import os
import pathlib

import pytest

from lensjax.config import default_config
from lensjax.errors import UserError
from lensjax.workdir import claim, hold, is_started, lock, read_config, write_atomically


def test_config_is_read_back_unchanged(tmp_path):
    config = default_config()
    config.optimizer.learning_rate = 0.1 + 0.2  # has 17 significant digits
    claim(tmp_path / "run", config)
    assert read_config(tmp_path / "run").to_dict() == config.to_dict()


def test_unreadable_config_is_not_written(tmp_path):
    config = default_config()
    config.optimizer.lerning_rate = 1.0
    with pytest.raises(UserError, match=r"no such field; did you mean config\.optimizer\.learning_rate"):
        claim(tmp_path / "run", config)
    assert not any(tmp_path.iterdir())


def test_different_config_is_rejected_with_its_fields(tmp_path):
    claim(tmp_path, default_config())
    claim(tmp_path, default_config())
    (tmp_path / "metrics.jsonl").touch()
    other = default_config()
    other.seed = 7
    other.model.width = 8
    difference = r"model\.width = 64 in the existing run, 8 in this command; seed = 0"
    with pytest.raises(UserError, match=rf"created with a different config: {difference}"):
        claim(tmp_path, other)
    assert read_config(tmp_path).seed == 0


def test_folder_without_training_accepts_a_corrected_config(tmp_path):
    wrong, right = default_config(), default_config()
    wrong.data.source = "/tpyo"
    with hold(tmp_path, wrong):
        (tmp_path / "images.json").touch()
        (tmp_path / "checkpoints").mkdir()
    with hold(tmp_path / "seed_0", wrong):
        pass
    with hold(tmp_path, right):
        assert read_config(tmp_path).to_dict() == right.to_dict()
        assert not (tmp_path / "images.json").exists()
        with pytest.raises(UserError, match="in use by another process"):
            claim(tmp_path, wrong)
    (tmp_path / "seed_0" / "checkpoints" / "1").mkdir(parents=True)
    assert is_started(tmp_path)
    with pytest.raises(UserError, match="created with a different config"):
        claim(tmp_path, wrong)


def test_file_of_another_program_is_not_replaced(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["Other"]}')
    with pytest.raises(UserError, match=r"config\.json: invalid config"):
        claim(tmp_path, default_config())
    assert "Other" in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("name", ["run.safetensors", "a\\b", "run[1]", "new\nline"])
def test_folder_that_could_not_be_read_is_rejected(tmp_path, name):
    with pytest.raises(UserError, match="choose another"):
        claim(tmp_path / name, default_config())
    assert not any(tmp_path.iterdir())


def test_folder_with_other_files_is_rejected(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"is not a run folder \(no config.json\)"):
        claim(tmp_path, default_config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_instead_of_folder_is_rejected(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is not a run folder"):
        claim(tmp_path / "run", default_config())


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", '{"seed": "zero"}', "[1]", "[" * 100_000, '{"model": null}', '{"model": {"width": null}}'),
        *('{"model": {"width": 0}}', '{"model": {"width": 4.0}}', '{"data": {"image_size": 10000000}}'),
        *('{"preparation": {"crop": 9999}}', '{"model": {"widht": 4}}', '{"seed": 4294967296}'),
        '{"optimizer": {"learning_rate": 1' + 400 * "0" + "}}",
        *('{"optimizer": {"learning_rate": Infinity}}', '{"augmentation": {"dihedral": 1}}'),
        *('{"model": {"stage_sizes": [true, 2]}}', '{"optimizer": {"eps": -1}}', '{"batch_size": 100000}'),
    ],
)
def test_damaged_config_is_reported(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json: invalid config"):
        read_config(tmp_path)


def test_changed_config_is_reported_unless_images_moved(tmp_path):
    claim(tmp_path / "run", default_config())
    file = tmp_path / "run" / "config.json"
    text = file.read_text()
    file.write_text(text.replace("simulated:common_test", "/other/place"))
    assert read_config(tmp_path / "run").data.source == "/other/place"
    file.write_text(text.replace('"crop": 0', '"crop": 1'))
    with pytest.raises(UserError, match=r"config\.json: invalid config: its content has changed"):
        read_config(tmp_path / "run")


def test_config_of_earlier_version_is_read(tmp_path):
    """Earlier fields and values that only determined where images were stored are ignored."""
    content = '{"seed": 3, "data": {"residence": "device", "device_share": 0.5}}'
    (tmp_path / "config.json").write_text(content)
    expected = default_config()
    expected.seed = 3
    assert read_config(tmp_path).to_dict() == expected.to_dict()


@pytest.mark.parametrize("name", ["a\\b", "a[0]b", "a\nb", "a\udcffb"])
def test_path_that_checkpoints_cannot_have_is_rejected(tmp_path, name):
    with pytest.raises(UserError, match="choose another folder with --workdir"):
        claim(tmp_path / name, default_config())
    assert not list(tmp_path.iterdir())


def test_folder_of_a_killed_start_is_claimed(tmp_path):
    (tmp_path / "config.json.tmp").write_text('{"se')
    (tmp_path / ".lock").touch()
    claim(tmp_path, default_config())
    assert read_config(tmp_path).seed == 0
    assert not (tmp_path / "config.json.tmp").exists()


@pytest.mark.parametrize("kind", ["in a file", "link", "long"])
def test_folder_that_cannot_be_created_is_reported(tmp_path, kind):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    name = {"in a file": "file/run", "link": "link", "long": 300 * "x"}[kind]
    with pytest.raises(UserError, match="cannot be created"):
        claim(tmp_path / name, default_config())


def test_write_is_synced_and_replaces_links(tmp_path, monkeypatch):
    """File and folder are on disk before the function returns; the target of a link is not changed."""
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_ino), fsync(file)))
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a.json.tmp").symlink_to(tmp_path / "mine")
    write_atomically(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"
    assert (tmp_path / "mine").read_text() == "mine"
    assert synced == [(tmp_path / "a.json").stat().st_ino, tmp_path.stat().st_ino]


def test_missing_run_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder \(no config\.json\)"):
        read_config(tmp_path / "nothing")


def hold_lock(folder, ready, done):
    with lock(pathlib.Path(folder)):
        ready.set()
        done.wait(30)


def test_lock_excludes_other_processes(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold_lock, args=(str(tmp_path), ready, done))
    process.start()
    try:
        assert ready.wait(30)
        with pytest.raises(UserError, match="in use by another process"), lock(tmp_path):
            pass
    finally:
        done.set()
        process.join(30)
    with lock(tmp_path):
        pass


def test_full_disk_error_names_the_file(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "metrics.json", "{}")
    assert caught.value.filename == str(tmp_path / "metrics.json")
    assert not any(tmp_path.iterdir())


def test_moved_images_are_explained(tmp_path):
    config = default_config()
    config.data.source = "/old"
    claim(tmp_path, config)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    config.data.source = "/new"
    with pytest.raises(UserError, match="if the images were moved, link /old to them"):
        claim(tmp_path, config)


def test_interrupted_write_keeps_the_old_content(tmp_path, monkeypatch):
    file = tmp_path / "metrics.json"
    write_atomically(file, json.dumps({"a": 1}))

    def fail(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, json.dumps({"a": 2}))
    assert json.loads(file.read_text()) == {"a": 1}
