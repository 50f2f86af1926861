"""The batches of an epoch, in an order that follows from the seed."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lensjax.data.batches import epoch_order, gather, rows_of_batches
from lensjax.data.fresh import FreshImages
from lensjax.data.splits import TrainingImages
from lensjax.data.streamed import StreamedImages


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
      batch_size: images in a batch.
      seeds: of the runs that are trained side by side; the batches of several have an axis over them after
        `batch`.
      epoch: number of the epoch, from 0.
      share: the rows of each batch that are wanted.
      start: batches to skip, for a run that resumes within an epoch.
    """
    if isinstance(images, FreshImages):
        first, stop, _ = share.indices(batch_size)
        num_steps = math.ceil(len(images) / batch_size)
        for step in range(epoch * num_steps + start, (epoch + 1) * num_steps):
            yield images.batch(step, stop - first, first)
        return
    runs = [rows_of_batches(epoch_order(seed, epoch, len(images)), batch_size) for seed in seeds]
    if len(runs) == 1:
        rows, weights = runs[0]
    else:
        rows, weights = (np.stack(parts, axis=-1) for parts in zip(*runs, strict=True))
    rows, weights = rows[start:, share], weights[start:, share]
    if isinstance(images, StreamedImages):
        yield from images.batches(rows, weights)
    else:
        yield from map(functools.partial(gather, images), rows, weights)
