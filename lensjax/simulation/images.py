"""Whole sets of simulated images with their truth."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt16

from lensjax.simulation.noise import poisson_counts
from lensjax.simulation.presets import Preset, preset
from lensjax.simulation.render import expected_counts
from lensjax.simulation.scene import Scene, draw_scene

BATCH = (
    32  # scenes rendered at once; fixed, so that a scene's bits never depend on how many there are
)
NUM_CLASSES = 3
SPLITS = ("train", "validation", "test")

Split = Literal["train", "validation", "test"]


@dataclasses.dataclass(frozen=True)
class SimulatedImages:
    """Simulated images, as counts above each image's least one, and their scenes.

    Attributes:
      counts: photon counts less the image's smallest; an image scaled from 0 to 1 is `counts / scale`.
      scale: the largest of an image's counts.
      labels: class of each image: 0, 1, 2, 0, 1, 2 and so on.
      scenes: the truth of each image; every array has the images along its first axis.
    """

    counts: UInt16[np.ndarray, "n height width"]
    scale: Float[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    scenes: Scene


def simulate(
    preset_name: str,
    *,
    seed: int,
    split: Split,
    num_images: int,
    report: Callable[[int], object] | None = None,
) -> SimulatedImages:
    """Simulates a split of a data set, the classes in turn.

    Image `i` follows from preset, seed, split and `i` alone.

    Args:
      preset_name: one of `presets.PRESETS`.
      seed: not negative.
      split: splits with the same seed share no scene.
      num_images: how many.
      report: called with the number of images done since the last call.

    Raises:
      UserError: there is no such preset.
    """
    kind = preset(preset_name)
    size = kind.instrument.image_size
    split_number = SPLITS.index(split)
    key = jax.random.fold_in(jax.random.key(seed), split_number)
    counts = np.empty((num_images, size, size), np.uint16)
    scale = np.empty(num_images, np.float32)
    scenes: list[Scene] = []

    def add_noise(index: int, expected: np.ndarray) -> None:
        image = poisson_counts(expected, (seed, split_number, index))
        counts[index] = image - image.min()
        scale[index] = counts[index].max()

    with ThreadPoolExecutor() as threads:
        under_way: collections.deque[list[Future[None]]] = collections.deque()
        for first in range(0, num_images, BATCH):
            batch_scenes, expected = render_batch(key, kind, first)
            number = min(BATCH, num_images - first)
            scenes.append(jax.tree.map(lambda leaf, n=number: np.asarray(leaf)[:n], batch_scenes))
            host = np.asarray(expected)[:number]
            under_way.append(
                [threads.submit(add_noise, first + i, image) for i, image in enumerate(host)]
            )
            if len(under_way) > 2:
                _finish(under_way.popleft(), report)
        while under_way:
            _finish(under_way.popleft(), report)
    labels = np.arange(num_images, dtype=np.int32) % NUM_CLASSES
    stacked = jax.tree.map(lambda *leaves: np.concatenate(leaves), *scenes)
    return SimulatedImages(counts, scale, labels, stacked)


@functools.partial(jax.jit, static_argnames="kind")
def render_batch(
    key: Key[Array, ""], kind: Preset, first: int
) -> tuple[Scene, Float[Array, "batch height width"]]:
    """Scenes number `first` to `first + BATCH - 1` of a split, and their expected counts."""

    def one(index: Int[Array, ""]) -> tuple[Scene, Float[Array, "height width"]]:
        scene = draw_scene(jax.random.fold_in(key, index), kind, index % NUM_CLASSES)
        return scene, expected_counts(scene, kind)

    return jax.vmap(one)(first + jnp.arange(BATCH))


def _finish(futures: list[Future[None]], report: Callable[[int], object] | None) -> None:
    for future in futures:
        future.result()
    if report is not None:
        report(len(futures))
