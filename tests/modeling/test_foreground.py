"""The foreground light is separated from the sky, and can be rendered on other pixels."""

import jax
import numpy as np
import pytest

from lensjax.errors import UserError
from lensjax.modeling.foreground import add_model_noise, fit_foreground, render_foreground
from lensjax.modeling.frame import Data, Frame, pixel_distances
from lensjax.modeling.galaxy import GALAXY

SKIES = 0.0, 300.0


def galaxy(frame):
    return 200 * np.exp(-(pixel_distances(frame, (0.0, 0.0)) ** 2) / (2 * 0.4**2))


def pixels(image):
    return Data(*(np.asarray(part, np.float32) for part in (image, np.ones_like(image), np.ones((1, 1)))))


@pytest.fixture(scope="module")
def fits():
    """Data and foreground for each level of the sky."""
    frame = Frame(30, 30, 0.1, 0.0, 0.0, 1)
    noise = np.random.default_rng(0).normal(size=(30, 30))
    data = [pixels(galaxy(frame) + noise + sky) for sky in SKIES]
    with jax.numpy_rank_promotion("allow"):
        return [(each, fit_foreground(GALAXY, frame, each)) for each in data]


def test_sky_level_changes_neither_light_nor_noise(fits):
    (_, dark), (_, bright) = fits
    weights = [add_model_noise(data, foreground.light, 0.03) for data, foreground in fits]
    np.testing.assert_allclose(bright.image - dark.image, 300, atol=0.2)
    np.testing.assert_allclose(weights[1], weights[0], rtol=0.02)
    assert weights[1][0, 0] > 0.98  # a corner, where there is only sky
    assert weights[1][15, 15] < 0.2


def test_smaller_pixels_resolve_the_slope(fits):
    """Repeated pixels would differ by up to 15."""
    fine = Frame(60, 60, 0.05, 0.0, 0.0, 1)
    _, found = fits[0]
    with jax.numpy_rank_promotion("allow"):
        rendered = render_foreground(found.model, found.fit, found.center, fine, pixels(np.zeros((60, 60))))
    slope = pixel_distances(fine, (0.0, 0.0)) > 0.2  # the noise of few pixels determines the center
    np.testing.assert_allclose(rendered.light[slope], galaxy(fine)[slope], atol=3)


def test_infinite_pixel_is_a_user_error():
    frame = Frame(30, 30, 0.1, 0.0, 0.0, 1)
    image = np.ones((30, 30), np.float32)
    image[3, 3] = np.inf
    data = Data(image, np.ones_like(image), np.ones((1, 1), np.float32))
    with jax.numpy_rank_promotion("allow"), pytest.raises(UserError, match="no model has finite values"):
        fit_foreground(GALAXY, frame, data)
