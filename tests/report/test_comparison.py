"""Comparison of runs: DeLong's test compared with its definition, the paired bootstrap, and the command."""

import json

import numpy as np
import pytest
from helpers.image_files import bars, npy_bytes, write
from helpers.random_runs import make_run
from scipy.special import softmax
from scipy.stats import norm

from lensjax.data.images import CLASSES
from lensjax.errors import UserError
from lensjax.evaluation.delong import auc_differences
from lensjax.evaluation.scores import SCORE_NAMES
from lensjax.main import main
from lensjax.report.comparison import bootstrap_p, compare_predictions
from lensjax.report.comparison_table import format_table


def two_classifiers(number, seed, better=0.0, step=None):
    """Labels, and probabilities from two classifiers with correlated errors.

    The second classifier is more accurate if `better` is above 0. Probabilities are tied if `step` is given.
    """
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(number) % 3)
    common, one, other = generator.normal(size=(3, number, 3))
    truth = np.eye(3)[labels]
    logits = common + one + truth, common + other + (1 + better) * truth
    if step:
        logits = tuple(np.round(part / step) * step for part in logits)
    return labels, *(softmax(part, axis=1) for part in logits)


def delong_by_pairs(labels, probabilities):
    """AUCs `[2, 3]` and structural components `[2, 3, n]` from all pairs of positives and negatives."""
    number = len(labels)
    areas, components = np.zeros((2, 3)), np.zeros((2, 3, number))
    for which in range(2):
        for index in range(3):
            positive = np.flatnonzero(labels == index)
            negative = np.flatnonzero(labels != index)
            values = probabilities[which][:, index]
            kernel = np.zeros((len(positive), len(negative)))
            for row, i in enumerate(positive):
                for column, j in enumerate(negative):
                    above = float(values[i] > values[j])
                    kernel[row, column] = 0.5 if values[i] == values[j] else above
            areas[which, index] = kernel.mean()
            components[which, index, positive] = kernel.mean(1)
            components[which, index, negative] = kernel.mean(0)
    return areas, components


@pytest.mark.parametrize("step", [None, 0.5])
def test_delong_test_matches_definition_over_all_pairs(step):
    labels, first, second = two_classifiers(60, 0, better=0.4, step=step)
    found = auc_differences(labels, first, second)
    areas, components = delong_by_pairs(labels, (first, second))
    for index, name in enumerate(CLASSES):
        positive = labels == index
        # Covariance matrices, 2 x 2, of the components over positives and over negatives.
        s10 = np.cov(components[:, index, positive])
        s01 = np.cov(components[:, index, ~positive])
        covariance = s10 / positive.sum() + s01 / (~positive).sum()
        contrast = np.array([-1, 1])
        error = np.sqrt(contrast @ covariance @ contrast)
        result = found[f"auc_{name}"]
        assert result.difference == pytest.approx(areas[1, index] - areas[0, index], abs=1e-12)
        assert result.standard_error == pytest.approx(error, rel=1e-9)
        z = result.difference / error
        assert result.p == pytest.approx(2 * (1 - norm.cdf(abs(z))), abs=1e-9)
    assert found["auc"].difference == pytest.approx(np.mean(areas[1] - areas[0]), abs=1e-12)


def test_delong_standard_error_matches_scatter():
    results = [auc_differences(*two_classifiers(240, seed)) for seed in range(300)]
    for name in ("auc", "auc_sphere"):
        spread = np.std([result[name].difference for result in results])
        expected = np.sqrt(np.mean([result[name].standard_error ** 2 for result in results]))
        assert expected == pytest.approx(spread, rel=0.13), name
        # Under the null hypothesis, p is below 0.1 in 10 % of the sets.
        assert np.mean([result[name].p < 0.1 for result in results]) == pytest.approx(0.1, abs=0.05)


def test_paired_bootstrap_agrees_with_delong():
    labels, first, second = two_classifiers(600, 1, better=0.3)
    content = compare_predictions(["a", "b"], labels, [first, second])
    (pair,) = content["pairs"]
    for name in ("auc", "auc_no"):
        found = pair["differences"][name]
        low, high = found["interval"]
        assert low < found["difference"] < high
        width = 2 * 1.96 * found["delong"]["standard_error"]
        assert high - low == pytest.approx(width, rel=0.12)
        ends = [run["intervals"][name] for run in content["figures"]]
        assert high - low < np.hypot(*(top - bottom for bottom, top in ends))
        assert found["bootstrap_p"] == pytest.approx(found["delong"]["p"], abs=0.01)
    assert bootstrap_p(np.ones(999)) == 0.002
    assert bootstrap_p(np.tile([-1.0, 1.0], 500)) == 1


def test_identical_predictions_have_no_difference():
    labels, first, _ = two_classifiers(90, 2)
    content = compare_predictions(["a", "b"], labels, [first, first])
    for found in content["pairs"][0]["differences"].values():
        assert found["difference"] == 0
        assert found["interval"] == (0, 0)
        assert found["bootstrap_p"] == 1
        assert found.get("delong", {"p": 1})["p"] == 1


def test_table_of_three_runs_matches_file():
    labels, first, second = two_classifiers(300, 3, better=2.0)
    names = ["runs/one", "runs/two", "runs/three"]
    content = compare_predictions(names, labels, [first, second, first])
    text = format_table({"split": "test", "tta": "d4", **content})
    assert max(map(len, text.splitlines())) <= 80
    for name in names:
        assert name in text
    for pair in content["pairs"]:
        assert f"{pair['differences']['auc']['difference']:+.4f} (" in text
    assert "3 pairs" in text


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same images, and one on other images."""
    folder = tmp_path_factory.mktemp("compared")
    for place, source in enumerate(("data", "other")):
        files = {
            f"val/{name}/{index}.npy": npy_bytes(bars(40 * place + 3 * label + 10 * index))
            for label, name in enumerate(CLASSES)
            for index in range(4)
        }
        write(folder / source, files)
        (folder / source / "train").mkdir()
    sources = {"a": "data", "b": "data", "c": "other"}
    for seed, (name, source) in enumerate(sources.items()):
        make_run(folder / name, seed, **{"data.source": str(folder / source)})
    return folder


def test_command_compares_runs_without_overwriting(runs, tmp_path):
    words = ["--mode=compare", f"--workdir={runs / 'a'},{runs / 'b'}", f"--output={tmp_path / 'ab'}"]
    assert main(words) == 0
    content = json.loads((tmp_path / "ab" / "comparison.json").read_text())
    assert content["runs"] == [str(runs / "a"), str(runs / "b")]
    assert main(["--mode=evaluate", f"--workdir={runs / 'b'}"]) == 0
    report = json.loads((runs / "b" / "report" / "metrics.json").read_text())
    for name in SCORE_NAMES:
        assert content["figures"][1][name] == pytest.approx(report[name], abs=1e-12)
        assert content["figures"][1]["intervals"][name] == report["intervals"][name]
    assert (tmp_path / "ab" / "roc.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "ab" / "roc.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(UserError, match=r"comparison\.json exists; .* add --overwrite"):
        main(words)
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("workdir", "message"),
    [
        ("{0}/a,{0}/c", r"are not the same; compare runs with the same config\.data\.source"),
        ("{0}/a", "needs --workdir FOLDER,FOLDER"),
        ("{0}/a,{0}/a", "two or more different runs"),
        ("{0}/a,{0}/b/../a", "two or more different runs"),
        ("{0}/a,{0}/none", "is not a run folder"),
    ],
)
def test_invalid_comparisons_are_rejected(runs, tmp_path, workdir, message):
    words = ["--mode=compare", f"--workdir={workdir.format(runs)}", f"--output={tmp_path / 'out'}"]
    with pytest.raises(UserError, match=message):
        main(words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode=evaluate", "--workdir=x", "--calibrated"], "--calibrated is for predict, not for evaluate"),
        (["--mode=evaluate", "--workdir=x", "--pixel-scale=0.1"], "--pixel-scale is for"),
        (["--mode=predict", "--workdir=x", "--input=y", "--split=test"], "evaluate or compare"),
        (["--mode=predict", "--workdir=x", "--input=y", "--pixel-scale=-1"], "pixel-scale"),
        (["--mode=predict", "--workdir=x", "--input=y", "--fit-size=pad"], "fit-size"),
    ],
)
def test_misplaced_and_invalid_flags_are_rejected(words, message):
    with pytest.raises(UserError, match=message):
        main(words)
