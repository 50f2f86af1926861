"""tools/studies/sim_to_sim.py: change of camera, and scores of images without a class."""

import numpy as np
import pytest
from helpers.studies import load_study


@pytest.fixture(scope="module")
def study():
    return load_study("sim_to_sim")


def blob(size, scale):
    """A Gaussian of 0.4 arcsec at (0.3, -0.2) arcsec, in brightness per square arcsec."""
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) * scale
    return np.exp(-((x - 0.3) ** 2 + (y + 0.2) ** 2) / (2 * 0.4**2))


@pytest.mark.parametrize("camera", [(64, 0.101), (64, 0.08), (150, 0.05), (151, 0.05)])
@pytest.mark.parametrize("target", [(64, 0.101), (64, 0.08), (150, 0.05)])
def test_light_keeps_its_place_and_shape(study, camera, target):
    pixels = blob(*camera)[None] + 0.1
    found = study.match_camera(pixels, camera[1], *target)
    np.testing.assert_allclose(found[0], blob(*target) + 0.1, atol=0.03)
    if camera == target:
        np.testing.assert_array_equal(found, pixels)


def test_images_without_a_class_count_as_wrong(study):
    labels = np.arange(30) % 3
    answers = np.log(np.where(np.eye(3)[labels] > 0, 0.98, 0.01))
    assert study.score(labels, answers, np.ones(30, bool))["auc"] == 1
    answers[:15] = np.log(1 / 3)
    found = study.score(labels, answers, np.arange(30) >= 15)
    assert found["accuracy"] == found["no_class"] == found["in_domain"] == 0.5
    assert found["accuracy_in_domain"] == 1
    # A positive and a negative are ordered correctly unless both have equal probabilities.
    assert found["auc"] == pytest.approx(1 - 0.5 * 0.5**2)
