"""tools/studies/wrong_domains.py: images of other kinds."""

import numpy as np
import pytest
from helpers.studies import load_study

OTHERS = load_study("wrong_domains").OTHERS


@pytest.mark.parametrize("name", OTHERS)
def test_every_image_is_drawn_separately(name):
    images = OTHERS[name](5, np.random.default_rng(0))
    assert images.shape == (5, 150, 150)
    assert len({image.tobytes() for image in images}) == 5
