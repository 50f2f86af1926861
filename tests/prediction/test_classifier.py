"""`lensjax.load` and prediction for arrays of images."""

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


def test_import_lensjax_does_not_import_jax():
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
def test_predictions_do_not_depend_on_layout_or_unit(classifier, change):
    expected = classifier.predict(IMAGES).probabilities
    assert np.ptp(expected[:, 0]) > 1e-3
    found = classifier.predict(change(IMAGES)).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_prediction_does_not_depend_on_batch(classifier):
    expected = classifier.predict(IMAGES)
    assert len(expected) == 5
    one = classifier.predict(IMAGES[2])
    np.testing.assert_allclose(one.probabilities, expected.probabilities[2:3], atol=1e-6)
    assert len(classifier.predict(IMAGES[:0])) == 0


def test_class_and_entropy_follow_from_probabilities(classifier):
    predictions = classifier.predict(IMAGES)
    for row in range(5):
        row_probabilities = predictions.probabilities[row]
        assert row_probabilities.sum() == pytest.approx(1, abs=1e-9)
        assert predictions.classes[row] == ("no", "sphere", "vort")[int(np.argmax(row_probabilities))]
        expected = -sum(p * np.log(p) for p in row_probabilities)
        assert predictions.entropy[row] == pytest.approx(expected)
        assert 0 < predictions.entropy[row] < LN_3
    assert predictions.theta_E is predictions.fit_converged is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        predictions.classes = None


def test_bad_images_are_rejected_or_marked(classifier):
    images = IMAGES.astype(float)
    images[1, 4, 4], images[3] = np.nan, 7
    masked = np.ma.array(np.tile(images[:1], (2, 1, 1)), mask=np.zeros((2, 32, 32), bool))
    masked.mask[1, 4, 4] = True
    with pytest.raises(UserError, match=r"image 1: 1 of 1,024 pixels are NaN"):
        classifier.predict(masked)
    with pytest.raises(UserError, match=r"image 1: 1 of 1,024 pixels are NaN"):
        classifier.predict(list(masked))
    with pytest.raises(UserError, match=r"image 1: 1 of 1,024 pixels are NaN"):
        classifier.predict(images)
    marked = classifier.predict(images, bad="mark")
    expected = classifier.predict(IMAGES)
    assert [bool(error) for error in marked.errors] == [False, True, False, True, False]
    assert marked.classes[1] == marked.classes[3] == ""
    assert np.isnan(marked.probabilities[[1, 3]]).all()
    assert np.isnan(marked.entropy[[1, 3]]).all()
    np.testing.assert_allclose(marked.probabilities[[0, 2, 4]], expected.probabilities[[0, 2, 4]], atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 9, 9)), r"shape \(2, 9, 9\): the classifier needs 32 x 32 pixels"),
        (np.zeros((32, 32, 3)), "a color image"),
        (np.zeros(32), "not images"),
        (np.zeros(()), r"shape \(\): not images"),
        ("lens.png", r"shape \(\): not images"),
        ([np.zeros((32, 32)), np.zeros((33, 33))], "have different shapes"),
        (np.zeros((32, 32), complex), "image 0: contains complex128 values"),
        (np.ma.zeros((32, 32), complex), "image 0: contains complex128 values"),
        (np.zeros((32, 32), object), "image 0: contains object values"),
    ],
)
def test_arrays_of_wrong_shape_or_type_are_rejected(classifier, images, message):
    with pytest.raises(UserError, match=message):
        classifier.predict(images)


def test_calibration_divides_logits_by_temperature(run):
    classifier = lensjax.load(run)
    with pytest.raises(UserError, match="has no temperature yet; fit one with lensjax evaluate"):
        classifier.predict(IMAGES, calibrated=True)
    plain = classifier.predict(IMAGES)
    try:
        write_calibration(run, Calibration(2.0, "validation", 9, 2))
        with pytest.raises(UserError, match="has no temperature yet"):
            classifier.predict(IMAGES, calibrated=True)  # fitted to another epoch
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


def test_views_match_training_augmentation():
    for element in range(8):
        expected = np.asarray(apply_dihedral(jax.numpy.asarray(IMAGES[0, ..., None]), element))
        np.testing.assert_array_equal(tta.transform(IMAGES[:1], element)[0], expected[..., 0])


def test_mean_over_views_is_invariant(classifier):
    plain = classifier.predict(IMAGES).probabilities
    expected = classifier.predict(IMAGES, tta="d4").probabilities
    direct = np.mean([classifier.predict(tta.transform(IMAGES, view)).probabilities for view in range(8)], 0)
    np.testing.assert_allclose(expected, direct, atol=1e-6)
    largest = 0.0
    for element in range(8):
        transformed = tta.transform(IMAGES, element)
        found = classifier.predict(transformed, tta="d4").probabilities
        np.testing.assert_allclose(found, expected, atol=1e-6)
        largest = max(largest, np.abs(classifier.predict(transformed).probabilities - plain).max())
    assert largest > 1e-3  # single views differ


def test_tta_needs_training_on_rotated_images(tmp_path):
    run = make_run(tmp_path / "run", **{"augmentation.dihedral": False})
    with pytest.raises(UserError, match="needs a classifier trained on rotated images"):
        lensjax.load(run).predict(IMAGES, tta="d4")


def test_fit_of_rotated_lens_is_rotated_fit(tmp_path):
    """Rotating the residual is equivalent to fitting the rotated image."""
    changes = {"data.fit": "common_test", "model.input": "image_and_residual"}
    run = make_run(tmp_path / "run", **changes, **{"data.image_size": 150, "preparation.crop": 32})
    images = simulated_images("common_test", split="test", num_images=3, seed=0, image_size=150)
    pixels = images.pixels.astype(np.float64)
    classifier = lensjax.load(run)
    both = classifier.predict(np.concatenate([pixels, tta.transform(pixels, 5)]), tta="d4")
    assert both.fit_converged.all()
    assert both.fit_converged.dtype == bool
    plain, rotated = slice(0, 3), slice(3, 6)
    np.testing.assert_allclose(both.probabilities[rotated], both.probabilities[plain], atol=2e-3)
    np.testing.assert_allclose(both.theta_E[rotated], both.theta_E[plain], atol=1e-4)
    # Element 5 is a rotation by 90 degrees, which changes the sign of the shear.
    np.testing.assert_allclose(both.gamma1[rotated], -both.gamma1[plain], atol=1e-3)
    np.testing.assert_allclose(both.gamma2[rotated], -both.gamma2[plain], atol=1e-3)
