"""Commands end to end on small files: train, resume, evaluate, predict, and their errors."""

import csv
import errno
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.tiny_runs import metrics_without_times

from lensjax.cli import convert_weights
from lensjax.errors import UserError
from lensjax.main import main
from lensjax.main import run as run_command

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
    config.model.stage_sizes = (1, 1)
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


def write_images(folder, per_class, seed):
    """Writes images in the published layout; the position of a bright bar depends on the class."""
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


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run of the largest model: its folder and its command."""
    folder = tmp_path_factory.mktemp("run")
    words = ["--config", config_file(folder, data, "lens_vit_pinn"), "--workdir", str(folder / "run")]
    assert main(words) == 0
    return folder / "run", words


def test_run_writes_config_metrics_checkpoints_and_report(run):
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


def test_report_agrees_with_confusion_matrix_and_best_epoch(run):
    workdir, _ = run
    report = json.loads((workdir / "report" / "metrics.json").read_text())
    counts = np.asarray(report["confusion_matrix"])
    assert counts.sum(1).tolist() == [5, 5, 5] == list(report["images"].values())
    assert report["accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    scores = [row["validation_auc"] for row in metrics_without_times(workdir)]
    assert scores[report["best_epoch"] - 1] == max(scores)
    assert report["auc"] == pytest.approx(np.mean([report[f"auc_{n}"] for n in report["images"]]))


@pytest.fixture
def copied_run(run, tmp_path, without_figures):
    """A copy of the run and its command, for tests that write its report again with empty figures."""
    workdir, words = run
    copy = shutil.copytree(workdir, tmp_path / "copy")
    return copy, [*words[:-1], str(copy)]


def test_repeated_command_keeps_all_metrics(copied_run):
    workdir, words = copied_run
    before = (workdir / "metrics.jsonl").read_text(), (workdir / "report/metrics.json").read_text()
    assert main(words) == 0
    after = (workdir / "metrics.jsonl").read_text(), (workdir / "report/metrics.json").read_text()
    assert after == before


def test_different_config_in_same_folder_is_rejected(run):
    _, words = run
    with pytest.raises(UserError, match=r"different config: seed = 0 in the existing run, 1 in this command"):
        main([*words, "--config.seed=1"])


@pytest.mark.usefixtures("without_figures")
def test_run_is_not_continued_with_other_images(data, tmp_path):
    source, workdir, moved = tmp_path / "data", tmp_path / "run", tmp_path / "moved"
    shutil.copytree(data, source)
    words = ["--config", config_file(tmp_path, source), "--workdir", str(workdir)]
    assert main([*words, "--config.num_epochs=0"]) == 0
    files = [workdir / name for name in ("report/metrics.json", "calibration.json", "images.json")]
    before = [(file.read_text(), file.stat().st_mtime_ns) for file in files]
    shutil.copytree(source, moved)
    folders = [source / "train" / name for name in ("no", "vort", "swapped")]
    for old, new in ((0, 2), (1, 0), (2, 1)):
        folders[old].rename(folders[new])
    with pytest.raises(UserError) as refused:
        main([*words, "--config.num_epochs=0"])
    assert str(refused.value) == (
        f"{workdir} was trained on other images than {source} now contains; choose another --workdir"
    )
    assert [(file.read_text(), file.stat().st_mtime_ns) for file in files] == before
    assert main(["evaluate", f"--workdir={workdir}", f"--config.data.source={moved}"]) == 0
    assert run_command(["verify", str(workdir)]) == 0
    shutil.rmtree(source)
    moved.rename(source)
    files[2].unlink()  # as in runs of earlier versions
    assert main([*words, "--config.num_epochs=0"]) == 0
    assert files[2].read_text() == before[2][0]


def test_evaluation_reproduces_the_report(copied_run):
    workdir, _ = copied_run
    expected = json.loads((workdir / "report" / "metrics.json").read_text())
    (workdir / "report" / "metrics.json").unlink()
    assert main(["--mode", "evaluate", "--workdir", str(workdir)]) == 0
    assert json.loads((workdir / "report" / "metrics.json").read_text()) == expected
    assert main(["--mode=evaluate", f"--workdir={workdir}", "--split=validation"]) == 0
    validation = json.loads((workdir / "report" / "validation" / "metrics.json").read_text())
    best = metrics_without_times(workdir)[validation["best_epoch"] - 1]
    assert validation["auc"] == pytest.approx(best["validation_auc"], abs=1e-12)


def test_prediction_writes_one_row_or_error_per_file(run, tmp_path):
    workdir, _ = run
    folder = tmp_path / "new"
    write_images(folder / "deep", 4, 1)
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
        probabilities = {name: float(row[f"probability_{name}"]) for name in ("no", "sphere", "vort")}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row["class"] == max(probabilities, key=probabilities.get)
    with pytest.raises(UserError, match=r"predictions\.csv exists; choose another --output"):
        main([*words, "--output", str(output)])


def test_folder_zip_and_file_give_equal_predictions(run, data, tmp_path):
    workdir, _ = run
    archive = tmp_path / "val.zip"
    shutil.make_archive(str(archive.with_suffix("")), "zip", data / "val")
    sources = {"folder": data / "val", "zip": archive, "file": data / "val" / "no" / "3.npy"}
    predictions = {}
    for name, source in sources.items():
        output = tmp_path / f"{name}.csv"
        words = ["--mode=predict", f"--workdir={workdir}", f"--input={source}"]
        assert main([*words, f"--output={output}"]) == 0
        with output.open() as stream:
            predictions[name] = {
                pathlib.Path(row["file"]).as_posix(): row["probability_no"] for row in csv.DictReader(stream)
            }
    assert len(predictions["folder"]) == 15
    assert predictions["zip"] == predictions["folder"]
    assert predictions["file"] == {"3.npy": predictions["folder"]["no/3.npy"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode=predict", "--input=nowhere"], "nowhere"),
        (["--mode=predict", "--input={empty}"], "contains no image files"),
    ],
)
def test_input_without_images_is_rejected(run, tmp_path, words, message):
    workdir, _ = run
    words = [word.format(empty=tmp_path) for word in words]
    with pytest.raises(UserError, match=message):
        main([*words, f"--workdir={workdir}", f"--output={tmp_path / 'out.csv'}"])
    assert not (tmp_path / "out.csv").exists()


def test_evaluation_without_a_run_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder"):
        main(["--mode", "evaluate", "--workdir", str(tmp_path)])


def start_command(words):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.Popen(
        [sys.executable, "-m", "lensjax.main", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parent.parent,
    )


def test_killed_run_resumes_bit_for_bit(data, tmp_path):
    """One run is never interrupted; the other is killed and resumed."""
    config = config_file(tmp_path, data)
    more = ["--config.num_epochs=5", "--config.optimizer.learning_rate=1e-3"]

    def words(name):
        return ["--config", config, "--workdir", str(tmp_path / name), *more]

    whole = start_command(words("whole"))
    output, errors = whole.communicate(timeout=200)
    assert whole.returncode == 0, errors
    assert errors == ""
    assert "Best epoch" in output
    expected = metrics_without_times(tmp_path / "whole")
    assert len(expected) == 5
    metrics = tmp_path / "interrupted" / "metrics.jsonl"
    process = start_command(words("interrupted"))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        time.sleep(0.02)
    process.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    assert len(metrics_without_times(tmp_path / "interrupted")) < 5
    resumed = start_command(words("interrupted"))
    _, errors = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, errors
    assert metrics_without_times(tmp_path / "interrupted") == expected


def test_interrupt_while_jax_is_imported_gives_one_line():
    # Background jobs of a shell ignore SIGINT, and so would the command.
    restore = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    words = ["-c", restore, "-X", "importtime", "-m", "lensjax.main", "--config", "baseline:quick"]
    root = pathlib.Path(__file__).parent.parent
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True, cwd=root) as process:
        assert any("numpy" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        lines = [line for line in process.stderr if not line.startswith("import time:")]
    assert process.returncode == 130
    assert lines == ["lensjax: stopped\n"]


def test_full_disk_and_empty_workdir_give_one_line(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/metrics.jsonl")

    monkeypatch.setattr("lensjax.cli.commands.train", fail)
    assert run_command(["--config", "baseline:quick", "--workdir", str(tmp_path / "run")]) == 1
    expected = (
        "lensjax: runs/x/metrics.jsonl: No space left on device; free disk space and rerun the same command\n"
    )
    assert capsys.readouterr().err == expected
    assert run_command(["--config", "baseline:quick", "--workdir", ""]) == 2
    assert capsys.readouterr().err == "lensjax: --workdir is empty; give it a value\n"


def test_user_error_gives_one_line_and_code_2(tmp_path, capsys):
    words = ["--config", config_file(tmp_path, "nowhere"), "--workdir", str(tmp_path / "r")]
    assert run_command(words) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert errors.startswith("lensjax: nowhere: no such file or folder")
    assert run_command([*words, "--config.data.source=elsewhere"]) == 2
    assert capsys.readouterr().err.startswith("lensjax: elsewhere: no such file or folder")


def test_published_images_train_and_report(published_samples, tmp_path):
    """Twelve published images are enough to run the command, not to train a classifier."""
    for name in ("no", "sphere", "vort"):
        files = sorted((published_samples / name).glob("*.npy"))
        for split, part in (("train", files[:3]), ("val", files[3:])):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for file in part:
                shutil.copy(file, tmp_path / "data" / split / name)
    config = pathlib.Path(__file__).parent.parent / "configs" / "baseline.py"
    words = ["--config", f"{config}:quick", "--workdir", str(tmp_path / "run")]
    words += ["--config.num_epochs=1", "--config.model.width=4", "--config.model.stage_sizes=1,"]
    assert main([*words, f"--config.data.source={tmp_path / 'data'}"]) == 0
    report = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert report["images"] == {"no": 1, "sphere": 1, "vort": 1}
    assert (tmp_path / "run" / "report" / "figures" / "where_it_looks.png").stat().st_size > 5_000


@pytest.mark.usefixtures("without_figures")
def test_torch_checkpoint_survives_evaluation_and_conversion_back(data, tmp_path):
    """torch.save -> convert -> evaluate in lensjax -> convert back -> load_state_dict(strict=True)."""
    torch = pytest.importorskip("torch")
    from oracles.torch_models import LensVITPINN, randomize

    vit = {"patch_size": 8, "dim": 16, "depth": 1, "num_heads": 2, "grid": 14}
    make = functools.partial(LensVITPINN, image_size=SIZE, width=4, stages=(1, 1), **vit)
    oracle = randomize(make(), seed=0).eval()
    torch.save(oracle.state_dict(), tmp_path / "reference.pth")
    file, workdir, back = tmp_path / "w.safetensors", tmp_path / "run", tmp_path / "back.pth"
    convert_weights.main(["--input", str(tmp_path / "reference.pth"), "--output", str(file)])
    config = config_file(tmp_path, data, "lens_vit_pinn")
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

    convert_weights.main(["--to-torch", "--input", str(workdir), "--output", str(back)])
    returned = torch.load(back, weights_only=True)
    make().load_state_dict(returned, strict=True)
    for key, tensor in oracle.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(returned[key], tensor), key
