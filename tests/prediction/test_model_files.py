"""Model files, and the models that are part of the package."""

import csv
import shutil

import jax
import numpy as np
import pytest
from helpers.image_files import bars

import lensjax
from lensjax import weights
from lensjax.errors import UserError
from lensjax.evaluation.calibration import Calibration, write_calibration
from lensjax.main import run as main

IMAGES = np.stack([bars(seed) for seed in range(4)])


@pytest.fixture(scope="module")
def model_file(run, tmp_path_factory):
    """A model file of a run with a temperature of 2."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(run, folder / "run")
    epoch = lensjax.load(run).trained.best_epoch
    write_calibration(folder / "run", Calibration(2.0, "validation", 100, epoch))
    path = folder / "small.safetensors"
    words = ["export", "--workdir", str(folder / "run"), "--format", "safetensors", "--output", str(path)]
    assert main(words) == 0
    return path


@pytest.mark.parametrize("calibrated", [False, True])
def test_model_file_predicts_like_its_run(model_file, calibrated):
    from_run = lensjax.load(model_file.parent / "run").predict(IMAGES, calibrated=calibrated)
    from_file = lensjax.load(str(model_file)).predict(IMAGES, calibrated=calibrated)
    np.testing.assert_array_equal(from_file.probabilities, from_run.probabilities)
    assert from_file.probabilities.std() > 1e-4


def test_predict_accepts_model_and_images_without_input_flag(model_file, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    output = tmp_path / "table.csv"
    words = ["predict", "--model", str(model_file), "--output", str(output), str(tmp_path / "images.npy")]
    assert main(words) == 0
    with output.open() as file:
        rows = list(csv.DictReader(file))
    expected = lensjax.load(model_file).predict(IMAGES).classes
    assert [row["class"] for row in rows] == list(expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"best_epoch": "x"},
        {"temperature": "[" * 9999},
        {"temperature": "-1"},
        {"temperature": "{}"},
        {"temperature": "1" + "0" * 400},
    ],
)
def test_invalid_metadata_raises_an_error(model_file, tmp_path, changes):
    variables, metadata = weights.load(model_file)
    weights.save(tmp_path / "x.safetensors", variables, metadata | changes)
    with pytest.raises(UserError, match=r"x\.safetensors: the best epoch or temperature .* is invalid"):
        lensjax.load(tmp_path / "x.safetensors")


def test_wrong_sizes_and_missing_config_are_rejected(model_file, tmp_path):
    variables, metadata = weights.load(model_file)
    bare = tmp_path / "bare.safetensors"
    weights.save(bare, variables, {"architecture": metadata["architecture"]})
    with pytest.raises(UserError, match="no config of a run"):
        lensjax.load(bare)
    wider = tmp_path / "wider.safetensors"
    weights.save(wider, jax.tree.map(lambda leaf: np.stack([leaf, leaf]), variables), metadata)
    with pytest.raises(UserError, match="do not match the config"):
        lensjax.load(wider)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "comon_test", "x.npy"], "did you mean common_test?"),
        (["--model", "common_test", "--workdir", "runs/x", "x.npy"], "give only one of them"),
        (["--model", "common_test"], "predict needs --input"),
        (["--model", "common_test", "x.npy", "y.npy"], "only one path, but y.npy was also given"),
        (["x.npy"], "predict needs --model NAME or --workdir FOLDER"),
    ],
)
def test_invalid_commands_exit_with_code_2(words, message, capsys):
    assert main(["predict", *words]) == 2
    assert message in capsys.readouterr().err
