"""Models that are part of the package have the accuracy stated on their card."""

import pathlib
import re

import numpy as np
import pytest
from scipy import stats

import lensjax
from lensjax.data.images import CLASSES
from lensjax.data.reference_layout import read_class_folders
from lensjax.data.simulated import simulated_images
from lensjax.evaluation.metrics import classification_metrics

CARD = (pathlib.Path(lensjax.__file__).parent / "trained" / "README.md").read_text()
NUMBER = 36


def stated(name: str) -> float:
    """A score on the card."""
    (value,) = re.findall(rf"^\| {name} \| ([0-9.]+) \|", CARD, re.MULTILINE)
    return float(value)


@pytest.fixture(scope="module")
def classifier():
    return lensjax.load("common_test")


def test_accuracy_on_new_images_agrees_with_card(classifier):
    # The seed differs from that of the training images.
    images = simulated_images("common_test", split="test", num_images=NUMBER, seed=7, image_size=150)
    # Batches of 12, as for the published images, reuse the compiled program.
    batches = np.split(images.images()[..., 0], NUMBER // 12)
    probabilities = np.concatenate([classifier.predict(batch).probabilities for batch in batches])
    wrong = int((probabilities.argmax(1) != images.labels).sum())
    assert wrong <= stats.binom.ppf(0.9999, NUMBER, 1 - stated("accuracy"))
    scores = classification_metrics(images.labels, probabilities)
    assert scores["auc"] > stated("mean AUC") - 0.005
    assert scores["auc_no"] > 0.999


@pytest.mark.parametrize(("name", "tta"), [("common_test", "d4"), ("robust", "none")])
def test_published_images_are_classified_correctly(name, tta, published_samples):
    images = read_class_folders(published_samples, 150)
    if name == "robust":  # one image of each class, because its fit is slow
        images = images.subset(np.unique(images.labels, return_index=True)[1])
    predictions = lensjax.load(name).predict(images.images()[..., 0], tta=tta)
    true = predictions.probabilities[np.arange(len(images)), images.labels]
    assert list(predictions.classes) == [CLASSES[label] for label in images.labels]
    assert true.min() > 0.6
    assert predictions.in_domain.all()


def test_card_names_command_and_license():
    assert "make model" in CARD
    assert "Apache-2.0" in CARD
