"""Augmentation compared with torchvision's definition, and the distribution of random draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax.training.augmentation import (
    apply_dihedral,
    random_dihedral,
    random_rotation,
    random_shift,
    rotate,
)


def torchvision_rotation(image, degrees):
    """Rotates as defined by torchvision: an affine grid in [-1, 1], sampled at the nearest pixel.

    Also returns the distance of each sampled coordinate from a tie between two pixels.
    """
    height, width = image.shape
    rotation = np.deg2rad(degrees)
    theta = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    x = np.arange(width) - 0.5 * width + 0.5
    y = np.arange(height) - 0.5 * height + 0.5
    grid = np.stack(np.meshgrid(x, y), -1) @ theta.T / [0.5 * width, 0.5 * height]
    sample = ((grid + 1) * [width, height] - 1) / 2
    nearest = np.rint(sample).astype(int)
    inside = ((nearest >= 0) & (nearest < [width, height])).all(-1)
    column, row = np.where(inside[..., None], nearest, 0).transpose(2, 0, 1)
    return np.where(inside, image[row, column], 0), np.abs(sample - np.floor(sample) - 0.5).min(-1)


@pytest.mark.parametrize("size", [64, 97, 150])
@pytest.mark.parametrize("degrees", [-10, -3.7, -0.2, 1e-3, 0.9, 5.55, 10, 37, 123])
def test_rotation_matches_torchvision_away_from_ties(size, degrees):
    image = np.random.default_rng(0).uniform(0, 1, (size, size)).astype(np.float32)
    expected, from_tie = torchvision_rotation(image, degrees)
    found = rotate(jnp.asarray(image)[..., None], jnp.float32(np.deg2rad(degrees)))[..., 0]
    clear = from_tie > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(np.asarray(found)[clear], expected[clear])


def test_rotation_by_zero_is_the_identity():
    image = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (150, 150, 1)), jnp.float32)
    np.testing.assert_array_equal(rotate(image, jnp.float32(0)), image)


def test_positive_angle_is_counterclockwise():
    image = np.random.default_rng(0).uniform(0, 1, (31, 31)).astype(np.float32)
    found = rotate(jnp.asarray(image)[..., None], jnp.float32(np.pi / 2))[..., 0]
    np.testing.assert_array_equal(found, np.rot90(image))


def test_random_angles_are_uniform_within_the_limit():
    # Bright pixels far out on the x axis show the angle of rotation.
    size, radius, limit = 201, 100, 10.0
    image = np.zeros((size, size, 1), np.float32)
    image[100, 198:] = 1
    keys = jax.random.split(jax.random.key(3), 400)
    rotated = np.asarray(random_rotation(jnp.broadcast_to(image, (400, *image.shape)), keys, limit))
    profile = rotated[..., 0].sum(2)
    rows = (profile * np.arange(size)).sum(1) / np.maximum(profile.sum(1), 1)
    angles = np.rad2deg(np.arcsin((100 - rows) / (radius - 1)))
    assert np.abs(angles).max() < limit + 0.5
    uniform_deviation = 2 * limit / np.sqrt(12)
    np.testing.assert_allclose(angles.std(), uniform_deviation, rtol=0.1)
    np.testing.assert_allclose(angles.mean(), 0, atol=4 * uniform_deviation / np.sqrt(400))
    assert len(np.unique(rows)) > 20


def test_limit_of_zero_returns_the_same_images():
    images = jnp.ones((2, 8, 8, 1))
    keys = jax.random.split(jax.random.key(0), 2)
    assert random_rotation(images, keys, 0.0) is images


def symmetries(image):
    """An image under the eight symmetries of the square."""
    return [np.rot90(side, turns) for side in (image, np.fliplr(image)) for turns in range(4)]


def test_elements_are_the_eight_symmetries():
    image = np.random.default_rng(0).uniform(0, 1, (6, 6, 2)).astype(np.float32)
    found = [np.asarray(apply_dihedral(jnp.asarray(image), jnp.asarray(index))) for index in range(8)]
    np.testing.assert_array_equal(found[0], image)
    matches = [
        [index for index, expected in enumerate(symmetries(image)) if (expected == one).all()]
        for one in found
    ]
    assert sorted(matches) == [[index] for index in range(8)]


def test_random_symmetries_are_uniform_and_keep_channels_together():
    image = np.random.default_rng(0).uniform(0, 1, (5, 5)).astype(np.float32)
    images = np.broadcast_to(np.stack([image, 2 * image], -1), (800, 5, 5, 2))
    keys = jax.random.split(jax.random.key(0), 800)
    found = np.asarray(random_dihedral(jnp.asarray(images), keys))
    np.testing.assert_array_equal(found[..., 1], 2 * found[..., 0])
    counts = [(found[..., 0] == expected).all((1, 2)).sum() for expected in symmetries(image)]
    assert sum(counts) == 800
    assert min(counts) > 60  # 100 each, with a standard deviation of 9
    assert max(counts) < 145


def test_random_shifts_are_uniform_with_zero_padding():
    image = np.random.default_rng(0).uniform(1, 2, (6, 6, 2)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 900)
    shifted = np.asarray(random_shift(jnp.broadcast_to(image, (900, 6, 6, 2)), keys, 1))
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    counts = [
        (shifted == padded[row : row + 6, column : column + 6]).all((1, 2, 3)).sum()
        for row in range(3)
        for column in range(3)
    ]
    assert sum(counts) == 900
    assert min(counts) > 60  # 100 each, with a standard deviation of 9
    images = jnp.asarray(image)[None]
    assert random_shift(images, keys[:1], 0) is images
