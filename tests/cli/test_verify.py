"""The command verify: invalid paths, named pipes and nested metrics; test_damage.py tests other damage."""

import os
import shutil

import pytest

from lensjax.cli.verify import check
from lensjax.errors import UserError
from lensjax.evaluation.calibration import read_temperature
from lensjax.main import run as main
from lensjax.runtime.user_cache import CACHE_VARIABLE
from lensjax.training.history import METRIC, read_history


@pytest.mark.parametrize(
    ("name", "message"), [("missing", "no such file or folder"), (".", "not the folder")]
)
def test_invalid_path_gives_one_line_and_code_2(tmp_path, capsys, name, message):
    assert main(["verify", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["absent", "fits"])
@pytest.mark.parametrize("used", [False, True])
def test_empty_cache_is_intact(tmp_path, monkeypatch, name, used):
    """Every command creates the folder of compiled programs."""
    cache = tmp_path / name
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    if used:
        (cache / "compiled" / "x86_64").mkdir(parents=True)
        assert main(["verify", str(cache)]) == 0
    assert main(["verify"]) == 0
    if used:
        (cache / "simulated").mkdir()
        (cache / "simulated" / "a.npz").write_text("damaged")
        assert main(["verify"]) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "calibration.json", "domain.safetensors", "images.json", "report/a.json"]
)
def test_pipe_in_a_run_is_reported_without_blocking(run, tmp_path, name):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert main(["verify", str(folder)]) == 1
    assert any(finding.damaged and "regular file" in finding.text for finding in check(folder))


def test_damaged_record_of_the_images_is_reported(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "images.json").write_text('{"train": 1}')
    assert main(["verify", str(folder)]) == 1


@pytest.mark.parametrize("text", ["[" * 100_000, f'{{"{METRIC}": 1{400 * "0"}}}'])
def test_metrics_that_cannot_be_parsed_are_not_read(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    assert read_history(tmp_path / "metrics.jsonl") == []


def test_temperature_that_no_float_can_hold_is_damaged(tmp_path):
    others = '"split": "validation", "images": 9, "best_epoch": 1'
    (tmp_path / "calibration.json").write_text(f'{{"temperature": 1{400 * "0"}, {others}}}')
    with pytest.raises(UserError, match=r"calibration\.json: damaged .*too large"):
        read_temperature(tmp_path, 1)
