"""Observations from FITS files."""

import gzip
import os
import re

import numpy as np
import pytest
from astropy.io import fits

from lensjax.errors import UserError
from lensjax.modeling.observation import Observation
from lensjax.modeling.psf import gaussian_psf

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(5, 1, (60, 60)).astype(np.float32)
NOISE = RNG.uniform(1, 2, (60, 60)).astype(np.float32)
PSF = gaussian_psf(0.1, 0.05)


def write(path, planes, primary=None, **cards):
    """Writes extensions by name, all with the given cards; `primary` has the cards of the first header."""
    units = [fits.PrimaryHDU(header=fits.Header(primary or {}))]
    for name, plane in planes.items():
        units.append(
            fits.ImageHDU(plane, fits.Header(cards), name.split(",")[0], ver=int(f"{name},1".split(",")[1]))
        )
    fits.HDUList(units).writeto(path)
    return path


def wcs(matrix, unit="deg"):
    """Cards of world coordinates with the given matrix, arcsec."""
    scale = {"deg": 3600, "arcsec": 1}[unit]
    names = ("CD1_1", "CD1_2", "CD2_1", "CD2_2")
    cards = dict(zip(names, np.ravel(matrix) / scale, strict=True))
    axes = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": unit, "CUNIT2": unit}
    return cards | axes | {"CRVAL1": 150 * 3600 / scale, "CRVAL2": 2 * 3600 / scale}


def turned(x, y, angle):
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[-x * cosine, y * sine], [x * sine, y * cosine]])


KINDS = {1: "standard deviation", -2: "inverse variance", 2: "variance"}  # by the power of the noise


@pytest.mark.parametrize(
    ("name", "power"),
    [("ERR", 1), ("RMS", 1), ("WHT", -2), ("IVAR", -2), ("WEIGHT", -2), ("VAR", 2), ("VARIANCE", 2)],
)
def test_parts_are_read_from_named_extensions(tmp_path, name, power):
    image, stored = IMAGE.copy(), NOISE**power
    image[0, 0] = np.nan
    stored[0, 1] = {1: np.nan, -2: 0, 2: -1}[power]  # without weight
    planes = {name: stored, "SCI": image, "PSF": PSF, "DQ": np.ones((60, 60), np.int16)}
    path = write(tmp_path / "lens.fits", planes, PIXSCALE=0.06)
    assert fits.getdata(path, "SCI").dtype == ">f4"
    found = Observation.from_fits(path)
    valid = np.ones((60, 60), bool)
    valid[0, :2] = False
    np.testing.assert_array_equal(found.valid, valid)
    np.testing.assert_array_equal(found.image[valid], image[valid])
    np.testing.assert_allclose(found.noise[valid], NOISE[valid], rtol=1e-5)
    np.testing.assert_allclose(found.psf, PSF, rtol=1e-6)
    assert found.pixel_scale == 0.06
    assert f"noise: extension {name}, {KINDS[power]}" in found.notes
    assert any("DQ is not applied" in note for note in found.notes)


@pytest.mark.parametrize("name", ["WEIGHT", "IVAR", "PSF_MODEL", "SIGMA"])
def test_auxiliary_extension_is_not_the_image(tmp_path, name):
    path = write(tmp_path / "lens.fits", {name: np.ones((60, 60)), "VIS": IMAGE}, PIXSCALE=0.06)
    np.testing.assert_array_equal(Observation.from_fits(path, NOISE, PSF).image, IMAGE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "lens.fits")
    with pytest.raises(UserError, match=r"lens\.fits: is not a regular file"):
        Observation.from_fits(tmp_path / "lens.fits", NOISE, PSF)


@pytest.mark.parametrize(
    ("name", "power"), [("noise", 1), ("lens_wht", -2), ("lens-ivar", -2), ("lens.var", 2)]
)
def test_parts_are_read_from_separate_files(tmp_path, name, power):
    mask = np.ones((60, 60), np.uint8)
    mask[:5] = 0
    fits.PrimaryHDU(IMAGE[None]).writeto(tmp_path / "lens.fits")
    fits.PrimaryHDU(NOISE**power).writeto(tmp_path / f"{name}.fits")
    fits.PrimaryHDU(PSF).writeto(tmp_path / "psf.fits")
    (tmp_path / "mask.fits.gz").write_bytes(
        gzip.compress(write(tmp_path / "m.fits", {"MASK": mask}).read_bytes())
    )
    files = (tmp_path / file for file in ("lens.fits", f"{name}.fits", "psf.fits", "mask.fits.gz"))
    found = Observation.from_fits(*map(str, files), pixel_scale=0.05, psf_subpixels=2)
    np.testing.assert_array_equal(found.image, IMAGE)
    np.testing.assert_allclose(found.noise[5:], NOISE[5:], rtol=1e-5)
    np.testing.assert_array_equal(found.valid, mask > 0)
    assert found.psf_subpixels == 2


@pytest.mark.parametrize(
    ("file", "names", "power"),
    [
        ("noise", ["IVAR"], -2),
        ("noise", ["VIS_INV_VAR"], -2),
        ("noise", ["DQ", "VIS_VARIANCE"], 2),
        ("ivar", ["VIS"], -2),
        ("inverse-variance", [""], -2),
        ("variance", ["RMS"], 1),
    ],
)
def test_names_state_the_kind_of_a_noise_file(tmp_path, file, names, power):
    """The name of the extension has priority over that of the file."""
    planes = dict.fromkeys(names[:-1], np.ones((60, 60))) | {names[-1]: NOISE**power}
    noise = write(tmp_path / f"{file}.fits", planes)
    image = write(tmp_path / "lens.fits", {"SCI": IMAGE}, PIXSCALE=0.05)
    found = Observation.from_fits(image, noise, PSF)
    np.testing.assert_allclose(found.noise, NOISE, rtol=1e-5)
    assert f"noise: {file}.fits, {KINDS[power]}" in found.notes


def test_noise_of_the_same_chip_is_read(tmp_path):
    planes = {"SCI,1": IMAGE, "ERR,1": NOISE, "SCI,2": IMAGE[::-1], "ERR,2": NOISE[::-1]}
    found = Observation.from_fits(write(tmp_path / "a.fits", planes), psf=PSF, pixel_scale=0.05, extension=3)
    np.testing.assert_array_equal(found.image, IMAGE[::-1])
    np.testing.assert_array_equal(found.noise, NOISE[::-1])


@pytest.mark.parametrize(
    "cards",
    [
        wcs(turned(0.05, 0.05, 0)),
        wcs(turned(0.05, 0.05, 0.7)),
        wcs(turned(0.05, 0.05, 2.0), "arcsec"),
        {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CDELT1": -0.05 / 3600,
            "CDELT2": 0.05 / 3600,
            "CROTA2": 30.0,
        },
        {"PIXSCALE": 0.05},
        {"PIXELSCL": 0.05},
        {"D001SCAL": 0.05},
    ],
)
def test_pixel_scale_of_headers_is_used(tmp_path, cards):
    path = write(tmp_path / "a.fits", {"SCI": IMAGE}, **cards)
    assert Observation.from_fits(path, 1.0, PSF).pixel_scale == pytest.approx(0.05, rel=1e-6)


def test_given_pixel_scale_overrides_the_header(tmp_path):
    path = write(tmp_path / "a.fits", {"SCI": IMAGE}, **wcs(turned(0.05, 0.05, 1)))
    found = Observation.from_fits(path, 1.0, PSF, pixel_scale=0.1)
    assert found.pixel_scale == 0.1
    assert "pixel scale: 0.1 arcsec was given, but the header has 0.05 arcsec" in found.notes


@pytest.mark.parametrize(
    ("unit", "electrons"),
    [
        ("ELECTRONS/S", 500.0),
        ("electrons", 1.0),
        ("COUNTS", 2.5),
        ("DN/s", 1250.0),
        ("MJy/sr", None),
        ("", None),
    ],
)
def test_photon_noise_follows_from_unit_exposure_and_gain(tmp_path, unit, electrons):
    """The image is a uniform disk, whose photon noise is known."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:160, :160] - 79.5
    mean = np.where(np.hypot(x, y) < 20, 5000.0, 100.0)  # electrons
    image = rng.poisson(mean) / (electrons or 1)
    path = write(tmp_path / "a.fits", {"SCI": image}, {"EXPTIME": 500.0, "CCDGAIN": 2.5}, BUNIT=unit)
    found = Observation.from_fits(path, psf=PSF, pixel_scale=0.05)
    ratio = found.noise * (electrons or 1) / np.sqrt(mean)
    assert np.median(ratio[:40]) == pytest.approx(1, abs=0.03)
    bright = np.hypot(x, y) < 19
    assert np.median(ratio[bright]) == pytest.approx(1 if electrons else np.sqrt(100 / 5000), rel=0.03)
    assert any(("without the photon noise" in note) == (electrons is None) for note in found.notes)


def test_compressed_images_are_read(tmp_path):
    packed = fits.CompImageHDU(np.arange(3600, dtype=np.int32).reshape(60, 60), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "a.fits.fz")
    found = Observation.from_fits(tmp_path / "a.fits.fz", 1.0, PSF, pixel_scale=0.05)
    np.testing.assert_array_equal(found.image, np.arange(3600.0).reshape(60, 60))


def forged(content, keyword, value):
    """The file with another value of a card of its first extension."""
    start = content.index(keyword.encode().ljust(8) + b"=", 2880)
    return content[:start] + f"{keyword:8}= {value:>20}".ljust(80).encode() + content[start + 80 :]


def whole(folder):
    return write(folder / "whole.fits", {"SCI": IMAGE, "ERR": NOISE}, PIXSCALE=0.05).read_bytes()


FILES = {
    "empty": (lambda _: b"", "is not a FITS file"),
    "text": (lambda _: b"a picture of a lens" * 500, "is not a FITS file"),
    "truncated": (lambda folder: whole(folder)[:-9000], "truncated: "),
    "huge": (lambda folder: forged(whole(folder), "NAXIS1", 10**9), "truncated: "),
    "type": (lambda folder: forged(whole(folder), "BITPIX", 7), "damaged header"),
    "broken card": (lambda folder: forged(whole(folder), "PIXSCALE", "'''"), "has no pixel scale"),
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_rejected_in_one_line(tmp_path, name):
    make, message = FILES[name]
    (tmp_path / "lens.fits").write_bytes(make(tmp_path))
    with pytest.raises(UserError) as error:
        Observation.from_fits(tmp_path / "lens.fits", psf=PSF)
    assert str(error.value).startswith(f"{tmp_path / 'lens.fits'}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


PLANES = {"SCI": IMAGE, "ERR": NOISE, "PSF": PSF}
MISSING = {
    "extension": (
        PLANES,
        {"extension": "F814W"},
        "has no image extension F814W (its images are SCI, ERR, PSF); correct the extension",
    ),
    "number": (PLANES, {"extension": 9}, "has no image extension 9 (its images are SCI, ERR, PSF)"),
    "only noise": ({"ERR": NOISE}, {}, "contains only ERR; choose an image"),
    "no image": ({}, {}, "contains no image"),
    "no psf": (
        {"SCI": IMAGE, "ERR": NOISE},
        {"pixel_scale": 0.05},
        "no point-spread function; give psf, or psf_fwhm",
    ),
    "no scale": (PLANES, {}, "give it in arcsec (--pixel-scale, or pixel_scale= in Python)"),
    "cube": (
        {"SCI": np.ones((3, 60, 60))},
        {"pixel_scale": 0.05},
        "image has shape (3, 60, 60); expected one",
    ),
    "noise shape": (
        PLANES | {"ERR": NOISE[1:]},
        {"pixel_scale": 0.05},
        "noise has shape (59, 60), but the image has shape (60, 60)",
    ),
    "no file": (PLANES, {"noise": "absent.fits"}, "absent.fits: cannot be opened: No such file"),
    "text scale": (PLANES, {"pixel_scale": "fine"}, "pixel_scale is 'fine'"),
    "no subpixels": (
        {"SCI": IMAGE, "ERR": NOISE},
        {"pixel_scale": 0.05, "psf_fwhm": 0.2, "psf_subpixels": 0},
        "psf_subpixels is 0; expected a whole number of at least 1",
    ),
    "text width": (
        {"SCI": IMAGE, "ERR": NOISE},
        {"pixel_scale": 0.05, "psf_fwhm": "wide"},
        "psf_fwhm is 'wide'; expected a positive number",
    ),
}


def test_gaussian_stands_in_only_without_point_spread_function(tmp_path):
    path = write(tmp_path / "lens.fits", {"SCI": IMAGE, "ERR": NOISE})
    found = Observation.from_fits(path, pixel_scale=0.05, psf_fwhm=0.2)
    np.testing.assert_allclose(found.psf, gaussian_psf(0.2, 0.05))
    assert "psf: a Gaussian of 0.2 arcsec FWHM stands in" in found.notes
    path = write(tmp_path / "with_psf.fits", PLANES)
    found = Observation.from_fits(path, pixel_scale=0.05, psf_fwhm=0.2)
    np.testing.assert_allclose(found.psf, PSF, rtol=1e-6)


@pytest.mark.parametrize("name", MISSING)
def test_missing_parts_are_named(tmp_path, name):
    planes, options, message = MISSING[name]
    path = write(tmp_path / "lens.fits", planes)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        Observation.from_fits(path, **options)
    assert "\n" not in str(error.value)
    assert ".fits: " in str(error.value)


@pytest.mark.parametrize("matrix", [turned(0.05, 0.06, 0.4), np.array([[0.05, 0.02], [0, 0.0458]])])
def test_pixels_that_are_not_square_are_rejected(tmp_path, matrix):
    path = write(tmp_path / "a.fits", {"SCI": IMAGE}, **wcs(matrix))
    with pytest.raises(UserError, match=r"pixels are not square: 0\.05 x "):
        Observation.from_fits(path, 1.0, PSF)
    assert Observation.from_fits(path, 1.0, PSF, pixel_scale=0.05).pixel_scale == 0.05
