"""The foreground light is separated from the sky."""

import jax
import numpy as np
import pytest

from lensjax.errors import UserError
from lensjax.modeling.foreground import add_model_noise, fit_foreground
from lensjax.modeling.frame import Data, Frame, pixel_distances
from lensjax.modeling.galaxy import GALAXY


def test_infinite_pixel_is_a_user_error():
    frame = Frame(30, 30, 0.1, 0.0, 0.0, 1)
    image = np.ones((30, 30), np.float32)
    image[3, 3] = np.inf
    data = Data(image, np.ones_like(image), np.ones((1, 1), np.float32))
    with jax.numpy_rank_promotion("allow"), pytest.raises(UserError, match="no model has finite values"):
        fit_foreground(GALAXY, frame, data)


def test_sky_level_changes_neither_light_nor_noise():
    frame = Frame(30, 30, 0.1, 0.0, 0.0, 1)
    radius = pixel_distances(frame, (0.0, 0.0))
    noise = np.random.default_rng(0).normal(size=radius.shape)
    fits, weights = [], []
    for sky in (0.0, 300.0):
        image = 200 * np.exp(-(radius**2) / (2 * 0.4**2)) + noise + sky
        data = Data(*(np.asarray(part, np.float32) for part in (image, np.ones_like(image), np.ones((1, 1)))))
        with jax.numpy_rank_promotion("allow"):
            fits.append(fit_foreground(GALAXY, frame, data))
        weights.append(add_model_noise(data, fits[-1].light, 0.03))
    np.testing.assert_allclose(fits[1].image - fits[0].image, 300, atol=0.2)
    np.testing.assert_allclose(weights[1], weights[0], rtol=0.02)
    assert weights[1][0, 0] > 0.98  # a corner, where there is only sky
    assert weights[1][15, 15] < 0.2
