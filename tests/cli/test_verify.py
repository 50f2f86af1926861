"""The command verify: invalid paths, named pipes and nested metrics; test_damage.py tests other damage."""

import os
import shutil

import pytest

from lensjax.cli.verify import check
from lensjax.main import run as main
from lensjax.training.history import read_history


@pytest.mark.parametrize(
    ("name", "message"), [("missing", "no such file or folder"), (".", "not the folder")]
)
def test_invalid_path_gives_one_line_and_code_2(tmp_path, capsys, name, message):
    assert main(["verify", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["metrics.jsonl", "calibration.json", "domain.safetensors", "report/a.json"])
def test_pipe_in_a_run_is_reported_without_blocking(run, tmp_path, name):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert main(["verify", str(folder)]) == 1
    assert any(finding.damaged and "regular file" in finding.text for finding in check(folder))


def test_deeply_nested_metrics_are_not_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("[" * 100_000)
    assert read_history(tmp_path / "metrics.jsonl") == []
