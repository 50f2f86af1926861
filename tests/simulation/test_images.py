"""Simulated images: determinism, noise and storage."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics, simulation
from lensjax.errors import UserError

COMMON_TEST = simulation.preset("common_test")


def tiny(preset):
    """Preset with a small image and two masses, which compiles fast."""
    return dataclasses.replace(
        preset,
        substructure=physics.SubstructurePrior(
            dataclasses.replace(preset.substructure.subhalos, number=2),
            dataclasses.replace(preset.substructure.vortex, number=2),
        ),
        instrument=dataclasses.replace(preset.instrument, image_size=33),
    )


@pytest.fixture(scope="module")
def images():
    return simulation.simulate_split("common_test", seed=1, split="train", num_images=120)


def test_image_depends_only_on_seed_split_and_index(images):
    fewer = simulation.simulate_split("common_test", seed=1, split="train", num_images=40)
    np.testing.assert_array_equal(fewer.pixels, images.pixels[:40])
    np.testing.assert_array_equal(fewer.scale, images.scale[:40])
    jax.tree.map(
        lambda one, other: np.testing.assert_array_equal(one, other[:40]), fewer.scenes, images.scenes
    )


@pytest.mark.parametrize("other", [{"seed": 2}, {"split": "validation"}])
def test_seeds_and_splits_share_no_scenes(images, other):
    options = {"seed": 1, "split": "train"} | other
    different = simulation.simulate_split("common_test", num_images=40, **options)
    assert not set(different.scenes.theta_E.tolist()) & set(images.scenes.theta_E.tolist())


def test_classes_alternate_and_match_scene_labels(images):
    np.testing.assert_array_equal(images.labels, np.arange(120) % 3)
    np.testing.assert_array_equal(images.scenes.label, images.labels)


def test_counts_range_from_zero_to_scale(images):
    assert images.pixels.dtype == np.uint16
    assert (images.pixels.min((1, 2)) == 0).all()
    np.testing.assert_array_equal(images.pixels.max((1, 2)), images.scale)


def test_reported_progress_adds_up_to_total():
    seen = []
    simulation.simulate_split("common_test", seed=0, split="test", num_images=35, report=seen.append)
    assert sum(seen) == 35


def test_part_of_split_matches_whole_split(images):
    part = simulation.simulate_split(COMMON_TEST, seed=1, split="train", num_images=30, first=64)
    np.testing.assert_array_equal(part.pixels, images.pixels[64:94])
    np.testing.assert_array_equal(part.scenes.masses, images.scenes.masses[64:94])
    with pytest.raises(ValueError, match="multiple of 32"):
        simulation.simulate_split(COMMON_TEST, seed=1, split="train", num_images=3, first=1)


def test_noise_is_poisson_and_uncorrelated(images):
    """Standardized residuals of noise-free images have mean 0, variance 1 and no correlation."""
    scenes = jax.tree.map(lambda leaf: leaf[:32], images.scenes)
    rates = jax.jit(jax.vmap(lambda scene: simulation.expected_counts(scene, COMMON_TEST)))(scenes)
    residuals = []
    for pixels, rate in zip(images.pixels, np.asarray(rates, np.float64), strict=False):
        # Add the most likely value of the subtracted minimum.
        offset = round(float(np.mean(rate - pixels)))
        residuals.append((pixels + offset - rate) / np.sqrt(rate))
    residuals = np.asarray(residuals)
    assert residuals.mean() == pytest.approx(0, abs=0.01)
    assert residuals.var() == pytest.approx(1, abs=0.01)
    neighbors = np.mean(residuals[:, :, 1:] * residuals[:, :, :-1])
    assert neighbors == pytest.approx(0, abs=0.005)


def test_simulate_is_reproducible_alone_and_under_vmap():
    small = tiny(COMMON_TEST)
    keys, labels = jax.random.split(jax.random.key(4), 3), jnp.arange(3)
    compiled = jax.jit(lambda key: simulation.simulate(key, small, "vort"))
    several = jax.jit(jax.vmap(simulation.simulate, (0, None, 0)), static_argnums=1)
    image, scene = compiled(keys[2])
    same_image, same_scene = compiled(keys[2])
    np.testing.assert_array_equal(image, same_image)
    jax.tree.map(np.testing.assert_array_equal, scene, same_scene)
    images, scenes = several(keys, small, labels)
    assert images.shape == (3, 33, 33)
    assert (images.min(), images.max()) == (0, 1)
    assert (scene.label, scene.masses.shape) == (2, (2, 3))
    np.testing.assert_allclose(scenes.theta_E[2], scene.theta_E, rtol=1e-6)
    # Different rounding of the rate can change a count by one.
    assert np.mean(images[2] != image) < 0.01


@pytest.mark.parametrize("name", ["model_1", "model_2", "euclid_like"])
def test_fresh_batch_depends_only_on_key(name):
    small = tiny(simulation.preset(name))
    make = jax.jit(simulation.fresh_batch, static_argnums=(1, 2))
    one, same, other = (make(jax.random.key(seed), small, 7) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert not (np.asarray(one["pixels"]) == np.asarray(other["pixels"])).all((1, 2)).any()
    assert one["pixels"].dtype == (np.uint16 if name == "model_1" else np.float32)
    np.testing.assert_array_equal(one["pixels"].max((1, 2)).astype(np.float32), one["scale"])
    np.testing.assert_array_equal(one["pixels"].min((1, 2)), 0)
    assert sorted(np.bincount(one["labels"])) == [2, 2, 3]
    np.testing.assert_array_equal(one["weights"], 1)


def test_gaussian_noise_variance_is_photons_plus_background():
    noise = simulation.preset("euclid_like").noise
    rate = jnp.full((300, 300), 400.0)
    image = simulation.add_noise(jax.random.key(0), rate, jnp.ones(()), noise)
    assert image.mean() == pytest.approx(400, abs=0.5)
    assert image.var() == pytest.approx(400 + noise.background_rms**2, rel=0.02)


@pytest.mark.parametrize("name", ["model_2", "model_3"])
def test_noise_free_images_are_expected_counts_above_minimum(name):
    small = tiny(simulation.preset(name))
    images = simulation.simulate_split(small, seed=0, split="test", num_images=6)
    expected = np.asarray(jax.vmap(lambda scene: simulation.expected_counts(scene, small))(images.scenes))
    assert images.pixels.dtype == np.float32
    shifted = expected - expected.min((1, 2), keepdims=True)
    np.testing.assert_allclose(images.pixels, shifted, rtol=0, atol=1e-5 * expected.max())


def test_exposure_noise_variance_is_sum_of_three_terms():
    noise = simulation.preset("model_1").noise
    rate, exposure = jnp.full((300, 300), 0.1), jnp.asarray(2000.0)
    image = np.asarray(simulation.add_noise(jax.random.key(0), rate, exposure, noise))
    np.testing.assert_array_equal(image, np.rint(image))
    assert image.mean() == pytest.approx(200, abs=0.5)
    assert image.var() == pytest.approx(200 + (200 + 20.0**2), rel=0.02)


def test_too_many_counts_raise_an_error():
    bright = dataclasses.replace(tiny(COMMON_TEST), source=dataclasses.replace(COMMON_TEST.source, amp=1e6))
    with pytest.raises(ValueError, match="16-bit images hold at most 65,535"):
        simulation.simulate_split(bright, seed=0, split="train", num_images=3)


def test_rate_outside_the_sampler_range_gives_nan():
    rate = jnp.asarray([3.0, -1.0, np.nan, 1e7])
    image = simulation.add_noise(jax.random.key(0), rate, jnp.ones(()), COMMON_TEST.noise)
    np.testing.assert_array_equal(np.isnan(image), [False, True, True, True])
    counts = simulation.add_noise(
        jax.random.key(0), jnp.asarray([3, 40, 7, 9]), jnp.ones(()), COMMON_TEST.noise
    )
    assert counts.dtype == jnp.float32


def test_too_bright_fresh_images_have_nan_scale():
    bright = dataclasses.replace(tiny(COMMON_TEST), source=dataclasses.replace(COMMON_TEST.source, amp=1e6))
    batch = jax.jit(simulation.fresh_batch, static_argnums=(1, 2))(jax.random.key(0), bright, 3)
    assert np.isnan(batch["scale"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "split is 'val'; expected one of train"),
        ({"seed": -1}, "seed is -1; expected"),
        ({"seed": 2**32}, "seed is 4294967296; expected a whole number from 0 to 4294967295"),
        ({"seed": 0.5}, "seed is 0.5; expected"),
        ({"num_images": 0}, "num_images is 0; expected"),
    ],
)
def test_invalid_split_option_raises_an_error(options, message):
    for function in (simulation.simulate_split, simulation.draw_scenes):
        with pytest.raises(UserError, match=message):
            function(COMMON_TEST, **({"seed": 0, "split": "train", "num_images": 3} | options))


def test_index_of_no_class_raises_an_error():
    with pytest.raises(UserError, match="substructure is 3; expected an index from 0 to 2"):
        simulation.draw_scene(jax.random.key(0), COMMON_TEST, jnp.asarray(3))
