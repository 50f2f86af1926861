"""Observations from arrays: checks, estimated noise, cropping and averaging."""

import dataclasses

import numpy as np
import pytest
from astropy import units
from astropy.utils.masked import Masked
from scipy import special

from lensjax.errors import UserError
from lensjax.modeling.correlation import NoiseCorrelation
from lensjax.modeling.observation import Observation
from lensjax.modeling.psf import gaussian_psf

PSF = gaussian_psf(0.1, 0.05)
SCALE = 0.05


def lens_image(size=80, seed=0, noise=1.0):
    """A bright galaxy in the center, a neighbor, and white noise."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    light = 300 * np.exp(-np.hypot(x, y) / 3) + 40 * np.exp(-np.hypot(x - 25, y + 30) / 2)
    return light + np.random.default_rng(seed).normal(0, noise, (size, size))


def observe(image, noise=1.0, psf=PSF, mask=None, pixel_scale=SCALE, **options):
    return Observation(image, noise, psf, mask, pixel_scale=pixel_scale, **options)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f4", ">i2", np.uint16, np.float16])
def test_arrays_of_any_type_become_native_float64(dtype):
    image = (lens_image() + 20).round().astype(dtype)
    found = observe(image, np.ones(image.shape, dtype), PSF.astype(">f8"), np.ones(image.shape, dtype))
    for array in (found.image, found.noise, found.psf):
        assert array.dtype == np.float64
        assert array.dtype.isnative
    np.testing.assert_array_equal(found.image, image.astype(float))
    assert found.valid.dtype == bool


@pytest.mark.parametrize("unit", [1e-20, 1e9, 1e-200])
def test_results_scale_with_the_unit_of_the_image(unit):
    image = lens_image()
    for noise, expected in ((None, observe(image, None)), (1.0, observe(image))):
        found = observe(unit * image, noise and unit * noise)
        np.testing.assert_allclose(found.noise / unit, expected.noise, rtol=1e-9)
        np.testing.assert_allclose(found.bin(2).noise / unit, expected.bin(2).noise, rtol=1e-9)


def test_pixels_without_image_or_noise_are_invalid():
    image, noise, mask = lens_image(), np.ones((80, 80)), np.ones((80, 80))
    image[0, :2], noise[1, :3], mask[2, :4] = (np.nan, np.inf), (np.nan, np.inf, 1e8), 0
    noise[2, 0] = 0  # masked
    found = observe(image, noise, mask=mask)
    expected = np.ones((80, 80), bool)
    expected[0, :2] = expected[1, :3] = expected[2, :4] = False
    np.testing.assert_array_equal(found.valid, expected)
    assert np.isfinite(found.image).all()
    assert (found.noise == 1).all()
    assert found.notes == ("mask: pixels with noise above 1e+04 are invalid: 1",)


def test_huge_noise_masks_most_of_an_image():
    noise = np.full((80, 80), 1e8)
    noise[30:50, 30:50] = 0.01
    assert observe(lens_image(), noise).valid.sum() == 400


def test_masked_arrays_of_numpy_are_masked():
    image = np.ma.masked_greater(lens_image(), 100)
    np.testing.assert_array_equal(observe(image).valid, ~image.mask)


@pytest.mark.parametrize("shape", [(1, 80, 80), (80, 80, 1)])
def test_images_with_one_extra_axis_are_accepted(shape):
    np.testing.assert_array_equal(observe(lens_image().reshape(shape)).image, lens_image())


def test_missing_noise_is_the_scatter_of_blank_sky():
    found = observe(lens_image(120, noise=0.3), None)
    np.testing.assert_allclose(found.noise, 0.3, rtol=0.03)
    assert "without the photon noise" in found.notes[0]


def test_replaced_fields_are_checked_again():
    found = observe(lens_image())
    assert dataclasses.replace(found, correlation=NoiseCorrelation(1.0, np.eye(1))).correlation.scatter == 1
    with pytest.raises(UserError, match="pixel_scale is -1"):
        dataclasses.replace(found, pixel_scale=-1)


def changed(array, place, value):
    array = np.array(array, float)
    array[place] = value
    return array


IMAGE = lens_image()
ERRORS = {
    "noise shape": (
        {"noise": np.ones((80, 79))},
        "noise has shape (80, 79), but the image has shape (80, 80)",
    ),
    "mask shape": ({"mask": np.ones((79, 80))}, "mask has shape (79, 80), but the image has shape (80, 80)"),
    "noise zero": ({"noise": changed(np.ones((80, 80)), (3, 4), 0)}, "zero or negative in 1 of 6,400 valid"),
    "noise negative": ({"noise": -1.0}, "zero or negative in 6,400 of 6,400"),
    "noise text": ({"noise": "noise.fits"}, "noise contains <U10 values"),
    "no valid pixel": ({"mask": np.zeros((80, 80))}, "image has no valid pixel"),
    "NaN noise": ({"noise": np.nan}, "image has no valid pixel"),
    "zeros": ({"image": np.zeros((80, 80))}, "image is 0 in all valid pixels"),
    "constant": ({"image": np.full((80, 80), 7)}, "image is 7 in all valid pixels"),
    "cube": ({"image": np.ones((3, 80, 80))}, "image has shape (3, 80, 80); expected one plane"),
    "vector": ({"image": np.ones(80)}, "image has shape (80,)"),
    "empty": ({"image": np.ones((0, 80))}, "image has shape (0, 80)"),
    "complex": ({"image": np.ones((80, 80), complex)}, "image contains complex128 values"),
    "no psf": ({"psf": None}, "psf=gaussian_psf(fwhm, pixel_scale)"),
    "even psf": ({"psf": np.ones((4, 5))}, "psf has shape (4, 5); expected odd sides"),
    "flat psf": ({"psf": np.ones(5)}, "psf has shape (5,)"),
    "psf off-center": ({"psf": np.roll(PSF, 2, 1)}, "center the star in the central pixel"),
    "psf without a star": ({"psf": np.ones((9, 9))}, "is brightest at row 0, column 0"),
    "bit flags": ({"mask": np.full(IMAGE.shape, 4)}, "mask has values other than 0 and 1"),
    "unit": ({"noise": np.ones(IMAGE.shape) * units.mJy}, "noise has a unit; give plain arrays"),
    "own mask": ({"image": Masked(IMAGE, mask=IMAGE > 9)}, "image has a mask"),
    "negative psf": ({"psf": -PSF}, "psf has a sum that is not positive"),
    "zero psf": ({"psf": 0 * PSF}, "psf has a sum that is not positive"),
    "NaN psf": ({"psf": changed(PSF, (0, 0), np.nan)}, "psf is NaN or infinite in 1 of"),
    "scale": ({"pixel_scale": 0}, "pixel_scale is 0; expected a positive number"),
    "NaN scale": ({"pixel_scale": np.nan}, "pixel_scale is nan"),
    "no scale": ({"pixel_scale": None}, "pixel_scale is None"),
    "subpixels": ({"psf_subpixels": 1.5}, "psf_subpixels is 1.5; expected a whole number"),
    "noiseless": ({"image": np.pad(IMAGE[30:50, 30:50], 30), "noise": None}, "blank sky has no scatter"),
    "no sky": (
        {"image": IMAGE[35:45, 35:45], "noise": None},
        "no blank sky; give a noise map or a larger image",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_rejected_in_one_line(name):
    options, message = ERRORS[name]
    with pytest.raises(UserError) as error:
        observe(**{"image": IMAGE, **options})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_psf_is_normalized_and_keeps_negative_wings():
    psf = changed(1e-20 * PSF, (0, 0), -1e-23)
    found = observe(IMAGE, psf=psf).psf
    np.testing.assert_allclose(found, psf / psf.sum(), rtol=1e-12)
    assert found[0, 0] < 0


@pytest.mark.parametrize(
    ("size", "side", "expected"), [(81, 41, 41), (81, 40, 39), (80, 41, 40), (80, 90, 80)]
)
def test_crop_keeps_the_center(size, side, expected):
    image = lens_image(size)
    found = observe(image, np.abs(image) + 1).crop(side)
    start = (size - expected) / 2
    assert start == int(start)
    part = (slice(int(start), int(start) + expected),) * 2
    np.testing.assert_array_equal(found.image, image[part])
    np.testing.assert_array_equal(found.noise, np.abs(image[part]) + 1)


@pytest.mark.parametrize(
    ("method", "value"), [("crop", 1), ("crop", 2.5), ("bin", 0), ("bin", 81), ("bin", "2")]
)
def test_wrong_sizes_are_rejected(method, value):
    with pytest.raises(UserError, match=f"(side|factor) is {value!r}"):
        getattr(observe(IMAGE), method)(value)


def test_binning_averages_valid_pixels():
    rng = np.random.default_rng(3)
    image, noise, mask = rng.normal(size=(7, 9)), rng.uniform(1, 2, (7, 9)), np.ones((7, 9))
    mask[0, 0] = mask[2:4, 2] = mask[3, 3] = 0
    found = observe(image, noise, mask=mask).bin(2)
    assert found.image.shape == (3, 4)
    assert found.pixel_scale == 2 * SCALE
    for row in range(3):
        for column in range(4):
            part = (slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
            good = mask[part] > 0
            assert found.valid[row, column] == (good.sum() >= 2)
            if good.sum() >= 2:
                np.testing.assert_allclose(found.image[row, column], image[part][good].mean())
                variance = (noise[part][good] ** 2).sum() / good.sum() ** 2
                np.testing.assert_allclose(found.noise[row, column], variance**0.5)


def pixel_gaussian(sigma, side):
    """Fraction of a Gaussian in each pixel; the number of pixels per side is odd."""
    edges = np.arange(side + 1) - side / 2
    profile = np.diff(special.erf(edges / sigma / 2**0.5)) / 2
    return np.outer(profile, profile)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_binned_psf_matches_large_pixels(factor):
    sigma = 1.5  # small pixels
    found = observe(IMAGE, psf=pixel_gaussian(sigma, 25)).bin(factor).psf
    expected = pixel_gaussian(sigma / factor, len(found))
    assert len(found) % 2 == 1
    np.testing.assert_allclose(found, found[::-1, ::-1], atol=1e-12)
    np.testing.assert_allclose(found, expected, atol=0.01 * expected.max())


def test_gaussian_psf_has_the_given_width():
    psf = gaussian_psf(0.3, 0.01)
    x = 0.01 * (np.arange(len(psf)) - len(psf) // 2)
    profile = psf[len(psf) // 2]
    assert np.interp(0.15, x, profile) == pytest.approx(profile.max() / 2, rel=0.01)
    assert psf.sum() == pytest.approx(1)
    with pytest.raises(UserError, match="fwhm is 0"):
        gaussian_psf(0, 0.05)
