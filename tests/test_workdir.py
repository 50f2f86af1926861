import json
import multiprocessing
import pathlib

import pytest

from lensjax.config import default_config
from lensjax.errors import UserError
from lensjax.workdir import claim, locked, read_config, write_atomically


def test_a_claimed_folder_gives_its_config_back(tmp_path):
    config = default_config()
    config.optimizer.learning_rate = 0.1 + 0.2  # no short decimal
    claim(tmp_path / "run", config)
    assert read_config(tmp_path / "run").to_dict() == config.to_dict()


def test_the_same_config_may_claim_again_and_another_is_refused_by_field(tmp_path):
    claim(tmp_path, default_config())
    claim(tmp_path, default_config())
    other = default_config()
    other.seed = 7
    other.model.width = 8
    with pytest.raises(
        UserError, match=r"another config: model\.width is 64 there and 8 here; seed"
    ):
        claim(tmp_path, other)
    assert read_config(tmp_path).seed == 0


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"is not the folder of a run \(it has no config.json\)"):
        claim(tmp_path, default_config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_folder_s_place_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is not the folder of a run"):
        claim(tmp_path / "run", default_config())


@pytest.mark.parametrize("content", ["", "{", '{"seed": "zero"}', "[1]"])
def test_a_damaged_config_is_said_to_be_so(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json cannot be read as a config"):
        read_config(tmp_path)


def test_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(UserError, match=r"it has no config\.json"):
        read_config(tmp_path / "nothing")


def hold(folder, ready, done):
    with locked(pathlib.Path(folder)):
        ready.set()
        done.wait(30)


def test_a_second_process_is_kept_out_until_the_first_ends(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready, done))
    process.start()
    try:
        assert ready.wait(30)
        with pytest.raises(UserError, match="in use by another process"), locked(tmp_path):
            pass
    finally:
        done.set()
        process.join(30)
    with locked(tmp_path):
        pass


def test_an_interrupted_write_leaves_the_old_content(tmp_path, monkeypatch):
    file = tmp_path / "metrics.json"
    write_atomically(file, json.dumps({"a": 1}))

    def dies(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, json.dumps({"a": 2}))
    assert json.loads(file.read_text()) == {"a": 1}
