"""Pixels of a fit: convolution against SciPy, and positions after cutting and averaging."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from lensjax.errors import UserError
from lensjax.modeling import SIS, LensModel, Parameter, Shapelets
from lensjax.modeling.automatic_fit import fit
from lensjax.modeling.frame import Frame, convolve_columns, margin, pixel_positions, prepare
from lensjax.modeling.observation import Observation
from lensjax.modeling.psf import gaussian_psf


def block_means(images, factor):
    *rest, rows, columns = images.shape
    return images.reshape(*rest, rows // factor, factor, columns // factor, factor).mean((-3, -1))


@pytest.mark.parametrize(("subpixels", "psf_subpixels"), [(1, 1), (3, 1), (3, 3)])
@pytest.mark.parametrize(("rows", "columns", "psf_size"), [(20, 31, 5), (21, 30, 7), (9, 8, 15)])
def test_convolution_equals_that_of_scipy(rows, columns, psf_size, subpixels, psf_subpixels):
    generator = np.random.default_rng(rows)
    frame = Frame(rows, columns, 0.05, 0.0, 0.0, psf_size, subpixels, psf_subpixels)
    around = margin(frame)
    shape = (2, (rows + 2 * around) * subpixels, (columns + 2 * around) * subpixels)
    images, psf = generator.normal(size=shape), generator.random((psf_size, psf_size))
    found = convolve_columns(jnp.asarray(images, jnp.float32), jnp.asarray(psf, jnp.float32), frame)
    at_psf = block_means(images, subpixels // psf_subpixels)
    blurred = signal.fftconvolve(at_psf, psf[None], mode="same", axes=(1, 2))
    expected = block_means(blurred, psf_subpixels)[:, around : around + rows, around : around + columns]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(61, 61), (60, 60), (61, 64), (80, 75), (82, 83)])
@pytest.mark.parametrize(("scale", "factor"), [(0.05, 2), (0.033, 3), (0.09, 1)])
def test_positions_are_kept_when_pixels_are_averaged(shape, scale, factor):
    center, width = (0.13, -0.07), 3.0 * scale
    y, x = ((np.arange(side) - (side - 1) / 2) * scale for side in shape)
    image = np.exp(-((x - center[0]) ** 2 + (y[:, None] - center[1]) ** 2) / (2 * width**2))
    observation = Observation(image, 0.01, gaussian_psf(2.5 * scale, scale), pixel_scale=scale)
    prepared = prepare(observation, radius=30 * scale)
    assert prepared.coarse[0].pixel_scale == pytest.approx(factor * scale)
    for frame, data in (prepared.fine, prepared.coarse):
        assert data.image.shape == (frame.rows, frame.columns)
        assert data.psf.shape == (frame.psf_size, frame.psf_size)
        light = data.image.astype(np.float64)
        found = [(light * axis).sum() / light.sum() for axis in pixel_positions(frame)]
        np.testing.assert_allclose(found, center, atol=1e-6)


def test_margins_and_subpixels_extend_the_same_grid():
    frame = Frame(4, 5, 0.1, 0.3, -0.2, 3)
    x, y = pixel_positions(frame)
    np.testing.assert_allclose(x[0], [0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_allclose(y[:, 0], [-0.35, -0.25, -0.15, -0.05])
    for axis, whole in zip(pixel_positions(frame, margin=2, subpixels=3), (x, y), strict=True):
        assert axis.shape == (24, 27)
        np.testing.assert_allclose(block_means(axis, 3)[2:-2, 2:-2], whole, atol=1e-12)


def test_averaged_pixels_have_the_noise_of_their_mean():
    generator = np.random.default_rng(0)
    noise = generator.uniform(0.5, 2, (60, 60))
    mask = np.ones((60, 60), bool)
    mask[10, 10] = False
    observation = Observation(
        generator.normal(0, noise), noise, gaussian_psf(0.1, 0.05), mask, pixel_scale=0.05
    )
    prepared = prepare(observation, radius=1.5)
    found = prepared.unit / np.where(prepared.coarse[1].weight > 0, prepared.coarse[1].weight, np.inf)
    expected = np.sqrt(block_means(noise**2, 2) / 4)
    expected[5, 5] = 0  # a block with an invalid pixel is not used
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(prepared.fine[1].weight == 0, ~mask)


def test_image_with_few_valid_pixels_is_rejected():
    image = np.random.default_rng(0).normal(size=(9, 9))
    observation = Observation(image, 1.0, gaussian_psf(0.1, 0.05), pixel_scale=0.05)
    with pytest.raises(UserError, match=r"of 6 arcsec .* has only 64 valid pixels"):
        prepare(observation, radius=3.0)


@pytest.mark.parametrize("radius", [0, -1.0, np.nan, np.inf])
def test_radius_must_be_positive_and_finite(radius):
    image = np.random.default_rng(0).normal(size=(30, 30))
    observation = Observation(image, 1.0, gaussian_psf(0.1, 0.05), pixel_scale=0.05)
    with pytest.raises(UserError, match=f"radius is {radius}; expected a positive number"):
        fit(observation, radius=radius)


@pytest.mark.parametrize("part", ["image", "noise"])
def test_pixel_that_is_too_bright_is_rejected(part):
    """Its square would be infinite in float32."""
    image, noise = np.random.default_rng(0).normal(size=(40, 40)), np.ones((40, 40))
    if part == "image":
        image[20, 20] = 1e39
    else:
        noise[20, 20] = 1e-20
    observation = Observation(image, noise, np.ones((1, 1)), pixel_scale=0.1)
    with pytest.raises(UserError, match=r"a valid pixel is .* times as bright as the noise"):
        fit(observation)


@pytest.mark.parametrize("theta_E", [Parameter.fitted((0.0, 2.0), (0.0, 6.0)), Parameter.fixed(0.0)])
def test_search_from_zero_einstein_radius_is_rejected(theta_E):
    observation = Observation(np.eye(40), 1.0, np.ones((1, 1)), pixel_scale=0.1)
    with pytest.raises(UserError, match=r"mass\.0\.theta_E may start at 0 arcsec"):
        fit(observation, LensModel(mass=(SIS(theta_E=theta_E),), source=(Shapelets(order=1),)))
