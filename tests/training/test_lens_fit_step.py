"""Batches with residuals as a second channel: gathering, preparation and the training step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lensjax.data.batches import iterate_batches
from lensjax.data.images import ImageSet
from lensjax.data.preparation import prepare
from lensjax.models import LensFitNet
from lensjax.training.parallel import AXIS, parallelize, replicate, shard
from lensjax.training.recipe import Recipe
from lensjax.training.state import initial_state
from lensjax.training.step import decode, train_step

SIZE = 32


def image_set(number):
    generator = np.random.default_rng(0)
    return ImageSet(
        generator.integers(0, 800, (number, SIZE, SIZE)).astype(np.uint16),
        np.full(number, 800, np.float32),
        generator.integers(0, 3, number).astype(np.int32),
        tuple(map(str, range(number))),
        generator.normal(size=(number, SIZE, SIZE)).astype(np.float16),
    )


def test_residuals_are_the_second_channel_of_a_batch():
    images = image_set(5)
    (batch,) = iterate_batches(images, np.array([3, 0, 4]), 4)
    channels = np.asarray(decode(batch))
    rows = [3, 0, 4, 3]
    np.testing.assert_array_equal(channels[..., 0], images.images()[rows, ..., 0])
    np.testing.assert_array_equal(channels[..., 1], images.residuals[rows].astype(np.float32))
    assert channels.dtype == np.float32


def test_preparation_crops_both_channels_and_stretches_the_image():
    channels = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (2, 30, 30, 2)), jnp.float32)
    found = prepare(channels, crop=10, stretch="sqrt")
    np.testing.assert_allclose(found[..., 0], np.sqrt(channels[:, 10:20, 10:20, 0]), rtol=1e-6)
    np.testing.assert_array_equal(found[..., 1], channels[:, 10:20, 10:20, 1])
    for stretch in ("none", "band_pass"):
        found = prepare(channels, crop=10, stretch=stretch)
        np.testing.assert_array_equal(found[..., 1], channels[:, 10:20, 10:20, 1])


def test_padding_and_devices_do_not_change_a_step():
    """Seven images padded to eight on two devices give the same step as seven images on one device."""
    optimizer = optax.sgd(0.1)
    state = initial_state(
        LensFitNet(width=4, num_blocks=0),
        optimizer,
        jax.random.key(0),
        image_size=SIZE,
        channels=2,
        terms=("cross_entropy",),
    )
    images = image_set(7)
    (padded,) = iterate_batches(images, np.arange(7), 8)
    plain = {name: value[:7] for name, value in padded.items()}

    def double(tree):
        return jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64) if leaf.dtype == np.float32 else leaf,
            jax.device_get(tree),
        )

    def step(axis_name):
        return functools.partial(
            train_step,
            model=LensFitNet(width=4, num_blocks=0, axis_name=axis_name),
            optimizer=optimizer,
            recipe=Recipe(crop=24, max_rotation=10.0, dihedral=True),
        )

    devices = jax.devices()[:2]
    with jax.enable_x64(True):
        state, padded, plain = double((state, dict(padded), plain))
        one, _ = jax.jit(step(None))(state, plain, jax.random.key(1))
        mapped = parallelize(step(AXIS), devices, in_axes=(None, 0, None))
        two, _ = mapped(replicate(state, devices), shard(padded, devices), jax.random.key(1))
        one, two = jax.device_get((one, two))
    assert float(one.totals["loss"]) > 0
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), one, two)
