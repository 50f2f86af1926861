"""`lensjax.load`: arrays in, arrays out."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers.image_files import bars
from helpers.random_runs import make_run

import lensjax
from lensjax.data.simulated import simulated_images
from lensjax.errors import UserError
from lensjax.evaluation.calibration import Calibration, write_calibration
from lensjax.prediction import tta
from lensjax.training.augmentation import apply_dihedral

IMAGES = np.stack([bars(seed) for seed in range(5)])
LN_3 = 1.0986122886681098


@pytest.fixture(scope="module")
def classifier(run):
    return lensjax.load(run)


def test_importing_lensjax_imports_nothing_heavy():
    code = "import sys, lensjax; print(sorted({'jax', 'flax', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images[..., None],
        lambda images: images.astype(np.float32) * 1e-9 + 1e-7,
        lambda images: images.astype(">f8"),
        jax.numpy.asarray,
        np.asfortranarray,
    ],
    ids=["channel", "unit", "byte order", "JAX", "column-major"],
)
def test_shape_unit_and_type_of_an_array_are_free(classifier, change):
    expected = classifier.predict(IMAGES).probabilities
    assert np.ptp(expected[:, 0]) > 1e-3
    found = classifier.predict(change(IMAGES)).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_image_alone_has_its_answer_among_others(classifier):
    expected = classifier.predict(IMAGES)
    assert len(expected) == 5
    one = classifier.predict(IMAGES[2])
    np.testing.assert_allclose(one.probabilities, expected.probabilities[2:3], atol=1e-6)
    assert len(classifier.predict(IMAGES[:0])) == 0


def test_class_and_entropy_are_those_of_the_probabilities(classifier):
    answers = classifier.predict(IMAGES)
    for row in range(5):
        chances = answers.probabilities[row]
        assert chances.sum() == pytest.approx(1, abs=1e-9)
        assert answers.classes[row] == ("no", "sphere", "vort")[int(np.argmax(chances))]
        assert answers.entropy[row] == pytest.approx(-sum(p * np.log(p) for p in chances))
        assert 0 < answers.entropy[row] < LN_3
    assert answers.theta_E is answers.fit_converged is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        answers.classes = None


def test_an_image_without_an_answer_is_refused_or_marked_and_leaves_the_others_alone(classifier):
    images = IMAGES.astype(float)
    images[1, 4, 4], images[3] = np.nan, 7
    with pytest.raises(UserError, match=r"image 1: 1 of 1,024 pixels are NaN"):
        classifier.predict(images)
    marked = classifier.predict(images, bad="mark")
    expected = classifier.predict(IMAGES)
    assert [bool(error) for error in marked.errors] == [False, True, False, True, False]
    assert marked.classes[1] == marked.classes[3] == ""
    assert np.isnan(marked.probabilities[[1, 3]]).all()
    assert np.isnan(marked.entropy[[1, 3]]).all()
    np.testing.assert_allclose(
        marked.probabilities[[0, 2, 4]], expected.probabilities[[0, 2, 4]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 9, 9)), r"shape \(2, 9, 9\): the classifier takes 32 x 32 pixels"),
        (np.zeros((32, 32, 3)), "a colour picture"),
        (np.zeros(32), "not images"),
        (np.zeros((32, 32), complex), "image 0: holds complex128 values"),
        (np.zeros((32, 32), object), "image 0: holds object values"),
    ],
)
def test_what_is_no_image_of_the_right_size_is_refused(classifier, images, message):
    with pytest.raises(UserError, match=message):
        classifier.predict(images)


def test_calibrated_answers_are_the_softmax_of_logits_over_the_temperature(run, tmp_path):
    classifier = lensjax.load(run)
    with pytest.raises(UserError, match="has no temperature yet; fit one with --mode=evaluate"):
        classifier.predict(IMAGES, calibrated=True)
    plain = classifier.predict(IMAGES)
    try:
        write_calibration(run, Calibration(2.0, "validation", 9, 2))
        with pytest.raises(UserError, match="has no temperature yet"):
            classifier.predict(IMAGES, calibrated=True)  # it was fitted to another epoch
        write_calibration(run, Calibration(2.0, "validation", 9, 1))
        found = classifier.predict(IMAGES, calibrated=True)
        (run / "calibration.json").write_text('{"temperature": "hot"}')
        with pytest.raises(UserError, match=r"calibration\.json: damaged"):
            classifier.predict(IMAGES, calibrated=True)
    finally:
        (run / "calibration.json").unlink()
    roots = np.sqrt(plain.probabilities)
    np.testing.assert_allclose(found.probabilities, roots / roots.sum(1, keepdims=True), atol=1e-9)
    assert (found.entropy > plain.entropy).all()
    np.testing.assert_array_equal(found.classes, plain.classes)


def test_the_views_are_the_symmetries_that_training_draws_from():
    for element in range(8):
        expected = np.asarray(apply_dihedral(jax.numpy.asarray(IMAGES[0, ..., None]), element))
        np.testing.assert_array_equal(tta.turned(IMAGES[:1], element)[0], expected[..., 0])


def test_the_mean_over_eight_views_is_the_same_for_each_view(classifier):
    plain = classifier.predict(IMAGES).probabilities
    expected = classifier.predict(IMAGES, tta="d4").probabilities
    by_hand = np.mean(
        [classifier.predict(tta.turned(IMAGES, view)).probabilities for view in range(8)], 0
    )
    np.testing.assert_allclose(expected, by_hand, atol=1e-6)
    largest = 0.0
    for element in range(8):
        turned = tta.turned(IMAGES, element)
        found = classifier.predict(turned, tta="d4").probabilities
        np.testing.assert_allclose(found, expected, atol=1e-6)
        largest = max(largest, np.abs(classifier.predict(turned).probabilities - plain).max())
    assert largest > 1e-3  # without the mean they differ


def test_a_classifier_that_saw_one_orientation_has_no_mean_over_views(tmp_path):
    run = make_run(tmp_path / "run", **{"augmentation.dihedral": False})
    with pytest.raises(UserError, match="needs a classifier that was trained on turned images"):
        lensjax.load(run).predict(IMAGES, tta="d4")


def test_a_turned_lens_has_the_turned_fit_and_the_same_mean_answer(tmp_path):
    """The residual is fitted once and turned with the image; a fit to the turned image gives the same."""
    changes = {"data.fit": "common_test", "model.input": "image_and_residual"}
    run = make_run(tmp_path / "run", **changes, **{"data.image_size": 150, "preparation.crop": 32})
    images = simulated_images("common_test", split="test", num_images=3, seed=0, image_size=150)
    pixels = images.pixels.astype(np.float64)
    classifier = lensjax.load(run)
    plain = classifier.predict(pixels, tta="d4")
    assert plain.fit_converged.all()
    assert plain.fit_converged.dtype == bool
    turned = classifier.predict(tta.turned(pixels, 5), tta="d4")
    np.testing.assert_allclose(turned.probabilities, plain.probabilities, atol=2e-3)
    np.testing.assert_allclose(turned.theta_E, plain.theta_E, atol=1e-4)
    # Mirrored rows, then exchanged axes: a quarter turn, which changes the sign of the shear.
    np.testing.assert_allclose(turned.gamma1, -plain.gamma1, atol=1e-3)
    np.testing.assert_allclose(turned.gamma2, -plain.gamma2, atol=1e-3)
