"""What several seeds say together: its numbers against slow ways to the same, and the commands around it."""

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


def answers(number, seed=0):
    """Answers of as many classifiers, right more often than not."""
    generator = np.random.default_rng(seed)
    return list(softmax(generator.normal(size=(number, 60, 3)) + np.eye(3)[LABELS], axis=2))


def test_an_interval_is_of_means_over_drawn_seeds_on_drawn_images():
    """Each resample again, one by one: rows and seeds repeated as often as they were drawn."""
    weights = scores.resample_weights(LABELS, resamples=8)
    counts = seeds.resampled_seeds(4, resamples=8)
    assert (counts.sum(1) == 3).all()
    drawn = [scores.bootstrap(LABELS, each, weights)["auc"] for each in answers(4)]
    found = seeds.draws_of_the_mean(np.stack(drawn), counts)
    for resample, value in enumerate(found):
        rows = np.repeat(np.arange(60), weights[resample])
        several = [
            roc_auc_score(LABELS[rows], answers(4)[run][rows], multi_class="ovr")
            for run in np.repeat(np.arange(4), counts[resample])
        ]
        assert value == pytest.approx(np.mean(several), abs=1e-12)


@pytest.mark.parametrize("number", [2, 5])
def test_drawn_seeds_scatter_as_a_mean_of_seeds_does(number):
    """Where the images make no difference, the variance is s^2 / n, of s with n - 1."""
    values = np.random.default_rng(1).normal(size=number)
    counts = seeds.resampled_seeds(number, resamples=200_000)
    draws = seeds.draws_of_the_mean(np.repeat(values[:, None], 200_000, 1), counts)
    assert draws.mean() == pytest.approx(values.mean(), abs=0.01)
    assert draws.var() == pytest.approx(values.var(ddof=1) / number, rel=0.02)


def test_seeds_that_agree_scatter_not_and_have_the_interval_of_one():
    one = answers(1)[0]
    content = seeds.together(LABELS, [one] * 3)
    single = scores.scores(LABELS, one)
    limits = scores.intervals(scores.bootstrap(LABELS, one, scores.resample_weights(LABELS)))
    for name in scores.NAMES:
        assert content["standard_deviation"][name] == pytest.approx(0, abs=1e-12)
        assert content["mean"][name] == pytest.approx(single[name], abs=1e-12)
        assert content["ensemble"][name] == pytest.approx(single[name], abs=1e-9)
        assert content["intervals"][name] == pytest.approx(limits[name], abs=1e-12)


def test_the_table_fits_a_terminal_and_says_what_the_file_says():
    content = seeds.together(LABELS, answers(12))
    content |= {"seeds": [*range(995, 1007)], "best_epochs": [100] * 12, "split": "validation"}
    content |= {"tta": "d4", "images": dict.fromkeys(CLASSES, 10_000)}
    text = seeds.table(content)
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


def test_a_command_trains_all_seeds_and_evaluates_them_together(tmp_path, monkeypatch):
    data, run = tmp_path / "data", tmp_path / "run"
    files = {
        f"{part}/{name}/{index}.npy": npy_bytes(bars(17 * label + 5 * index + 100 * place))
        for place, part in enumerate(("train", "val", "test"))
        for (label, name), index in itertools.product(enumerate(CLASSES), range(4))
    }
    write(data, files)
    (tmp_path / "tiny.py").write_text(CONFIG % str(data))
    reported = []

    def assess(trained, images, **_):
        reported.append((trained.workdir.name, trained.predict(images).probabilities))
        return "a table"

    monkeypatch.setattr(assessment, "assess", assess)
    words = ["--config", str(tmp_path / "tiny.py"), "--workdir", str(run)]
    assert program.main(words) == 0
    assert [name for name, _ in reported] == ["seed_0", "seed_1"]
    result = run / "report" / "seeds.json"
    before = json.loads(result.read_text())
    labels = np.repeat(np.arange(3), 4)
    for figures, (_, probabilities) in zip(before["figures"], reported, strict=True):
        assert figures == scores.scores(labels, probabilities)
    mean = np.mean([probabilities for _, probabilities in reported], axis=0)
    assert before["ensemble"]["auc"] == scores.scores(labels, mean)["auc"]
    assert before["seeds"] == [0, 1]
    result.unlink()
    assert program.main(["--mode=evaluate", f"--workdir={run}"]) == 0
    assert json.loads(result.read_text()) == before
    with pytest.raises(
        UserError, match=r"run contains 2 runs; choose one of them: .*seed_0, .*seed_1$"
    ):
        program.main(["--mode=predict", f"--workdir={run}", f"--input={data}"])
    with pytest.raises(
        UserError, match="different config: seeds = 2 in the existing run, 3 in this command"
    ):
        program.main([*words, "--config.seeds=3"])
    with pytest.raises(UserError, match=r"--profile measures one run; config\.seeds=2"):
        program.main([*words, "--profile"])
    with pytest.raises(UserError, match=r"config\.seeds=0: has to be at least 1"):
        program.main([*words, "--config.seeds=0"])
