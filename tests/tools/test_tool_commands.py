"""Every program in tools/ and every command has a help text, and rejects wrong arguments in one line."""

import io
import os
import pathlib
import runpy
import signal
import sys

import pytest

from lensjax.cli.help import COMMANDS
from lensjax.cli.options import MODES
from lensjax.main import run

TOOLS = pathlib.Path(__file__).parents[2] / "tools"
PROGRAMS = sorted(
    str(path.relative_to(TOOLS)) for path in TOOLS.rglob("*.py") if "__main__" in path.read_text()
)
COMMAND_LINES = ["lensjax", *(f"lensjax {name}" for name in sorted([*MODES, *COMMANDS]))]
# These require arguments. The others run with defaults, and `lensjax` prints the overview of its commands.
NEED_ARGUMENTS = {
    *(line for line in COMMAND_LINES if line not in ("lensjax", "lensjax verify")),
    *("convert_torch_weights.py", "export.py", "prepare_tfds.py", "simulate.py"),
    *("benchmarks/measured_process.py", "benchmarks/training_contestants.py"),
    *("studies/ablation.py", "studies/plot_physics.py", "studies/real_lenses.py", "studies/regression.py"),
    *("studies/simulated_lenses.py", "studies/substructure.py", "studies/where_it_breaks.py"),
}


@pytest.fixture
def program(monkeypatch, capsys, tmp_path):
    """Runs a program in this process; returns its exit code and its output on both streams."""

    def run_program(name, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.stdin", io.StringIO())
        if name.startswith("lensjax"):
            code = run([*name.split()[1:], *words])
        else:
            path = TOOLS / name
            monkeypatch.syspath_prepend(str(path.parent))
            monkeypatch.setattr(sys, "argv", [str(path), *words])
            monkeypatch.setattr(os, "_exit", sys.exit)  # `lensjax.main.entry` ends the process
            # It also ignores Ctrl-C at the end.
            monkeypatch.setattr(signal, "signal", lambda number, handler: None)
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(path), run_name="__main__")
            code = ended.value.code
        assert not any(tmp_path.iterdir())
        return code, *capsys.readouterr()

    return run_program


@pytest.mark.parametrize("name", [*PROGRAMS, *COMMAND_LINES])
def test_program_has_help_and_rejects_wrong_arguments(program, name):
    code, output, errors = program(name, "--help")
    assert (code, errors) == (0, "")
    assert len(output.splitlines()) > 4
    wrong = [["--no-such-flag"], ["--no-such-flag=1", "word"], [f"--seed={2**32}"]]
    for words in [*wrong, []] if name in NEED_ARGUMENTS else wrong:
        code, output, errors = program(name, *words)
        assert code == 2, words
        assert output == ""
        assert errors.count("\n") == 1, errors
        assert errors.endswith("\n")
