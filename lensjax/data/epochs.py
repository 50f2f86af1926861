"""The batches of an epoch, in an order that follows from the seed."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from lensjax.data.batches import epoch_order, gather, rows_of_batches
from lensjax.data.fresh import FreshImages
from lensjax.data.splits import TrainingImages
from lensjax.data.streamed import StreamedImages


def epoch_rows(
    num_images: int, batch_size: int, seeds: Sequence[int], epoch: int
) -> tuple[Int32[np.ndarray, "steps batch *runs"], Float32[np.ndarray, "steps batch *runs"]]:
    """Which images each step of an epoch sees, and their weights.

    Args:
      num_images: images in the set.
      batch_size: images in a batch.
      seeds: of the runs that are trained side by side; several have a last axis of their own.
      epoch: number of the epoch, from 0.
    """
    runs = [rows_of_batches(epoch_order(seed, epoch, num_images), batch_size) for seed in seeds]
    if len(runs) == 1:
        return runs[0]
    rows, weights = zip(*runs, strict=True)
    return np.stack(rows, axis=-1), np.stack(weights, axis=-1)


def epoch_batches(
    images: TrainingImages,
    batch_size: int,
    seeds: Sequence[int],
    epoch: int,
    *,
    share: slice = slice(None),
    start: int = 0,
) -> Iterator[Mapping[str, Any]]:
    """The batches of an epoch.

    Args:
      images: the training images. Freshly simulated ones follow from `config.data.seed`, so that all runs
        see the same.
      batch_size, seeds, epoch: see `epoch_rows`.
      share: the rows of each batch that are wanted.
      start: batches to skip, for a run that resumes within an epoch.
    """
    if isinstance(images, FreshImages):
        first, stop, _ = share.indices(batch_size)
        num_steps = math.ceil(len(images) / batch_size)
        for step in range(epoch * num_steps + start, (epoch + 1) * num_steps):
            yield images.batch(step, stop - first, first)
        return
    rows, weights = epoch_rows(len(images), batch_size, seeds, epoch)
    rows, weights = rows[start:, share], weights[start:, share]
    if isinstance(images, StreamedImages):
        yield from images.batches(rows, weights)
    else:
        yield from map(functools.partial(gather, images), rows, weights)
