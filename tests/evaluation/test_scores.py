"""Scores compared with scikit-learn and plain loops, and bootstrap intervals with theory."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics

from lensjax.evaluation.calibration import apply_temperature, fit_temperature
from lensjax.evaluation.scores import (
    SCORE_NAMES,
    bootstrap_scores,
    compute_scores,
    percentile_intervals,
    resample_weights,
    weighted_scores,
)

CLASS_NAMES = ("no", "sphere", "vort")


def random_predictions(number=300, seed=0, spread=1.2, temperature=1.0, step=None):
    """Labels and probabilities, calibrated at a temperature of 1; with ties if `step` is given."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(number, 3)) * spread
    if step:
        logits = np.round(logits / step) * step
    truth = softmax(logits, axis=1)
    labels = (generator.uniform(size=(number, 1)) > np.cumsum(truth, 1)).sum(1).clip(0, 2)
    return labels, softmax(logits * temperature, axis=1)


@pytest.mark.parametrize("step", [None, 0.5])
def test_scores_match_scikit_learn(step):
    labels, probabilities = random_predictions(step=step)
    found, predicted = compute_scores(labels, probabilities), probabilities.argmax(1)
    assert tuple(found) == SCORE_NAMES
    f1 = metrics.f1_score(labels, predicted, average=None)
    for index, name in enumerate(CLASS_NAMES):
        auc = metrics.roc_auc_score(labels == index, probabilities[:, index])
        assert found[f"auc_{name}"] == pytest.approx(auc, abs=1e-12)
        assert found[f"f1_{name}"] == pytest.approx(f1[index], abs=1e-12)
    expected = {
        "auc": metrics.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "f1": metrics.f1_score(labels, predicted, average="macro"),
        "nll": metrics.log_loss(labels, probabilities),
        "brier": sum(
            metrics.brier_score_loss(labels == index, probabilities[:, index]) for index in range(3)
        ),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def calibration_error(labels, probabilities):
    """Expected calibration error from a loop over bins."""
    total = 0.0
    for index in range(15):
        inside = [
            row for row in range(len(labels)) if index / 15 < max(probabilities[row]) <= (index + 1) / 15
        ]
        if inside:
            right = np.mean([probabilities[row].argmax() == labels[row] for row in inside])
            confidence = np.mean([max(probabilities[row]) for row in inside])
            total += len(inside) / len(labels) * abs(right - confidence)
    return total


def test_calibration_error_matches_loop_over_bins():
    labels, probabilities = random_predictions()
    probabilities[:5] = np.eye(3)[labels[:5]]  # a probability of 1 belongs to the last bin
    found = compute_scores(labels, probabilities)["ece"]
    assert found == pytest.approx(calibration_error(labels, probabilities), abs=1e-12)
    assert found > 0.01


def test_weights_are_equivalent_to_repeated_images():
    labels, probabilities = random_predictions(60, step=0.5)
    weights = resample_weights(labels, resamples=4, seed=1)
    found = weighted_scores(labels, probabilities, weights.astype(float))
    for row in range(4):
        repeated = np.repeat(np.arange(60), weights[row])
        expected = compute_scores(labels[repeated], probabilities[repeated])
        for name in SCORE_NAMES:
            assert found[name][row] == pytest.approx(expected[name], abs=1e-12), name


def test_resamples_are_multinomial_within_each_class():
    labels = np.repeat([0, 1, 2], [40, 10, 1])
    weights = resample_weights(labels, resamples=4000).astype(float)
    for label, size in enumerate((40, 10, 1)):
        part = weights[:, labels == label]
        assert (part.sum(1) == size).all()
        # Multinomial counts have mean 1, variance 1 - 1/n and covariance -1/n.
        np.testing.assert_allclose(part.mean(0), 1, atol=0.09)
        np.testing.assert_allclose(part.var(0), 1 - 1 / size, atol=0.15)
    assert np.cov(weights[:, 40], weights[:, 41])[0, 1] == pytest.approx(-0.1, abs=0.05)
    np.testing.assert_array_equal(weights, resample_weights(labels, resamples=4000))


def test_interval_widths_match_theory():
    labels, probabilities = random_predictions(2000)
    point = compute_scores(labels, probabilities)
    found = percentile_intervals(bootstrap_scores(labels, probabilities, resample_weights(labels)))
    assert set(found) == set(SCORE_NAMES)
    for name, (low, high) in found.items():
        assert low < high
        if name != "ece":  # ece is biased upward by its absolute values
            assert low < point[name] < high
    # Accuracy is a binomial fraction in each class, log loss a mean of independent values.
    right = probabilities.argmax(1) == labels
    losses = -np.log(probabilities[np.arange(2000), labels])
    for name, values in (("accuracy", right), ("nll", losses)):
        variance = sum(values[labels == k].var() * (labels == k).sum() for k in range(3)) / 2000**2
        width = found[name][1] - found[name][0]
        assert width == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.1)


def test_fitted_temperature_is_optimal_and_removes_overconfidence():
    labels, probabilities = random_predictions(2000, temperature=2.5)
    found = fit_temperature(labels, probabilities)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 150))
    losses = [metrics.log_loss(labels, apply_temperature(probabilities, value)) for value in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.031)
    assert found == pytest.approx(2.5, rel=0.1)  # as in random_predictions
    before, after = (
        calibration_error(labels, p) for p in (probabilities, apply_temperature(probabilities, found))
    )
    assert after < before / 3
    np.testing.assert_array_equal(apply_temperature(probabilities, found).argmax(1), probabilities.argmax(1))


@pytest.mark.parametrize(
    "probabilities",
    [np.tile(np.eye(3), (10, 1)), np.full((30, 3), 1 / 3), np.tile(np.eye(3)[[1, 2, 0]], (10, 1))],
    ids=["correct", "equal", "wrong"],
)
def test_extreme_predictions_have_finite_scores_and_temperature(probabilities):
    labels = np.arange(30) % 3
    temperature = fit_temperature(labels, probabilities)
    assert 0.05 <= temperature <= 20
    drawn = bootstrap_scores(labels, apply_temperature(probabilities, temperature), resample_weights(labels))
    for values in (compute_scores(labels, probabilities).values(), *drawn.values()):
        assert np.isfinite(list(values)).all()
