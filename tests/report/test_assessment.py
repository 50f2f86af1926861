"""Evaluation of a run on a split: content of the report, and which splits are read."""

import json
import pathlib

import numpy as np
import pytest
from helpers.image_files import bars, npy_bytes, write
from helpers.random_runs import SIZE, make_run
from scipy.special import softmax
from sklearn import metrics

from lensjax import workdir
from lensjax.config import default_config
from lensjax.data.images import CLASSES, DISPLAY_NAMES, ImageSet
from lensjax.errors import UserError
from lensjax.evaluation.scores import SCORE_NAMES
from lensjax.main import main
from lensjax.prediction.predictor import ModelPredictions
from lensjax.report.provenance import collect_provenance
from lensjax.report.writer import write_report

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a folder with separate validation images and a damaged training image."""
    folder = tmp_path_factory.mktemp("evaluated")
    files = {
        f"{part}/{name}/{index}.npy": npy_bytes(bars(17 * label + 5 * index + 100 * offset))
        for offset, part in enumerate(("train", "val", "test"))
        for label, name in enumerate(CLASSES)
        for index in range(4)
    }
    write(folder / "data", files | {"train/no/0.npy": b"damaged"})
    return make_run(folder / "run", **{"data.source": str(folder / "data")})


def evaluate(run, *words):
    assert main(["--mode=evaluate", f"--workdir={run}", *words]) == 0


def report(run, *parts):
    return json.loads(run.joinpath("report", *parts, "metrics.json").read_text())


def test_splits_are_independent_and_validation_sets_temperature(run, caplog):
    evaluate(run)
    advice = f"not marked; write it with lensjax evaluate --split validation --workdir {run}"
    assert sum(advice in message for message in caplog.messages) == 1
    caplog.clear()
    before = report(run)
    assert before["calibration"] is None
    evaluate(run, "--split=validation")
    calibration = json.loads((run / "calibration.json").read_text())
    assert calibration["images"] == 12
    assert report(run, "validation")["calibration"]["temperature"] == calibration["temperature"]
    evaluate(run)
    assert "not marked" not in caplog.text
    after = report(run)
    improved = report(run, "validation")["calibration"]
    assert improved["nll_after"] < improved["nll_before"]
    assert after.pop("calibration")["temperature"] == calibration["temperature"]
    assert before.pop("calibration") is None
    assert before.pop("outside_domain") is None
    assert 0 <= after.pop("outside_domain") <= 12
    assert after == before
    with pytest.raises(UserError, match=r"train/no/0\.npy"):
        evaluate(run, "--split=train")


def test_moved_data_set_is_evaluated(run, tmp_path):
    evaluate(run)
    before = report(run)
    config = workdir.read_config(run)
    old, new = pathlib.Path(config.data.source), tmp_path / "moved"
    old.rename(new)
    try:
        with pytest.raises(UserError, match="no such file or folder"):
            evaluate(run)
        evaluate(run, f"--config.data.source={new}")
    finally:
        new.rename(old)
    assert report(run) == before
    assert f"--config.data.source {new}" in (run / "report" / "index.html").read_text()
    assert workdir.read_config(run).data.source == str(old)


def test_report_has_every_score_with_interval(run):
    if not (run / "report" / "metrics.json").exists():
        evaluate(run, "--split=test")
    found = report(run)
    for name in SCORE_NAMES:
        low, high = found["intervals"][name]
        assert 0 <= low <= high
        assert name == "ece" or low - 1e-9 <= found[name] <= high + 1e-9
    assert found["bootstrap"]["resamples"] == 1000
    counts = np.array(found["confusion_matrix"])
    assert found["accuracy"] == np.trace(counts) / counts.sum()


def test_mean_over_views_has_separate_report(run, tmp_path):
    evaluate(run, "--tta=d4")
    assert report(run, "d4")["tta"] == "d4"
    assert report(run, "d4")["nll"] != report(run)["nll"]
    other = make_run(tmp_path / "run", **{"augmentation.dihedral": False, "data.source": "no"})
    with pytest.raises(UserError, match="needs a classifier trained on rotated images"):
        evaluate(other, "--tta=d4", "--split=validation")


def test_table_matches_report_within_80_columns(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 1000).astype(np.int32)
    probabilities = softmax(generator.normal(size=(3000, 3)) + np.eye(3)[labels], axis=1)
    pixels = np.broadcast_to(np.float32(0.5), (3000, SIZE, SIZE))
    images = ImageSet(pixels, np.ones(3000, np.float32), labels, ("",) * 3000)
    text = write_report(
        tmp_path,
        provenance=collect_provenance(default_config(), tmp_path, split="validation", tta="d4"),
        images=images,
        predictions=ModelPredictions(probabilities, None, {}),
        best_epoch=100,
        history=[],
        temperature=10.5,
    )
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert max(map(len, text.splitlines())) <= 80

    def shown(name, value):
        assert content[name] == pytest.approx(value, abs=1e-12)
        low, high = content["intervals"][name]
        return f"{value:.4f} ({low:.4f} to {high:.4f})"

    words, predicted = " ".join(text.split()), probabilities.argmax(1)
    f1 = metrics.f1_score(labels, predicted, average=None)
    for index, (name, title) in enumerate(zip(CLASSES, DISPLAY_NAMES, strict=True)):
        auc = metrics.roc_auc_score(labels == index, probabilities[:, index])
        assert f"{title} 1,000 {shown(f'auc_{name}', auc)} {shown(f'f1_{name}', f1[index])}" in words
    auc = metrics.roc_auc_score(labels, probabilities, multi_class="ovr")
    assert f"mean 3,000 {shown('auc', auc)} {shown('f1', f1.mean())}" in words
    balanced = metrics.balanced_accuracy_score(labels, predicted)
    assert f" accuracy {shown('accuracy', metrics.accuracy_score(labels, predicted))}" in words
    assert f"balanced accuracy {shown('balanced_accuracy', balanced)}" in words
    brier = ((probabilities - np.eye(3)[labels]) ** 2).sum(1).mean()
    assert f"Brier score {shown('brier', brier)}" in words
    assert f"log loss {shown('nll', metrics.log_loss(labels, probabilities))}" in words
    assert f"calibration error {shown('ece', content['ece'])}" in words
    calibrated = probabilities ** (1 / 10.5)
    loss = metrics.log_loss(labels, calibrated / calibrated.sum(1, keepdims=True))
    assert f"T = 10.500; log loss {loss:.4f}" in words
