"""Telescope images are classified by the residual of their lens model, and marked as outside the domain."""

import math
import types

import numpy as np
import pytest

import lensjax
from lensjax import modeling
from lensjax.errors import UserError
from lensjax.modeling.frame import prepare
from lensjax.modeling.verdict import Verdict
from lensjax.prediction import observations

SIDE = 160
SCALE = 0.05  # arcsec, of the classifier


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
    return fit_of(light + 3 + arc + residual, np.ones_like(arc), light, 3.0, arc, residual, verdict)


def fit_of(image, noise, light, sky, source, residual, verdict="good"):
    return types.SimpleNamespace(
        image=image,
        lens_light=light,
        sky=np.full_like(image, sky),
        lensed_source=source,
        noise=noise,
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
    noise = np.random.default_rng(1).normal(size=(150, 150))
    smooth, _ = classify(monkeypatch, classifier, fit(noise))
    y, x = np.indices(noise.shape) - 74.5
    line = 6 * np.exp(-((y - 20) ** 2) / 8) * (np.abs(x) < 30) * np.sign(x)
    disturbed, _ = classify(monkeypatch, classifier, fit(noise + line))
    assert smooth.classes[0] == "no"
    assert disturbed.classes[0] != "no"
    for predictions in (smooth, disturbed):
        assert not predictions.in_domain[0]
        assert predictions.reasons[0].startswith("telescope image")
        assert predictions.theta_E[0] == pytest.approx(1.2)


def test_failed_fit_has_no_class(monkeypatch, classifier):
    predictions, _ = classify(monkeypatch, classifier, fit(np.zeros((150, 150)), "failed"))
    assert predictions.classes[0] == ""
    assert predictions.errors[0] == "the lens fit failed: no lensed source was found"


@pytest.mark.parametrize("pixel_scale", [0.05, 0.0505, 0.051, 0.0491, 0.0488, 0.04, 0.033, 0.03, 0.02, 0.011])
@pytest.mark.parametrize("more", [0, 1, 2, 3, 20])
def test_image_that_covers_field_keeps_positions_and_noise(monkeypatch, classifier, pixel_scale, more):
    """Two spots keep their positions and their noise; a masked pixel does not change the range."""
    zoom = 1 if abs(pixel_scale / SCALE - 1) <= 0.02 else pixel_scale / SCALE
    side = more + math.ceil(150 / zoom - 1e-6)
    axis = (np.arange(side) - (side - 1) / 2) * pixel_scale
    positions = ((-3.4, 1.0), (3.0, -3.5))  # x and y, arcsec; close to the border
    spots = [np.exp(-((axis - x) ** 2 + (axis[:, None] - y) ** 2) / 0.02) for x, y in positions]
    image = sum(spots) + 7.0
    mask = np.ones(image.shape, bool)
    mask[side // 2, side // 2] = False
    image[~mask] = 1e6
    psf = modeling.gaussian_psf(0.12, pixel_scale)
    made = modeling.Observation(image, 1.0, psf, mask, pixel_scale=pixel_scale)
    seen = {}

    def stand_in(observation, model, *, radius):
        prepared = prepare(observation, radius=radius)
        data = prepared.fine[1]
        with np.errstate(divide="ignore"):
            noise = prepared.unit / data.weight
        zeros = np.zeros_like(data.image)
        return fit_of(data.image * prepared.unit, noise, zeros, 7.0, zeros, (data.weight > 0).astype(float))

    monkeypatch.setattr(modeling, "fit", stand_in)
    monkeypatch.setattr(
        type(classifier), "predict_fitted", lambda _, images, *rest, **options: seen.update(images=images)
    )
    observations.classify_observation(classifier, made)
    pixels = seen["images"].pixels[0]
    assert pixels.shape == (150, 150)
    assert pixels[75, 75] < 0.1
    y, x = (np.indices(pixels.shape) - 74.5) * SCALE
    for position, half in zip(positions, (x < 0, x > 0), strict=True):
        light = np.where(half, pixels - np.median(pixels), 0)
        light[np.abs(light) < 0.02] = 0
        found = [(light * along).sum() / light.sum() for along in (x, y)]
        assert found == pytest.approx(position, abs=0.5 * pixel_scale + 0.02 * 3.5)
    residual = seen["images"].residuals[0].astype(float)
    assert np.median(residual) == pytest.approx(1 / zoom, rel=1e-3)


@pytest.mark.parametrize(
    ("side", "pixel_scale", "message"),
    [
        (100, 0.05, "needs a field of 7.5 arcsec: at least 150 x 150 pixels"),
        (149, 0.0505, "at least 150 x 150 pixels"),
        (227, 0.033, "at least 228 x 228 pixels"),
        (160, 0.1, "larger than those of the classifier"),
    ],
)
def test_unsuitable_images_are_refused(classifier, side, pixel_scale, message):
    with pytest.raises(UserError, match=message):
        observations.classify_observation(classifier, observation(side, pixel_scale))
