"""The commands of the README, end to end on small files: train, resume, evaluate, predict, refuse."""

import csv
import functools
import json
import os
import pathlib
import runpy
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lensjax.cli import convert_weights
from lensjax.errors import UserError
from lensjax.main import main

SIZE = 32
CONFIG = """
from lensjax.config import default_config

def get_config(name):
    config = default_config()
    config.data.source = "{source}"
    config.data.image_size = 32
    config.data.validation_fraction = 0.25
    config.model.name = "{model}"
    config.model.width = 4
    config.model.stage_sizes = (1, 2)
    config.model.patch_size = 8
    config.model.embedding_size = 16
    config.model.depth = 1
    config.model.num_heads = 2
    config.batch_size = 8
    config.eval_batch_size = 8
    config.num_epochs = 2
    config.optimizer.learning_rate = 3e-3
    return config
"""
TIMES = ("seconds", "images_per_second")


def write_images(folder, per_class, seed):
    """Images in the published layout; each class has a bright bar in another place."""
    generator = np.random.default_rng(seed)
    for label, name in enumerate(("no", "sphere", "vort")):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            counts = generator.poisson(20, (SIZE, SIZE))
            counts[8 + 6 * label] += 20
            counts = counts - counts.min()
            np.save(folder / name / f"{index}.npy", (counts / counts.max())[None])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_images(folder / "train", 16, 0)
    write_images(folder / "val", 5, 1)
    return folder


def config_file(folder, source, model="baseline_cnn"):
    file = folder / "tiny.py"
    file.write_text(CONFIG.format(source=source, model=model))
    return str(file)


@pytest.fixture(scope="module", params=["baseline_cnn", "lens_vit_pinn"])
def run(request, data, tmp_path_factory):
    """A finished run: its folder, and the words that made it."""
    folder = tmp_path_factory.mktemp("run")
    words = ["--config", config_file(folder, data, request.param), "--workdir", str(folder / "run")]
    assert main(words) == 0
    return folder / "run", words


def records(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def test_a_run_leaves_config_metrics_checkpoints_and_a_report(run):
    workdir, _ = run
    names = {path.name for path in workdir.iterdir() if not path.name.startswith(".")}
    assert {"config.json", "metrics.jsonl", "checkpoints", "report"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    report = workdir / "report"
    assert {path.name for path in report.iterdir()} == {"metrics.json", "index.html", "figures"}
    assert (report / "index.html").read_text().startswith("<!doctype html>")
    figures = {"roc", "confusion_matrix", "examples", "learning_curves", "where_it_looks"}
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        files = {path.stem: path for path in (report / "figures").glob(f"*.{kind}")}
        assert figures < set(files)
        for file in files.values():
            assert file.read_bytes().startswith(start)
            assert file.stat().st_size > 5_000


def test_the_report_s_figures_are_those_of_its_confusion_matrix_and_best_epoch(run):
    workdir, _ = run
    report = json.loads((workdir / "report" / "metrics.json").read_text())
    counts = np.asarray(report["confusion_matrix"])
    assert counts.sum(1).tolist() == [5, 5, 5] == list(report["images"].values())
    assert report["accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    scores = [row["validation_auc"] for row in records(workdir)]
    assert scores[report["best_epoch"] - 1] == max(scores)
    assert report["auc"] == pytest.approx(np.mean([report[f"auc_{n}"] for n in report["images"]]))


def test_the_same_command_again_changes_no_number(run):
    workdir, words = run
    before = (workdir / "metrics.jsonl").read_text(), (workdir / "report/metrics.json").read_text()
    assert main(words) == 0
    after = (workdir / "metrics.jsonl").read_text(), (workdir / "report/metrics.json").read_text()
    assert after == before


def test_another_config_in_the_same_folder_is_refused(run):
    _, words = run
    with pytest.raises(
        UserError, match=r"different config: seed = 0 in the existing run, 1 in this command"
    ):
        main([*words, "--config.seed=1"])


def test_evaluation_needs_only_the_folder_and_gives_the_report_again(run, tmp_path):
    workdir, _ = run
    expected = json.loads((workdir / "report" / "metrics.json").read_text())
    (workdir / "report" / "metrics.json").unlink()
    assert main(["--mode", "evaluate", "--workdir", str(workdir)]) == 0
    assert json.loads((workdir / "report" / "metrics.json").read_text()) == expected
    assert main(["--mode=evaluate", f"--workdir={workdir}", "--split=validation"]) == 0
    validation = json.loads((workdir / "report" / "validation" / "metrics.json").read_text())
    best = records(workdir)[validation["best_epoch"] - 1]
    assert validation["auc"] == pytest.approx(best["validation_auc"], abs=1e-12)


def test_prediction_gives_a_row_a_file_and_an_error_for_each_bad_one(run, data, tmp_path):
    workdir, _ = run
    folder = tmp_path / "new"
    write_images(folder / "deep", 4, 1)  # as the first four of each class in val/, by seed
    good = sorted(folder.rglob("*.npy"))
    np.save(folder / "small.npy", np.zeros((8, 8)))
    (folder / "broken.npy").write_bytes(good[0].read_bytes()[:500])
    (folder / "notes.txt").write_text("not an image")
    output = tmp_path / "predictions.csv"
    words = ["--mode", "predict", "--workdir", str(workdir), "--input", str(folder)]
    assert main([*words, "--output", str(output)]) == 1
    with output.open() as stream:
        rows = {row["file"]: row for row in csv.DictReader(stream)}
    assert len(rows) == len(good) + 2
    assert "shape (8, 8), expected (32, 32)" in rows["small.npy"]["error"]
    assert "truncated" in rows["broken.npy"]["error"]
    assert rows["small.npy"]["class"] == ""
    for file in good:
        row = rows[file.relative_to(folder).as_posix()]
        chances = {name: float(row[f"probability_{name}"]) for name in ("no", "sphere", "vort")}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert row["class"] == max(chances, key=chances.get)
    with pytest.raises(UserError, match=r"predictions\.csv exists; name another file"):
        main([*words, "--output", str(output)])


def test_prediction_of_one_file_and_of_a_zip_agree_with_that_of_the_folder(run, data, tmp_path):
    workdir, _ = run
    archive = tmp_path / "val.zip"

    shutil.make_archive(str(archive.with_suffix("")), "zip", data / "val")
    answers = {}
    for name, source in {
        "folder": data / "val",
        "zip": archive,
        "file": data / "val" / "no" / "3.npy",
    }.items():
        output = tmp_path / f"{name}.csv"
        assert (
            main(
                [
                    "--mode=predict",
                    f"--workdir={workdir}",
                    f"--input={source}",
                    f"--output={output}",
                ]
            )
            == 0
        )
        with output.open() as stream:
            answers[name] = {
                pathlib.Path(row["file"]).as_posix(): row["probability_no"]
                for row in csv.DictReader(stream)
            }
    assert len(answers["folder"]) == 15
    assert answers["zip"] == answers["folder"]
    assert answers["file"] == {"3.npy": answers["folder"]["no/3.npy"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode=predict", "--input=nowhere"], "nowhere"),
        (["--mode=predict", "--input={empty}"], "has no .npy file"),
    ],
)
def test_nothing_to_predict_is_refused(run, tmp_path, words, message):
    workdir, _ = run
    words = [word.format(empty=tmp_path) for word in words]
    with pytest.raises(UserError, match=message):
        main([*words, f"--workdir={workdir}", f"--output={tmp_path / 'out.csv'}"])
    assert not (tmp_path / "out.csv").exists()


def test_evaluation_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder"):
        main(["--mode", "evaluate", "--workdir", str(tmp_path)])


def command(words, **options):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
    }
    return subprocess.Popen(
        [sys.executable, "-m", "lensjax.main", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parent.parent,
        **options,
    )


def test_a_run_killed_at_any_point_ends_with_the_same_bits(data, tmp_path):
    """The real command twice: undisturbed; and terminated, gone on with, killed, and gone on with again."""
    config = config_file(tmp_path, data)
    more = ["--config.num_epochs=5", "--config.optimizer.learning_rate=1e-3"]

    def words(name):
        return ["--config", config, "--workdir", str(tmp_path / name), *more]

    whole = command(words("whole"))
    output, errors = whole.communicate(timeout=200)
    assert whole.returncode == 0, errors
    assert errors == ""
    assert "Best epoch" in output
    expected = records(tmp_path / "whole")
    assert len(expected) == 5
    metrics = tmp_path / "disturbed" / "metrics.jsonl"
    for epochs, number, code in ((1, signal.SIGTERM, 143), (2, signal.SIGKILL, -signal.SIGKILL)):
        process = command(words("disturbed"))
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if metrics.exists() and metrics.read_text().count("\n") >= epochs:
                break
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert len(records(tmp_path / "disturbed")) < 5
    again = command(words("disturbed"))
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert records(tmp_path / "disturbed") == expected


def test_a_mistake_ends_with_one_line_and_code_2(tmp_path):
    process = command(
        ["--config", config_file(tmp_path, "nowhere"), "--workdir", str(tmp_path / "r")]
    )
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert errors.startswith("lensjax: nowhere: no such file or folder")


def test_real_images_train_and_report(real_samples, tmp_path):
    """The twelve real images arranged as train/ and val/: that it runs is the point, not the figures."""

    for name in ("no", "sphere", "vort"):
        files = sorted((real_samples / name).glob("*.npy"))
        for split, part in (("train", files[:3]), ("val", files[3:])):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for file in part:
                shutil.copy(file, tmp_path / "data" / split / name)
    config = pathlib.Path(__file__).parent.parent / "configs" / "baseline.py"
    words = ["--config", f"{config}:quick", "--workdir", str(tmp_path / "run")]
    assert main([*words, f"--config.data.source={tmp_path / 'data'}", "--config.num_epochs=2"]) == 0
    report = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert report["images"] == {"no": 1, "sphere": 1, "vort": 1}


def test_a_checkpoint_of_the_reference_is_evaluated_and_comes_back_as_it_was(run, data, tmp_path):
    """torch.save -> convert -> evaluate in lensjax -> convert back -> load_state_dict(strict=True)."""
    torch = pytest.importorskip("torch")
    from oracles.torch_models import BaselineCNN, LensVITPINN, randomize

    name = json.loads((run[0] / "config.json").read_text())["model"]["name"]
    if name == "baseline_cnn":
        make = functools.partial(BaselineCNN, width=4, stages=(1, 2))
    else:
        vit = {"patch_size": 8, "dim": 16, "depth": 1, "num_heads": 2, "grid": 14}
        make = functools.partial(LensVITPINN, image_size=SIZE, width=4, stages=(1, 2), **vit)
    oracle = randomize(make(), seed=0).eval()
    torch.save(oracle.state_dict(), tmp_path / "reference.pth")
    file, workdir, back = tmp_path / "w.safetensors", tmp_path / "run", tmp_path / "back.pth"
    convert_weights.main(["--input", str(tmp_path / "reference.pth"), "--output", str(file)])
    config = config_file(tmp_path, data, name)
    words = [f"--config.model.pretrained={file}", "--config.num_epochs=0"]
    assert main(["--config", config, "--workdir", str(workdir), *words]) == 0
    assert json.loads((workdir / "report" / "metrics.json").read_text())["epochs"] == 0

    output = tmp_path / "predictions.csv"
    words = ["--workdir", str(workdir), "--input", str(data / "val"), "--output", str(output)]
    assert main(["--mode", "predict", *words]) == 0
    with output.open() as rows:
        for row in csv.DictReader(rows):
            image = torch.tensor(np.load(data / "val" / row["file"]), dtype=torch.float32)
            with torch.no_grad():
                expected = oracle(image[None]).softmax(1)[0].numpy()
            found = [float(row[f"probability_{name}"]) for name in ("no", "sphere", "vort")]
            np.testing.assert_allclose(found, expected, atol=1e-4)

    tool["main"](["--to-torch", "--input", str(workdir), "--output", str(back)])
    returned = torch.load(back, weights_only=True)
    make().load_state_dict(returned, strict=True)
    for key, tensor in oracle.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(returned[key], tensor), key
