"""Images that are repaired, centered, rejected or marked by a classifier of the package."""

import dataclasses

import numpy as np
import pytest

import lensjax
from lensjax import simulation
from lensjax.data.images import CLASSES, ImageSet
from lensjax.data.residuals import counts_per_unit
from lensjax.errors import UserError
from lensjax.prediction.domain import find_reasons, from_arrays, measure_domain
from lensjax.prediction.predictor import ModelPredictions
from lensjax.prediction.readers.sizes import find_zoom
from lensjax.prediction.repair import repair


@pytest.fixture(scope="module")
def classifier():
    return lensjax.load("common_test")


@pytest.fixture(scope="module")
def simulated():
    return simulation.simulate_split("common_test", seed=7, split="test", num_images=3)


@pytest.fixture(scope="module")
def plain(classifier, simulated):
    return classifier.predict(simulated.pixels)


def contrast(pixels):
    return pixels / pixels.max((1, 2), keepdims=True).astype(np.float64)


def test_simulated_images_are_classified_correctly_and_unmarked(plain, simulated):
    assert list(plain.classes) == [CLASSES[label] for label in simulated.labels]
    assert plain.in_domain.all()
    assert set(plain.reasons) == {""}


@pytest.fixture(scope="module")
def moved(classifier, simulated):
    """Predictions for two off-center images, the second of them at a known position, and one of noise."""
    noise = np.random.default_rng(0).normal(100, 10, (150, 150))
    vort, no = np.roll(simulated.pixels[2], (5, -2), (0, 1)), np.roll(simulated.pixels[0], (4, -3), (0, 1))
    return classifier.predict(np.stack([vort, no, noise]))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda pixels: np.rint(255 * contrast(pixels)).astype(np.uint8), id="8-bit"),
        pytest.param(lambda pixels: np.rint(65_535 * contrast(pixels)).astype(np.uint16), id="16-bit"),
        pytest.param(lambda pixels: (pixels * 1e-30).astype(">f8") - 1e-25, id="unit"),
        pytest.param(
            lambda pixels: np.pad(pixels[:, 10:-10, 10:-10], [(0, 0), (10, 10), (10, 10)]), id="border"
        ),
    ],
)
def test_equivalent_images_are_classified_alike(classifier, simulated, plain, change):
    predictions = classifier.predict(change(simulated.pixels))
    assert list(predictions.classes) == list(plain.classes)
    np.testing.assert_allclose(predictions.theta_E, plain.theta_E, atol=0.01)


def test_off_center_images_are_classified_alike(moved, plain):
    assert list(moved.classes[:2]) == [plain.classes[2], plain.classes[0]]
    np.testing.assert_allclose(moved.theta_E[:2], plain.theta_E[[2, 0]], atol=0.01)


def test_off_center_lens_is_located(moved):
    np.testing.assert_allclose([moved.lens_x[1], moved.lens_y[1]], [-0.15, 0.2], atol=0.01)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda images: np.sqrt(images), "sky noise"),
        (lambda images: images + np.random.default_rng(0).normal(0, 0.05, images.shape), "sky noise"),
    ],
    ids=["stretched", "noisy"],
)
def test_images_unlike_training_images_are_marked(classifier, simulated, change, reason):
    predictions = classifier.predict(change(contrast(simulated.pixels)))
    assert not predictions.in_domain.any()
    assert all(reason in each for each in predictions.reasons)


def test_image_without_lens_gets_no_class(moved):
    assert moved.classes[2] == ""
    assert np.isnan(moved.probabilities[2]).all()
    assert "no lens was found" in moved.errors[2]
    assert not moved.in_domain[2]


def test_outliers_and_borders_are_replaced(simulated):
    image = simulated.pixels[0]
    changed = image.copy()
    changed[30, 40] = 60_000
    repaired = repair(changed)
    others = np.ones(image.shape, bool)
    others[30, 40] = False
    np.testing.assert_array_equal(repaired[others], image[others])
    near = np.delete(image[29:32, 39:42].ravel(), 4)
    assert near.min() <= repaired[30, 40] <= near.max()
    changed[:10] = 0
    assert np.unique(repair(changed)[:10]).size == 1
    assert repair(image) is image


def test_counts_are_used_only_if_noise_agrees(simulated):
    scaled = contrast(simulated.pixels)
    coarse = np.rint(255 * scaled) / 255

    def known(pixels):
        ones = np.ones(len(pixels), np.float32)
        images = ImageSet(pixels.astype(np.float32), ones, simulated.labels, ("",) * len(pixels))
        return counts_per_unit(images)

    np.testing.assert_array_equal(known(scaled), simulated.scale)
    assert np.isnan(known(coarse)).all()
    stored = ImageSet((255 * coarse).astype(np.uint16), np.full(3, 255.0), simulated.labels, ("",) * 3)
    assert np.isnan(counts_per_unit(stored)).all()


def test_runs_with_a_fit_reject_larger_pixels():
    assert find_zoom(0.04, 0.05, has_fit=True) == pytest.approx(0.8)
    assert find_zoom(0.08, 0.05, has_fit=False) == pytest.approx(1.6)
    with pytest.raises(UserError, match="correlated noise"):
        find_zoom(0.08, 0.05, has_fit=True)


def test_distance_is_the_mahalanobis_distance():
    """Features with a known covariance: images at a distance of 7 are marked and those at 3 are not."""
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(4, 4))
    labels = np.arange(900) % 3
    centers = 20 * np.eye(3, 4)
    features = centers[labels] + generator.normal(size=(900, 4)) @ mixing
    pixels = generator.normal(size=(900, 8, 8)).astype(np.float32)
    images = ImageSet(pixels, np.ones(900, np.float32), labels, ("",) * 900)
    predictions = ModelPredictions(np.eye(3)[labels], None, {}, features)
    domain = measure_domain(images, predictions)
    assert not any(find_reasons(domain, images, predictions))
    directions = generator.normal(size=(50, 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for radius, marked in ((3.0, False), (7.0, True)):
        shown = dataclasses.replace(
            predictions, features=centers[0] + radius * directions @ mixing, probabilities=np.eye(3)[[0] * 50]
        )
        reasons = find_reasons(domain, images.subset(np.arange(50)), shown)
        assert [("feature distance" in reason) for reason in reasons] == [marked] * 50


def test_damaged_domain_is_refused(classifier, tmp_path):
    arrays = dataclasses.asdict(classifier.trained.domain)
    with pytest.raises(UserError, match="invalid"):
        from_arrays(arrays | {"means": arrays["means"][:, 1:]}, tmp_path)


def test_earlier_domain_has_no_limits_for_later_quantities(classifier, tmp_path):
    arrays = dataclasses.asdict(classifier.trained.domain)
    earlier = from_arrays(arrays | {name: arrays[name][:5] for name in ("low", "high")}, tmp_path)
    np.testing.assert_array_equal(earlier.low[:5], arrays["low"][:5])
    np.testing.assert_array_equal(earlier.high[:5], arrays["high"][:5])
    assert (earlier.low[5:] < -1e38).all()
    assert (earlier.high[5:] > 1e38).all()
