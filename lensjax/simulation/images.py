"""Simulated images: one scene, a batch that is never repeated, or a whole set with its truth."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key, Shaped

from lensjax.simulation.noise import with_noise
from lensjax.simulation.presets import GaussianNoise, Preset, preset
from lensjax.simulation.render import expected_counts
from lensjax.simulation.scene import Scene, draw_scene

BATCH = (
    32  # scenes rendered at once; fixed, so that a scene's bits never depend on how many there are
)
SCENE_BATCH = 1_024
MAX_COUNT = 65_535
NUM_CLASSES = 3
SPLITS = ("train", "validation", "test")

Split = Literal["train", "validation", "test"]


@dataclasses.dataclass(frozen=True)
class SimulatedImages:
    """Simulated images, each less its smallest pixel, and their scenes.

    Attributes:
      pixels: 16-bit counts, or float32 for presets whose noise is Gaussian; an image scaled from 0 to 1
        is `pixels / scale`.
      scale: the largest of an image's pixels.
      labels: class of each image: 0, 1, 2, 0, 1, 2 and so on.
      scenes: the truth of each image; every array has the images along its first axis.
    """

    pixels: Shaped[np.ndarray, "n height width"]
    scale: Float[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    scenes: Scene


def simulate(
    key: Key[Array, ""], preset: Preset, label: Int[Array, ""] | int
) -> tuple[Float[Array, "height width"], Scene]:
    """An image of a scene of a class, and the scene: every true parameter.

    For many at once: `jax.vmap(simulate, (0, None, 0))(keys, preset, labels)`, under `jax.jit`.

    Args:
      key: scene and noise follow from it.
      preset: the kind of scene; not an array, so static under `jax.jit`.
      label: class: 0 no substructure, 1 subhalos (`sphere`), 2 vortex (`vort`).

    Returns:
      The image, its smallest pixel 0 and its largest 1 as in the published data, and its scene.
    """
    pixels, scale, scene = observe(key, preset, label)
    return pixels / scale, scene


def observe(
    key: Key[Array, ""], preset: Preset, label: Int[Array, ""] | int
) -> tuple[Float[Array, "height width"], Float[Array, ""], Scene]:
    """The same as `simulate`, with the image in two parts: pixels above the smallest, and their largest.

    Args:
      key: scene and noise follow from it.
      preset: the kind of scene.
      label: class, see `simulate`.

    Returns:
      Counts less the image's smallest (whole numbers for photon noise), the largest of these, and the scene.
    """
    scene_key, noise_key = _scene_and_noise_key(key)
    scene = draw_scene(scene_key, preset, label)
    expected = expected_counts(scene, preset)
    image = with_noise(noise_key, expected, scene.exposure, preset.noise)
    pixels = image - image.min()
    # An image without a single photon is all 0, and stays it when it is scaled.
    scale = jnp.maximum(pixels.max(), jnp.finfo(pixels.dtype).tiny)
    return pixels, scale, scene


def fresh_batch(
    key: Key[Array, ""], preset: Preset, batch_size: int, *, first: Int[ArrayLike, ""] = 0
) -> dict[str, Array]:
    """A batch to train on, of scenes drawn for it: another key never gives the same again.

    Pure, and under `jax.jit` with `preset` and `batch_size` static it runs on the device between steps.

    Args:
      key: everything follows from it, such as the run's key with the step's number folded in.
      preset: the kind of scene.
      batch_size: images, of the classes in turn, beginning with a random one.
      first: place of the first of them in a larger batch, of which this is a share.

    Returns:
      What a step of training takes: `pixels` `[batch, height, width]` (uint16, or float32 where noise is
      Gaussian), `scale`, `labels` (int32) and `weights` (all 1).
    """
    label_key, scene_key = jax.random.split(key)
    places = first + jnp.arange(batch_size, dtype=jnp.int32)
    labels = (jax.random.randint(label_key, (), 0, NUM_CLASSES) + places) % NUM_CLASSES
    keys = jax.vmap(jax.random.fold_in, (None, 0))(scene_key, places)
    pixels, scale, _ = _observe_all(keys, preset, labels)
    return {
        "pixels": _compact(pixels, preset),
        "scale": scale,
        "labels": labels,
        "weights": jnp.ones(batch_size, jnp.float32),
    }


def simulate_split(
    kind: str | Preset,
    *,
    seed: int,
    split: Split,
    num_images: int,
    first: int = 0,
    report: Callable[[int], object] | None = None,
) -> SimulatedImages:
    """Simulates a split of a data set, or a part of it, the classes in turn.

    Image `i` follows from preset, seed, split and `i` alone.

    Args:
      kind: a preset or the name of one.
      seed: not negative.
      split: splits with the same seed share no scene.
      num_images: how many.
      first: number of the first, a multiple of `BATCH`.
      report: called with the number of images done since the last call.

    Raises:
      UserError: there is no preset of that name.
      ValueError: `first` is no multiple of `BATCH`, or a pixel has more counts than 16 bits hold.
    """
    if first % BATCH:
        raise ValueError(f"first={first}: has to be a multiple of {BATCH}")
    definition = preset(kind) if isinstance(kind, str) else kind
    key = _split_key(seed, split)
    parts: list[Any] = []
    under_way: collections.deque[Any] = collections.deque()

    def finish() -> None:
        part = jax.device_get(under_way.popleft())
        if part[1].max() > MAX_COUNT and part[0].dtype == np.uint16:
            raise ValueError(f"{part[1].max():.0f} counts are too many: at most 65,535 are kept")
        number = min(BATCH, num_images - len(parts) * BATCH)
        parts.append(jax.tree.map(lambda leaf: leaf[:number], part))
        if report is not None:
            report(number)

    for start in range(first, first + num_images, BATCH):
        under_way.append(_split_batch(key, definition, start))
        # While one batch is copied, the next is computed.
        if len(under_way) > 1:
            finish()
    while under_way:
        finish()
    pixels, scale, scenes = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return SimulatedImages(pixels, scale, scenes.label, scenes)


def split_scenes(kind: str | Preset, *, seed: int, split: Split, num_images: int) -> Scene:
    """The scenes of `simulate_split` without their images, which takes next to no time.

    Args:
      kind: a preset or the name of one.
      seed: not negative.
      split: which of the seed's independent streams of scenes.
      num_images: how many.

    Raises:
      UserError: there is no preset of that name.
    """
    definition = preset(kind) if isinstance(kind, str) else kind
    key = _split_key(seed, split)
    parts = [
        jax.device_get(_scene_batch(key, definition, start))
        for start in range(0, num_images, SCENE_BATCH)
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num_images], *parts)


def _split_key(seed: int, split: Split) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.key(seed), SPLITS.index(split))


@functools.partial(jax.jit, static_argnames="kind")
def _scene_batch(key: Key[Array, ""], kind: Preset, first: int) -> Scene:
    """Scenes number `first` to `first + SCENE_BATCH - 1` of a split."""
    index = first + jnp.arange(SCENE_BATCH)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)

    def draw(key: Key[Array, ""], label: Int[Array, ""]) -> Scene:
        return draw_scene(_scene_and_noise_key(key)[0], kind, label)

    return jax.vmap(draw)(keys, index % NUM_CLASSES)


def _scene_and_noise_key(key: Key[Array, ""]) -> tuple[Key[Array, ""], Key[Array, ""]]:
    scene_key, noise_key = jax.random.split(key)
    return scene_key, noise_key


@functools.partial(jax.jit, static_argnames="kind")
def _split_batch(key: Key[Array, ""], kind: Preset, first: int) -> tuple[Array, Array, Scene]:
    """Images number `first` to `first + BATCH - 1` of a split."""
    index = first + jnp.arange(BATCH)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    pixels, scale, scenes = _observe_all(keys, kind, index % NUM_CLASSES)
    return _compact(pixels, kind), scale, scenes


def _observe_all(
    keys: Key[Array, " batch"], kind: Preset, labels: Int[Array, " batch"]
) -> tuple[Float[Array, "batch height width"], Float[Array, " batch"], Scene]:
    return jax.vmap(observe, (0, None, 0))(keys, kind, labels)


def _compact(pixels: Array, kind: Preset) -> Array:
    """Whole counts as 16 bits."""
    if isinstance(kind.noise, GaussianNoise):
        return pixels
    return jnp.minimum(pixels, MAX_COUNT).astype(jnp.uint16)
