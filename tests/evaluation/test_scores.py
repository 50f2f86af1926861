"""Figures of merit against scikit-learn and plain loops; intervals against what theory says."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics

from lensjax.evaluation.calibration import fit_temperature, tempered
from lensjax.evaluation.scores import (
    NAMES,
    bootstrap,
    intervals,
    resample_weights,
    scores,
    weighted_scores,
)

NAMES_OF_CLASSES = ("no", "sphere", "vort")


def draws(number=300, seed=0, spread=1.2, temperature=1.0, step=None):
    """Labels and probabilities that are calibrated at a temperature of 1; with ties where step is given."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(number, 3)) * spread
    if step:
        logits = np.round(logits / step) * step
    chances = softmax(logits, axis=1)
    labels = (generator.uniform(size=(number, 1)) > np.cumsum(chances, 1)).sum(1).clip(0, 2)
    return labels, softmax(logits * temperature, axis=1)


@pytest.mark.parametrize("step", [None, 0.5])
def test_each_figure_is_scikit_learn_s(step):
    labels, probabilities = draws(step=step)
    found, calls = scores(labels, probabilities), probabilities.argmax(1)
    assert tuple(found) == NAMES
    f1 = metrics.f1_score(labels, calls, average=None)
    for index, name in enumerate(NAMES_OF_CLASSES):
        auc = metrics.roc_auc_score(labels == index, probabilities[:, index])
        assert found[f"auc_{name}"] == pytest.approx(auc, abs=1e-12)
        assert found[f"f1_{name}"] == pytest.approx(f1[index], abs=1e-12)
    expected = {
        "auc": metrics.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "accuracy": metrics.accuracy_score(labels, calls),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, calls),
        "f1": metrics.f1_score(labels, calls, average="macro"),
        "nll": metrics.log_loss(labels, probabilities),
        "brier": sum(
            metrics.brier_score_loss(labels == index, probabilities[:, index]) for index in range(3)
        ),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def calibration_error(labels, probabilities):
    """Expected calibration error, bin by bin."""
    total = 0.0
    for index in range(15):
        inside = [
            row
            for row in range(len(labels))
            if index / 15 < max(probabilities[row]) <= (index + 1) / 15
        ]
        if inside:
            right = np.mean([probabilities[row].argmax() == labels[row] for row in inside])
            said = np.mean([max(probabilities[row]) for row in inside])
            total += len(inside) / len(labels) * abs(right - said)
    return total


def test_the_calibration_error_is_that_of_a_loop_over_bins():
    labels, probabilities = draws()
    probabilities[:5] = np.eye(3)[labels[:5]]  # certainty lies in the last bin
    found = scores(labels, probabilities)["ece"]
    assert found == pytest.approx(calibration_error(labels, probabilities), abs=1e-12)
    assert found > 0.01


def test_a_weighted_set_is_the_set_with_images_repeated():
    labels, probabilities = draws(60, step=0.5)
    weights = resample_weights(labels, resamples=4, seed=1)
    found = weighted_scores(labels, probabilities, weights.astype(float))
    for row in range(4):
        repeated = np.repeat(np.arange(60), weights[row])
        expected = scores(labels[repeated], probabilities[repeated])
        for name in NAMES:
            assert found[name][row] == pytest.approx(expected[name], abs=1e-12), name


def test_resamples_keep_the_classes_and_are_multinomial():
    labels = np.repeat([0, 1, 2], [40, 10, 1])
    weights = resample_weights(labels, resamples=4000).astype(float)
    for label, size in enumerate((40, 10, 1)):
        part = weights[:, labels == label]
        assert (part.sum(1) == size).all()
        # Counts of a multinomial draw have mean 1, variance 1 - 1/n and covariance -1/n.
        np.testing.assert_allclose(part.mean(0), 1, atol=0.09)
        np.testing.assert_allclose(part.var(0), 1 - 1 / size, atol=0.15)
    assert np.cov(weights[:, 40], weights[:, 41])[0, 1] == pytest.approx(-0.1, abs=0.05)
    np.testing.assert_array_equal(weights, resample_weights(labels, resamples=4000))


def test_intervals_have_the_width_that_theory_gives():
    labels, probabilities = draws(2000)
    point = scores(labels, probabilities)
    found = intervals(bootstrap(labels, probabilities, resample_weights(labels)))
    assert set(found) == set(NAMES)
    for name, (low, high) in found.items():
        assert low < high
        if name != "ece":  # which is biased upwards by its absolute values
            assert low < point[name] < high
    # Accuracy: a binomial share in each class. Log-likelihood: a mean of independent numbers in each.
    right = probabilities.argmax(1) == labels
    losses = -np.log(probabilities[np.arange(2000), labels])
    for name, values in (("accuracy", right), ("nll", losses)):
        variance = sum(values[labels == k].var() * (labels == k).sum() for k in range(3)) / 2000**2
        width = found[name][1] - found[name][0]
        assert width == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.1)


def test_the_fitted_temperature_is_the_best_on_a_grid_and_undoes_overconfidence():
    labels, probabilities = draws(2000, temperature=2.5)
    found = fit_temperature(labels, probabilities)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 150))
    losses = [metrics.log_loss(labels, tempered(probabilities, value)) for value in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.031)
    assert found == pytest.approx(2.5, rel=0.1)  # what the draws were sharpened by
    before, after = (
        calibration_error(labels, p) for p in (probabilities, tempered(probabilities, found))
    )
    assert after < before / 3
    np.testing.assert_array_equal(tempered(probabilities, found).argmax(1), probabilities.argmax(1))


@pytest.mark.parametrize(
    "probabilities",
    [np.tile(np.eye(3), (10, 1)), np.full((30, 3), 1 / 3), np.tile(np.eye(3)[[1, 2, 0]], (10, 1))],
    ids=["right", "equal", "wrong"],
)
def test_extreme_answers_have_finite_figures_and_temperature(probabilities):
    labels = np.arange(30) % 3
    temperature = fit_temperature(labels, probabilities)
    assert 0.05 <= temperature <= 20
    drawn = bootstrap(labels, tempered(probabilities, temperature), resample_weights(labels))
    for values in (scores(labels, probabilities).values(), *drawn.values()):
        assert np.isfinite(list(values)).all()
