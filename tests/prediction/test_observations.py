"""Telescope images are classified by the residual of their lens model, and marked as outside the domain."""

import types

import numpy as np
import pytest

import lensjax
from lensjax import modeling
from lensjax.errors import UserError
from lensjax.modeling.verdict import Verdict
from lensjax.prediction import observations

SIDE = 160


@pytest.fixture(scope="module")
def classifier():
    return lensjax.load("common_test")


def observation(side=SIDE, pixel_scale=0.05):
    image = np.random.default_rng(0).normal(size=(side, side))
    return modeling.Observation(
        image, np.ones_like(image), modeling.gaussian_psf(0.12, 0.05), pixel_scale=pixel_scale
    )


def fit(residual, verdict="good"):
    """A stand-in for the fit of an image that consists of light, an arc and a residual."""
    side = len(residual)
    y, x = np.indices((side, side)) - (side - 1) / 2
    arc = 40 * np.exp(-(((np.hypot(x, y) - 24) / 3) ** 2))
    light = 500 * np.exp(-np.hypot(x, y) / 10)
    return types.SimpleNamespace(
        image=light + 3 + arc + residual,
        lens_light=light,
        sky=np.full_like(arc, 3.0),
        noise=np.ones_like(arc),
        residual=residual,
        sky_variance=1.0,
        einstein_radius=1.2,
        standard_errors={"mass.0.theta_E": 0.01},
        parameters={"mass.0.center_x": 0.0, "mass.0.center_y": 0.0},
        reduced_chi_square=1.0,
        verdict=Verdict(verdict, () if verdict == "good" else ("no lensed source was found",)),
    )


def classify(monkeypatch, classifier, result):
    monkeypatch.setattr(modeling, "fit", lambda *_, **__: result)
    return observations.classify_observation(classifier, observation())


def test_residual_decides_class_and_image_is_marked(monkeypatch, classifier):
    noise = np.random.default_rng(1).normal(size=(152, 152))
    smooth, _ = classify(monkeypatch, classifier, fit(noise))
    y, x = np.indices(noise.shape) - 75.5
    line = 6 * np.exp(-((y - 20) ** 2) / 8) * (np.abs(x) < 30) * np.sign(x)
    disturbed, _ = classify(monkeypatch, classifier, fit(noise + line))
    assert smooth.classes[0] == "no"
    assert disturbed.classes[0] != "no"
    for predictions in (smooth, disturbed):
        assert not predictions.in_domain[0]
        assert predictions.reasons[0].startswith("telescope image")
        assert predictions.theta_E[0] == pytest.approx(1.2)


def test_failed_fit_has_no_class(monkeypatch, classifier):
    predictions, _ = classify(monkeypatch, classifier, fit(np.zeros((152, 152)), "failed"))
    assert predictions.classes[0] == ""
    assert predictions.errors[0] == "the lens fit failed: no lensed source was found"


@pytest.mark.parametrize(
    ("side", "pixel_scale", "message"),
    [(100, 0.05, "needs a field of 7.5 arcsec"), (160, 0.1, "larger than those of the classifier")],
)
def test_unsuitable_images_are_refused(classifier, side, pixel_scale, message):
    with pytest.raises(UserError, match=message):
        observations.classify_observation(classifier, observation(side, pixel_scale))
