"""Batches of fixed size from a set of images, in an order given by a seed."""

from collections.abc import Iterator
from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Float16, Float32, Int, Int32, Shaped

from lensjax.data.images import ImageSet


class Batch(TypedDict):
    """Input of one training or evaluation step.

    A batch of several runs has an additional axis after `batch`.

    Attributes:
      pixels: `[batch, height, width]`, in the type of the image set. An image is `pixels / scale`.
      scale: pixel value of brightness 1, for each image.
      labels: index into `CLASSES`.
      weights: 1 for an image of the set, 0 for a repeated image that pads the last batch.
      residuals: `[batch, height, width]`, residuals of the lens fit in standard deviations, if the set has
        them.
    """

    pixels: Shaped[np.ndarray, "batch *runs height width"]
    scale: Float32[np.ndarray, "batch *runs"]
    labels: Int32[np.ndarray, "batch *runs"]
    weights: Float32[np.ndarray, "batch *runs"]
    residuals: NotRequired[Float16[np.ndarray, "batch *runs height width"]]


def epoch_order(seed: int, epoch: int, num_images: int) -> Int[np.ndarray, " n"]:
    """Order of the images in an epoch: a permutation that depends only on seed and epoch."""
    return np.random.default_rng((seed, epoch)).permutation(num_images)


def iterate_batches(image_set: ImageSet, order: Int[np.ndarray, " n"], batch_size: int) -> Iterator[Batch]:
    """Yields the images in `order`, `batch_size` at a time.

    The last batch is padded with its own first images, with weight 0. No image is dropped.

    Args:
      image_set: the images.
      order: indices into the set, for example from `epoch_order`.
      batch_size: images per batch.
    """
    for rows, weights in zip(*batch_rows(order, batch_size), strict=True):
        yield gather(image_set, rows, weights)


def batch_rows(
    order: Int[np.ndarray, " n"], batch_size: int
) -> tuple[Int32[np.ndarray, "batches batch"], Float32[np.ndarray, "batches batch"]]:
    """Rows of the image set in each batch, and their weights; see `iterate_batches`.

    Args:
      order: indices into the set, for example from `epoch_order`.
      batch_size: images per batch.
    """
    number = -(-len(order) // batch_size)
    rows = np.asarray(
        [np.resize(order[i * batch_size : (i + 1) * batch_size], batch_size) for i in range(number)], np.int32
    ).reshape(number, batch_size)
    weights = (np.arange(number * batch_size) < len(order)).astype(np.float32)
    return rows, weights.reshape(number, batch_size)


def gather(
    image_set: ImageSet,
    rows: Int[np.ndarray, "batch *runs"] | slice,
    weights: Float32[np.ndarray, "batch *runs"],
) -> Batch:
    """Batch of the given rows of an image set.

    Args:
      image_set: the images.
      rows: indices into the set, or a slice of it. An axis over runs becomes an axis of every array.
      weights: weight of each row, 1 or 0.
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
