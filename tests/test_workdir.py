import json
import multiprocessing
import pathlib

import pytest

from lensjax.config import default_config
from lensjax.errors import UserError
from lensjax.workdir import claim, lock, read_config, write_atomically


def test_config_is_read_back_unchanged(tmp_path):
    config = default_config()
    config.optimizer.learning_rate = 0.1 + 0.2  # no short decimal
    claim(tmp_path / "run", config)
    assert read_config(tmp_path / "run").to_dict() == config.to_dict()


def test_different_config_is_rejected_with_its_fields(tmp_path):
    claim(tmp_path, default_config())
    claim(tmp_path, default_config())
    other = default_config()
    other.seed = 7
    other.model.width = 8
    difference = r"model\.width = 64 in the existing run, 8 in this command; seed = 0"
    with pytest.raises(UserError, match=rf"created with a different config: {difference}"):
        claim(tmp_path, other)
    assert read_config(tmp_path).seed == 0


def test_folder_with_other_files_is_rejected(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"is not a run folder \(no config.json\)"):
        claim(tmp_path, default_config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_instead_of_folder_is_rejected(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is not a run folder"):
        claim(tmp_path / "run", default_config())


@pytest.mark.parametrize("content", ["", "{", '{"seed": "zero"}', "[1]"])
def test_damaged_config_is_reported(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json: invalid config"):
        read_config(tmp_path)


def test_missing_run_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder \(no config\.json\)"):
        read_config(tmp_path / "nothing")


def hold(folder, ready, done):
    with lock(pathlib.Path(folder)):
        ready.set()
        done.wait(30)


def test_lock_excludes_other_processes(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready, done))
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


def test_interrupted_write_keeps_the_old_content(tmp_path, monkeypatch):
    file = tmp_path / "metrics.json"
    write_atomically(file, json.dumps({"a": 1}))

    def fail(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, json.dumps({"a": 2}))
    assert json.loads(file.read_text()) == {"a": 1}
