"""Cropping and resampling of images of another size."""

import numpy as np
import pytest
from helpers.image_files import bars, npy_bytes, write

import lensjax
from lensjax.errors import UserError
from lensjax.prediction.files import predict_files
from lensjax.prediction.readers.sizes import TargetSize, match_size, resample

SCALE = 0.05  # arcsec


def ring(size, scale, parts=8):
    """An off-center ring of radius 1.2 arcsec with a bright side, as the mean brightness over each pixel."""
    edge = ((np.arange(size * parts) + 0.5) / parts - size / 2) * scale
    x, y = np.meshgrid(edge, edge)
    profile = np.exp(-0.5 * ((np.hypot(x - 0.1, y + 0.05) - 1.2) / 0.12) ** 2)
    image = profile * (1 + 0.5 * np.cos(np.arctan2(y, x)))
    return image.reshape(size, parts, size, parts).mean((1, 3))


@pytest.mark.parametrize(
    ("size", "scale", "tolerance"),
    [(200, 0.04, 3e-4), (301, 0.025, 3e-4), (120, 0.07, 4e-3), (150, SCALE, 1e-12)],
)
def test_resampling_matches_observation_at_other_pixel_scale(size, scale, tolerance):
    expected = ring(150, SCALE)
    found = resample(ring(size, scale), scale / SCALE, 150)
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert found.sum() == pytest.approx(expected.sum(), rel=1e-9)  # flux is conserved


def test_resampling_averages_noise_and_conserves_flux():
    noise = np.random.default_rng(0).normal(size=(96, 96))
    found = resample(noise, 1 / 3, 32)
    np.testing.assert_allclose(found, noise.reshape(32, 3, 32, 3).mean((1, 3)), atol=1e-12)
    finer = resample(noise, 3.0, 288)
    np.testing.assert_allclose(finer.reshape(96, 3, 96, 3).mean((1, 3)), noise, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (33, 50), (32, 32)])
def test_crop_keeps_the_center(height, width):
    image = np.random.default_rng(0).uniform(size=(height, width))
    top, left = (height - 32) // 2, (width - 32) // 2
    part = image[top : top + 32, left : left + 32]
    expected = (part - part.min()) / (part.max() - part.min())
    np.testing.assert_allclose(match_size(image, TargetSize(32, crop=True)), expected, atol=1e-12)


def test_nan_outside_the_center_is_accepted():
    image = np.random.default_rng(0).uniform(size=(64, 64))
    image[:5] = np.nan
    assert np.isfinite(match_size(image, TargetSize(32, crop=True))).all()
    assert np.isfinite(match_size(image, TargetSize(32, zoom=1.0))).all()
    image[30, 30] = np.nan
    for target in (TargetSize(32, crop=True), TargetSize(32, zoom=1.0)):
        with pytest.raises(UserError, match="NaN"):
            match_size(image, target)


@pytest.mark.parametrize(
    ("size", "target", "message"),
    [
        (40, TargetSize(32), r"shape \(40, 40\), expected \(32, 32\); use --fit-size=crop to crop"),
        (30, TargetSize(32), "use --pixel-scale to resample"),
        (30, TargetSize(32, crop=True), "use --pixel-scale to resample"),
        (30, TargetSize(32, zoom=1.0), r"covers only 30\.0 of the run's 32 pixels"),
    ],
)
def test_unusable_size_is_rejected_with_advice(size, target, message):
    with pytest.raises(UserError, match=message):
        match_size(ring(size, SCALE), target)


def test_resampled_files_match_native_pixel_scale(run, tmp_path):
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
