"""Batches of a training epoch."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lensjax.data.batches import batch_rows, epoch_order, gather
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
    """Yields the batches of an epoch.

    Args:
      images: the training images. Freshly simulated images depend only on `config.data.seed`; all runs get
        the same images, without an axis over the runs.
      batch_size: images per batch.
      seeds: seeds of the runs that are trained side by side. Batches of several runs have an axis over the
        runs after `batch`.
      epoch: number of the epoch, from 0.
      share: rows of each batch to return.
      start: number of batches to skip, for a run that resumes within an epoch.
    """
    if isinstance(images, FreshImages):
        first, stop, _ = share.indices(batch_size)
        num_steps = math.ceil(len(images) / batch_size)
        for step in range(epoch * num_steps + start, (epoch + 1) * num_steps):
            yield images.batch(step, stop - first, first)
        return
    runs = [batch_rows(epoch_order(seed, epoch, len(images)), batch_size) for seed in seeds]
    if len(runs) == 1:
        rows, weights = runs[0]
    else:
        rows, weights = (np.stack(parts, axis=-1) for parts in zip(*runs, strict=True))
    rows, weights = rows[start:, share], weights[start:, share]
    if isinstance(images, StreamedImages):
        yield from images.batches(rows, weights)
    else:
        yield from map(functools.partial(gather, images), rows, weights)
