"""Training images that stay on disk; Grain reads batches ahead of the training steps."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32, Int, Int32, Shaped

from lensjax.data.batches import Batch
from lensjax.data.images import CLASSES, ImageSet

_THREADS = 8
_BATCHES_AHEAD = 8


@dataclasses.dataclass(frozen=True)
class StreamedImages:
    """Images on disk; only their labels are in memory.

    Attributes:
      read: reads the images of the given rows of the stored split, in that order.
      rows: rows of the stored split that belong to the set.
      labels: index into `CLASSES`, for each row.
      shape: height and width, pixels.
    """

    read: Callable[[Int[np.ndarray, " some"]], ImageSet]
    rows: Int[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.rows)

    def class_counts(self) -> tuple[int, ...]:
        """Number of images in each class, in the order of `CLASSES`."""
        return tuple(np.bincount(self.labels, minlength=len(CLASSES)).tolist())

    def subset(self, indices: Int[np.ndarray, " subset"]) -> "StreamedImages":
        """Image set with only the images at `indices`, in that order."""
        return dataclasses.replace(self, rows=self.rows[indices], labels=self.labels[indices])

    def load(self) -> ImageSet:
        """Reads all images into memory."""
        return self.read(self.rows)

    def batches(
        self, rows: Int[np.ndarray, "batches batch"], weights: Float32[np.ndarray, "batches batch"]
    ) -> Iterator[Batch]:
        """Yields batches of the given rows of the set; threads read them ahead.

        Args:
          rows: indices into the set.
          weights: weight of each row, 1 or 0.
        """
        import grain  # imported only if images are streamed

        source = _BatchSource(self, rows, weights)
        ahead = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BATCHES_AHEAD)
        return iter(grain.MapDataset.source(source).to_iter_dataset(ahead))


@dataclasses.dataclass(frozen=True)
class _BatchSource:
    """Batches as a random-access data source for Grain."""

    images: StreamedImages
    rows: Shaped[np.ndarray, "batches batch"]
    weights: Float32[np.ndarray, "batches batch"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Batch:
        found = self.images.read(self.images.rows[self.rows[number]])
        return Batch(
            pixels=found.pixels,
            scale=found.scale.astype(np.float32, copy=False),
            labels=found.labels.astype(np.int32, copy=False),
            weights=self.weights[number],
        )
