"""Paths that `lensjax verify` cannot check; damage is tested in tests/training/test_damage.py."""

import pytest

from lensjax.main import run


@pytest.mark.parametrize(
    ("name", "message"), [("missing", "no such file or folder"), (".", "not the folder")]
)
def test_invalid_path_gives_one_line_and_code_2(tmp_path, capsys, name, message):
    assert run(["verify", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err
