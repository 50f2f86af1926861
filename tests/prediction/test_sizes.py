"""Images of another size: cut out, or resampled so that arcseconds stay arcseconds."""

import numpy as np
import pytest
from helpers.image_files import bars, npy_bytes, write

import lensjax
from lensjax.errors import UserError
from lensjax.prediction.files import predict_files
from lensjax.prediction.readers.sizes import Target, fitted, resampled

SCALE = 0.05  # arcsec


def ring(size, scale, parts=8):
    """A ring of 1.2 arcsec with a bright side, off the centre: its mean brightness over each pixel."""
    edge = ((np.arange(size * parts) + 0.5) / parts - size / 2) * scale
    x, y = np.meshgrid(edge, edge)
    profile = np.exp(-0.5 * ((np.hypot(x - 0.1, y + 0.05) - 1.2) / 0.12) ** 2)
    image = profile * (1 + 0.5 * np.cos(np.arctan2(y, x)))
    return image.reshape(size, parts, size, parts).mean((1, 3))


@pytest.mark.parametrize(
    ("size", "scale", "tolerance"),
    [(200, 0.04, 3e-4), (301, 0.025, 3e-4), (120, 0.07, 4e-3), (150, SCALE, 1e-12)],
)
def test_a_resampled_image_is_what_the_other_pixels_would_have_seen(size, scale, tolerance):
    expected = ring(150, SCALE)
    found = resampled(ring(size, scale), scale / SCALE, 150)
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert found.sum() == pytest.approx(expected.sum(), rel=1e-9)  # no light is lost or made


def test_noise_is_averaged_by_larger_pixels_and_flux_kept_whatever_the_pixels():
    noise = np.random.default_rng(0).normal(size=(96, 96))
    found = resampled(noise, 1 / 3, 32)
    np.testing.assert_allclose(found, noise.reshape(32, 3, 32, 3).mean((1, 3)), atol=1e-12)
    finer = resampled(noise, 3.0, 288)
    np.testing.assert_allclose(finer.reshape(96, 3, 96, 3).mean((1, 3)), noise, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (33, 50), (32, 32)])
def test_the_middle_is_cut_out(height, width):
    image = np.random.default_rng(0).uniform(size=(height, width))
    top, left = (height - 32) // 2, (width - 32) // 2
    part = image[top : top + 32, left : left + 32]
    expected = (part - part.min()) / (part.max() - part.min())
    np.testing.assert_allclose(fitted(image, Target(32, crop=True)), expected, atol=1e-12)


def test_pixels_outside_the_middle_may_be_missing():
    image = np.random.default_rng(0).uniform(size=(64, 64))
    image[:5] = np.nan
    assert np.isfinite(fitted(image, Target(32, crop=True))).all()
    assert np.isfinite(fitted(image, Target(32, zoom=1.0))).all()
    image[30, 30] = np.nan
    for target in (Target(32, crop=True), Target(32, zoom=1.0)):
        with pytest.raises(UserError, match="NaN"):
            fitted(image, target)


@pytest.mark.parametrize(
    ("size", "target", "message"),
    [
        (40, Target(32), r"shape \(40, 40\), expected \(32, 32\); --fit-size=crop cuts"),
        (30, Target(32), r"--pixel-scale resamples"),
        (30, Target(32, crop=True), r"--pixel-scale resamples"),
        (30, Target(32, zoom=1.0), r"covers 30\.0 pixels of the run's, which needs 32"),
    ],
)
def test_a_size_that_cannot_be_used_is_refused_with_what_to_do(size, target, message):
    with pytest.raises(UserError, match=message):
        fitted(ring(size, SCALE), target)


def test_files_of_another_pixel_scale_are_classified_like_those_of_the_run(run, tmp_path):
    classifier = lensjax.load(run)
    classifier.trained.config.data.source = "simulated:model_3"  # pixels of 0.08 arcsec
    image = bars(0).astype(float)
    finer = np.repeat(np.repeat(image, 2, 0), 2, 1)
    files = {"run.npy": npy_bytes(image), "finer.npy": npy_bytes(finer)}
    folder = write(tmp_path / "in", files)
    assert predict_files(classifier, str(folder), tmp_path / "a.csv") == (1, 1)
    done = predict_files(classifier, f"{folder}/finer.npy", tmp_path / "b.csv", pixel_scale=0.04)
    assert done == (1, 0)
    one = (tmp_path / "a.csv").read_text().splitlines()[2].removeprefix("run.npy")
    assert (tmp_path / "b.csv").read_text().splitlines()[1] == "finer.npy" + one
    classifier.trained.config.data.source = "dataset.zip"
    with pytest.raises(UserError, match="pixel scale of these images is unknown"):
        predict_files(classifier, str(folder), tmp_path / "c.csv", pixel_scale=0.04)
