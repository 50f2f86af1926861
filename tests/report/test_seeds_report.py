"""Joint evaluation of several seeds: scores compared with direct computation, and the commands."""

import itertools
import json

import numpy as np
import pytest
from helpers.image_files import bars, npy_bytes, write
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from lensjax import main as program
from lensjax.data.images import CLASSES
from lensjax.errors import UserError
from lensjax.evaluation import scores
from lensjax.report import assessment, seeds

LABELS = np.repeat(np.arange(3), 20)


def random_predictions(number, seed=0):
    """Class probabilities from several classifiers that are better than chance."""
    generator = np.random.default_rng(seed)
    return list(softmax(generator.normal(size=(number, 60, 3)) + np.eye(3)[LABELS], axis=2))


def test_bootstrap_mean_matches_explicit_resampling():
    """Rows and seeds are repeated as often as they were drawn, one resample at a time."""
    weights = scores.resample_weights(LABELS, resamples=8)
    counts = seeds.resample_seeds(4, resamples=8)
    assert (counts.sum(1) == 3).all()
    drawn = [scores.bootstrap_scores(LABELS, each, weights)["auc"] for each in random_predictions(4)]
    found = seeds.bootstrap_mean(np.stack(drawn), counts)
    for resample, value in enumerate(found):
        rows = np.repeat(np.arange(60), weights[resample])
        several = [
            roc_auc_score(LABELS[rows], random_predictions(4)[run][rows], multi_class="ovr")
            for run in np.repeat(np.arange(4), counts[resample])
        ]
        assert value == pytest.approx(np.mean(several), abs=1e-12)


@pytest.mark.parametrize("number", [2, 5])
def test_bootstrap_variance_matches_that_of_the_mean(number):
    """Without scatter from images, the variance is s^2 / n, where s is computed with n - 1."""
    values = np.random.default_rng(1).normal(size=number)
    counts = seeds.resample_seeds(number, resamples=200_000)
    draws = seeds.bootstrap_mean(np.repeat(values[:, None], 200_000, 1), counts)
    assert draws.mean() == pytest.approx(values.mean(), abs=0.01)
    assert draws.var() == pytest.approx(values.var(ddof=1) / number, rel=0.02)


def test_identical_seeds_have_single_run_interval():
    one = random_predictions(1)[0]
    content = seeds.summarize_seeds(LABELS, [one] * 3)
    single = scores.compute_scores(LABELS, one)
    limits = scores.percentile_intervals(
        scores.bootstrap_scores(LABELS, one, scores.resample_weights(LABELS))
    )
    for name in scores.SCORE_NAMES:
        assert content["standard_deviation"][name] == pytest.approx(0, abs=1e-12)
        assert content["mean"][name] == pytest.approx(single[name], abs=1e-12)
        assert content["ensemble"][name] == pytest.approx(single[name], abs=1e-9)
        assert content["intervals"][name] == pytest.approx(limits[name], abs=1e-12)


def test_table_matches_file_within_80_columns():
    content = seeds.summarize_seeds(LABELS, random_predictions(12))
    content |= {"seeds": [*range(995, 1007)], "best_epochs": [100] * 12, "split": "validation"}
    content |= {"tta": "d4", "images": dict.fromkeys(CLASSES, 10_000)}
    text = seeds.format_table(content)
    assert max(map(len, text.splitlines())) <= 80
    shown = [line for line in text.splitlines() if line.startswith("  ")]
    rows = {line[2:14].strip(): line.split() for line in shown}
    low, high = content["intervals"]["auc"]
    for name, value in (
        ("1000", content["figures"][5]["auc"]),
        ("mean", np.mean([one["auc"] for one in content["figures"]])),
        ("deviation", np.std([one["auc"] for one in content["figures"]], ddof=1)),
        ("95 % from", low),
        ("95 % to", high),
        ("ensemble", content["ensemble"]["auc"]),
    ):
        form = ".2g" if name == "deviation" else ".4f"
        assert rows[name][-2] == f"{value:{form}}", name


CONFIG = """
from lensjax.config import default_config

def get_config(name):
    config = default_config()
    small = {"data.source": %r, "data.image_size": 32, "model.name": "lens_fit_net", "model.width": 4}
    small |= {"model.num_blocks": 0, "batch_size": 8, "eval_batch_size": 8, "num_epochs": 1, "seeds": 2}
    config.update_from_flattened_dict(small)
    return config
"""


def test_commands_train_and_evaluate_all_seeds(tmp_path, monkeypatch):
    data, run = tmp_path / "data", tmp_path / "run"
    files = {
        f"{part}/{name}/{index}.npy": npy_bytes(bars(17 * label + 5 * index + 100 * offset))
        for offset, part in enumerate(("train", "val", "test"))
        for (label, name), index in itertools.product(enumerate(CLASSES), range(4))
    }
    write(data, files)
    (tmp_path / "tiny.py").write_text(CONFIG % str(data))
    reported = []

    def evaluate_run(trained, images, **_):
        reported.append((trained.workdir.name, trained.predict(images).probabilities))
        return "a table"

    monkeypatch.setattr(assessment, "evaluate_run", evaluate_run)
    words = ["--config", str(tmp_path / "tiny.py"), "--workdir", str(run)]
    assert program.main(words) == 0
    assert [name for name, _ in reported] == ["seed_0", "seed_1"]
    result = run / "report" / "seeds.json"
    before = json.loads(result.read_text())
    labels = np.repeat(np.arange(3), 4)
    for figures, (_, probabilities) in zip(before["figures"], reported, strict=True):
        assert figures == scores.compute_scores(labels, probabilities)
    mean = np.mean([probabilities for _, probabilities in reported], axis=0)
    assert before["ensemble"]["auc"] == scores.compute_scores(labels, mean)["auc"]
    assert before["seeds"] == [0, 1]
    result.unlink()
    assert program.main(["--mode=evaluate", f"--workdir={run}"]) == 0
    assert json.loads(result.read_text()) == before
    with pytest.raises(UserError, match=r"run contains 2 runs; choose one of them: .*seed_0, .*seed_1$"):
        program.main(["--mode=predict", f"--workdir={run}", f"--input={data}"])
    with pytest.raises(UserError, match="different config: seeds = 2 in the existing run, 3 in this command"):
        program.main([*words, "--config.seeds=3"])
    with pytest.raises(UserError, match=r"--profile: measures one run; set config\.seeds=1"):
        program.main([*words, "--profile"])
    with pytest.raises(UserError, match=r"config\.seeds=0: must be 1 to 10000"):
        program.main([*words, "--config.seeds=0"])
