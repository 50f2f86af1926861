"""Batches of a fixed size from a set of images, in an order that a seed decides."""

from collections.abc import Iterator
from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Float16, Float32, Int, Int32, Shaped

from lensjax.data.images import ImageSet


class Batch(TypedDict):
    """What one step of training or evaluation is given; several runs have an axis after `batch`.

    Attributes:
      pixels: `[batch, height, width]`, as the set keeps them; an image is `pixels / scale`.
      scale: what one is in `pixels`, for each image.
      labels: index into `CLASSES`.
      weights: 1 for an image of the set, 0 for a repeated one that fills up the last batch.
      residuals: `[batch, height, width]`, where the set has them: what a lens fit leaves over, in
        standard deviations.
    """

    pixels: Shaped[np.ndarray, "batch *runs height width"]
    scale: Float32[np.ndarray, "batch *runs"]
    labels: Int32[np.ndarray, "batch *runs"]
    weights: Float32[np.ndarray, "batch *runs"]
    residuals: NotRequired[Float16[np.ndarray, "batch *runs height width"]]


def epoch_order(seed: int, epoch: int, num_images: int) -> Int[np.ndarray, " n"]:
    """The order in which an epoch sees the images: a permutation that follows from seed and epoch."""
    return np.random.default_rng((seed, epoch)).permutation(num_images)


def batches(image_set: ImageSet, order: Int[np.ndarray, " n"], batch_size: int) -> Iterator[Batch]:
    """Yields the images in `order`, `batch_size` at a time.

    The last batch is filled up by its own first images, which then weigh 0; no image is left out.

    Args:
      image_set: the images.
      order: indices into the set, such as `epoch_order` gives.
      batch_size: images in each batch.
    """
    for rows, weights in zip(*rows_of_batches(order, batch_size), strict=True):
        yield gather(image_set, rows, weights)


def rows_of_batches(
    order: Int[np.ndarray, " n"], batch_size: int
) -> tuple[Int32[np.ndarray, "batches batch"], Float32[np.ndarray, "batches batch"]]:
    """The rows of an image set that make up each batch, and what they weigh, as `batches` has them.

    Args:
      order: indices into the set, such as `epoch_order` gives.
      batch_size: images in each batch.
    """
    number = -(-len(order) // batch_size)
    rows = np.asarray(
        [
            np.resize(order[i * batch_size : (i + 1) * batch_size], batch_size)
            for i in range(number)
        ],
        np.int32,
    ).reshape(number, batch_size)
    weights = (np.arange(number * batch_size) < len(order)).astype(np.float32)
    return rows, weights.reshape(number, batch_size)


def gather(
    image_set: ImageSet,
    rows: Int[np.ndarray, "batch *runs"] | slice,
    weights: Float32[np.ndarray, "batch *runs"],
) -> Batch:
    """The batch of some rows of a set.

    Args:
      image_set: the images.
      rows: indices into the set, or a slice of it; an axis over several runs adds one to every array.
      weights: of each row, 1 or 0.
    """
    batch = Batch(
        pixels=image_set.pixels[rows],
        scale=image_set.scale[rows].astype(np.float32, copy=False),
        labels=image_set.labels[rows].astype(np.int32, copy=False),
        weights=weights,
    )
    if image_set.residuals is not None:
        batch["residuals"] = image_set.residuals[rows]
    return batch
