"""AUC, accuracy and confusion matrix compared with their definitions."""

import numpy as np
import pytest

from lensjax.evaluation.metrics import classification_metrics, confusion_matrix


def random_predictions(number=300, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, number)
    scores = generator.normal(size=(number, 3)) + 1.2 * np.eye(3)[labels]
    scores = np.round(scores, 1)  # with ties
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return labels, probabilities


def test_auc_is_fraction_of_correctly_ordered_pairs():
    """Mann-Whitney definition: all pairs, ties count half."""
    labels, probabilities = random_predictions()
    found = classification_metrics(labels, probabilities)
    expected = []
    for index, name in enumerate(("no", "sphere", "vort")):
        positive = probabilities[labels == index, index][:, None]
        negative = probabilities[labels != index, index][None, :]
        expected.append(np.mean((positive > negative) + 0.5 * (positive == negative)))
        assert found[f"auc_{name}"] == pytest.approx(expected[-1], abs=1e-12)
    assert found["auc"] == pytest.approx(np.mean(expected), abs=1e-12)


def test_accuracy_and_confusion_matrix_agree():
    labels, probabilities = random_predictions()
    counts = confusion_matrix(labels, probabilities)
    predictions = probabilities.argmax(1)
    for true in range(3):
        for predicted in range(3):
            assert counts[true, predicted] == np.sum((labels == true) & (predictions == predicted))
    accuracy = classification_metrics(labels, probabilities)["accuracy"]
    assert accuracy == pytest.approx(np.trace(counts) / counts.sum())


def test_auc_of_perfect_and_uninformative_classifiers():
    labels = np.arange(30) % 3
    assert classification_metrics(labels, np.eye(3)[labels])["auc"] == 1
    assert classification_metrics(labels, np.full((30, 3), 1 / 3))["auc"] == 0.5
