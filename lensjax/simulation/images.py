"""Simulates a single image, a batch of new scenes, or a split of a data set."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key, Shaped

from lensjax.errors import UserError
from lensjax.seeds import check_seed
from lensjax.simulation import presets
from lensjax.simulation.checks import check_count
from lensjax.simulation.noise import add_noise
from lensjax.simulation.render import expected_counts
from lensjax.simulation.scene import CLASSES, Scene, draw_scene
from lensjax.simulation.settings import ExposureNoise, PhotonNoise, Preset

# The batch size is fixed, so that an image is bit-identical regardless of the total number of images.
BATCH_SIZE = 32
SCENE_BATCH_SIZE = 1_024
MAX_COUNT = 65_535
SPLITS = ("train", "validation", "test")

Split = Literal["train", "validation", "test"]


@dataclasses.dataclass(frozen=True)
class SimulatedImages:
    """Simulated images, each with its minimum subtracted, and their scenes.

    Attributes:
      pixels: 16-bit counts, or float32 for presets with Gaussian or no noise; `pixels / scale` is
        the image scaled to [0, 1].
      scale: largest pixel value of each image.
      labels: class of each image as an index into `CLASSES`; it is `i % 3` for image `i` of the split.
      scenes: true parameters; the first axis of every array runs over the images.
    """

    pixels: Shaped[np.ndarray, "n height width"]
    scale: Float[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    scenes: Scene


def simulate(
    key: Key[Array, ""], preset: Preset, substructure: str | Int[Array, ""]
) -> tuple[Float[Array, "height width"], Scene]:
    """Simulates one image and returns it with the true parameters of its scene.

    To simulate many images of one class, map over the keys:
    `jax.jit(jax.vmap(lambda key: simulate(key, preset, "vort")))(keys)`.

    Args:
      key: random key for the scene and the noise.
      preset: definition of the scenes; a static argument under `jax.jit`.
      substructure: class of the scene; see `draw_scene`.

    Returns:
      The image, scaled to [0, 1] like the published images, and its scene.

    Raises:
      UserError: if no class has that name.
    """
    pixels, scale, scene = observe(key, preset, substructure)
    return pixels / scale, scene


def observe(
    key: Key[Array, ""], preset: Preset, substructure: str | Int[Array, ""]
) -> tuple[Float[Array, "height width"], Float[Array, ""], Scene]:
    """Simulates one image like `simulate`, but does not scale it to [0, 1].

    Args:
      key: random key for the scene and the noise.
      preset: definition of the scenes; a static argument under `jax.jit`.
      substructure: class of the scene; see `draw_scene`.

    Returns:
      The counts above the minimum of the image (whole numbers for `PhotonNoise` and
      `ExposureNoise`), their maximum, and the scene.

    Raises:
      UserError: if no class has that name.
    """
    scene_key, noise_key = _scene_and_noise_key(key)
    scene = draw_scene(scene_key, preset, substructure)
    expected = expected_counts(scene, preset)
    image = add_noise(noise_key, expected, scene.exposure, preset.noise)
    pixels = image - image.min()
    # An image without photons stays 0 when it is scaled.
    scale = jnp.maximum(pixels.max(), jnp.finfo(pixels.dtype).tiny)
    return pixels, scale, scene


def fresh_batch(
    key: Key[Array, ""], preset: Preset, batch_size: int, *, first: Int[ArrayLike, ""] = 0
) -> dict[str, Array]:
    """Simulates a training batch of new scenes; batches with different keys share no scenes.

    A pure function. Under `jax.jit`, with `preset` and `batch_size` static, it runs on the device.

    Args:
      key: random key of the batch, such as the key of a run with the step number folded in.
      preset: definition of the scenes.
      batch_size: number of images; the classes alternate, starting with a random one.
      first: position of the first image if this is a shard of a larger batch.

    Returns:
      The inputs of a training step: `pixels` `[batch, height, width]` (uint16, or float32 for
      Gaussian or no noise), `scale`, `labels` (int32) and `weights` (all 1), each `[batch]`. The scale
      is NaN for an image with a pixel above 65,535, which 16 bits cannot hold.
    """
    label_key, scene_key = jax.random.split(key)
    positions = first + jnp.arange(batch_size, dtype=jnp.int32)
    labels = (jax.random.randint(label_key, (), 0, len(CLASSES)) + positions) % len(CLASSES)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(scene_key, positions)
    pixels, scale, _ = _observe_batch(keys, preset, labels)
    return {
        "pixels": _to_storage_dtype(pixels, preset),
        "scale": jnp.where(scale > MAX_COUNT, jnp.nan, scale) if _is_counted(preset) else scale,
        "labels": labels,
        "weights": jnp.ones(batch_size, jnp.float32),
    }


def simulate_split(
    preset: str | Preset,
    *,
    seed: int,
    split: Split,
    num_images: int,
    first: int = 0,
    report: Callable[[int], object] | None = None,
) -> SimulatedImages:
    """Simulates a split of a data set, or part of a split, with alternating classes.

    Image `i` depends only on the preset, the seed, the split and `i`.

    Args:
      preset: a preset or its name.
      seed: seed of the data set, 0 to 2^32 - 1.
      split: name of the split; splits with the same seed share no scenes.
      num_images: number of images.
      first: index of the first image, a multiple of `BATCH_SIZE`.
      report: called with the number of images completed since the last call.

    Returns:
      The images and their scenes.

    Raises:
      UserError: if no preset or split has that name, or the seed or the number is not allowed.
      ValueError: if `first` is not a multiple of `BATCH_SIZE`, or a pixel exceeds 16 bits.
    """
    check_count("num_images", num_images)
    if first % BATCH_SIZE or first < 0:
        raise ValueError(f"first={first} is not a multiple of {BATCH_SIZE}")
    definition = presets.preset(preset) if isinstance(preset, str) else preset
    key = _split_key(seed, split)
    parts: list[Any] = []
    pending: collections.deque[Any] = collections.deque()

    def finish() -> None:
        part = jax.device_get(pending.popleft())
        if not part[1].max() <= MAX_COUNT and part[0].dtype == np.uint16:
            largest = f"{part[1].max():.0f}" if np.isfinite(part[1].max()) else "too many"
            raise ValueError(f"a pixel has {largest} counts, but 16-bit images hold at most {MAX_COUNT:,}")
        number = min(BATCH_SIZE, num_images - len(parts) * BATCH_SIZE)
        parts.append(jax.tree.map(lambda leaf: leaf[:number], part))
        if report is not None:
            report(number)

    for start in range(first, first + num_images, BATCH_SIZE):
        pending.append(_split_batch(key, definition, start))
        # The device computes this batch while the previous batch is copied.
        if len(pending) > 1:
            finish()
    while pending:
        finish()
    pixels, scale, scenes = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return SimulatedImages(pixels, scale, scenes.label, scenes)


def draw_scenes(preset: str | Preset, *, seed: int, split: Split, num_images: int) -> Scene:
    """Draws the scenes of `simulate_split` without rendering their images.

    Args:
      preset: a preset or its name.
      seed: seed of the data set, 0 to 2^32 - 1.
      split: name of the split.
      num_images: number of scenes.

    Returns:
      The scenes; the first axis of every array runs over the images.

    Raises:
      UserError: if no preset or split has that name, or the seed or the number is not allowed.
    """
    check_count("num_images", num_images)
    definition = presets.preset(preset) if isinstance(preset, str) else preset
    key = _split_key(seed, split)
    parts = [
        jax.device_get(_scene_batch(key, definition, start))
        for start in range(0, num_images, SCENE_BATCH_SIZE)
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num_images], *parts)


def _split_key(seed: int, split: Split) -> Key[Array, ""]:
    if split not in SPLITS:
        raise UserError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    return jax.random.fold_in(jax.random.key(check_seed(seed)), SPLITS.index(split))


@functools.partial(jax.jit, static_argnames="preset")
def _scene_batch(key: Key[Array, ""], preset: Preset, first: int) -> Scene:
    """Scenes `first` to `first + SCENE_BATCH_SIZE - 1` of a split."""
    index = first + jnp.arange(SCENE_BATCH_SIZE)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)

    def draw(key: Key[Array, ""], label: Int[Array, ""]) -> Scene:
        return draw_scene(_scene_and_noise_key(key)[0], preset, label)

    return jax.vmap(draw)(keys, index % len(CLASSES))


def _scene_and_noise_key(key: Key[Array, ""]) -> tuple[Key[Array, ""], Key[Array, ""]]:
    scene_key, noise_key = jax.random.split(key)
    return scene_key, noise_key


@functools.partial(jax.jit, static_argnames="preset")
def _split_batch(key: Key[Array, ""], preset: Preset, first: int) -> tuple[Array, Array, Scene]:
    """Images `first` to `first + BATCH_SIZE - 1` of a split."""
    index = first + jnp.arange(BATCH_SIZE)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    pixels, scale, scenes = _observe_batch(keys, preset, index % len(CLASSES))
    return _to_storage_dtype(pixels, preset), scale, scenes


def _observe_batch(
    keys: Key[Array, " batch"], preset: Preset, labels: Int[Array, " batch"]
) -> tuple[Float[Array, "batch height width"], Float[Array, " batch"], Scene]:
    return jax.vmap(observe, (0, None, 0))(keys, preset, labels)


def _is_counted(preset: Preset) -> bool:
    return isinstance(preset.noise, PhotonNoise | ExposureNoise)


def _to_storage_dtype(pixels: Array, preset: Preset) -> Array:
    """Converts whole counts to 16-bit integers; leaves other pixels unchanged."""
    if _is_counted(preset):
        return jnp.minimum(pixels, MAX_COUNT).astype(jnp.uint16)
    return pixels
