"""The command import, from DeepLenseSim's files to a data set that training reads."""

import pytest
from helpers.data_files import SIZE, npy_bytes, write_folder
from helpers.deeplensesim_files import MakesFolder, count_image, model_files, pair

from lensjax.config import default_config
from lensjax.data.source import load_splits
from lensjax.main import run


@pytest.fixture
def tool(capsys):
    """Runs the command; returns its exit code and its output on both streams."""

    def run_tool(*words):
        code = run(["import", *map(str, words)])
        return code, capsys.readouterr()

    return run_tool


@pytest.fixture
def model(tmp_path):
    return write_folder(tmp_path / "model", model_files(12))


def test_imported_images_are_loaded_for_training(tmp_path, model, tool):
    output = tmp_path / "set"
    code, printed = tool(f"--input={model}", "--output", output, "--validation=0.25", "--test=2", "--seed=3")
    assert (code, printed.err) == (0, "")
    assert printed.out.split("\n") == [
        f"{output}: images of 8 x 8 pixels, 21 in train/, 9 in val/, 6 in test/",
        f"train on them with --config.data.source={output} --config.data.image_size=8",
        "",
    ]
    config = default_config().data
    config.update({"source": str(output), "image_size": SIZE})
    splits = load_splits(config)
    counts = [part.class_counts() for part in (splits.train, splits.validation, splits.test)]
    assert counts == [(7, 7, 7), (3, 3, 3), (2, 2, 2)]


def test_rerun_of_the_command_succeeds(tmp_path, model, tool):
    words = f"--input={model}", f"--output={tmp_path / 'set'}"
    assert tool(*words) == tool(*words)
    code, printed = tool(*words, "--seed=1")
    assert (code, printed.out) == (2, "")
    assert "set: was created with a different seed (0, not 1); choose another --output\n" in printed.err


def test_bad_files_are_listed_with_code_2(tmp_path, model, tool):
    bad = {
        "no_sub/1.npy": npy_bytes(count_image(0) * 0),
        "axion/1.npy": npy_bytes(pair(count_image(0), MakesFolder(tmp_path / "marker"))),
    }
    write_folder(model, bad)
    code, printed = tool(f"--input={model}", f"--output={tmp_path / 'set'}")
    assert (code, printed.out) == (2, "")
    lines = printed.err.split("\n")
    assert lines[0] == f"lensjax import: {model}: 2 problems in 38 images:"
    assert lines[1].startswith("  no_sub/1.npy: every pixel is 0")
    assert lines[2].startswith("  axion/1.npy: its pickle calls ")
    assert lines[3:] == [""]
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input=a"], "--output must be given; see --help"),
        (["--output=a"], "--input must be given; see --help"),
        (["--input=nowhere", "--output=a"], "nowhere: no such file or folder; check --input"),
        (["--input=a", "--output=a", "--validation=-1"], "validation"),
        (["--input=a", "--output=a", "--seed=x"], "seed"),
        (["folder"], "'folder' is not a flag; see --help"),
        (["."], "'.' is not a flag; did you mean --input=.? see --help"),
        (["--input=a", "."], "'.' is not a flag, and --input accepts only one path; see --help"),
    ],
)
def test_invalid_command_gives_one_line_and_code_2(tool, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, printed = tool(*arguments)
    assert (code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert message in printed.err


def test_help_lists_command_and_flags(tool, capsys):
    code, printed = tool("--help")
    lines = [line.split()[0] for line in printed.out.split("\n") if line.startswith("  --")]
    assert (code, lines) == (0, ["--input", "--output", "--validation", "--test", "--seed"])
    assert run(["--help"]) == 0
    assert "  import    " in capsys.readouterr().out
