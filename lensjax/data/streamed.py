"""Training images that stay on disk: Grain reads each batch ahead of the step that needs it."""

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
    """A set of images of which only the labels are in memory.

    Attributes:
      read: gives the images of some rows of the file, in their order.
      rows: of the file, that make up the set.
      labels: index into `CLASSES` of each.
      shape: height and width, pixels.
    """

    read: Callable[[Int[np.ndarray, " some"]], ImageSet]
    rows: Int[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.rows)

    def class_counts(self) -> tuple[int, ...]:
        """How many images each class has, in the order of `CLASSES`."""
        return tuple(np.bincount(self.labels, minlength=len(CLASSES)).tolist())

    def subset(self, indices: Int[np.ndarray, " kept"]) -> "StreamedImages":
        """The same set with only the images at `indices`, in that order."""
        return dataclasses.replace(self, rows=self.rows[indices], labels=self.labels[indices])

    def loaded(self) -> ImageSet:
        """The images, in memory."""
        return self.read(self.rows)

    def batches(
        self,
        rows: Int[np.ndarray, "batches batch"],
        weights: Float32[np.ndarray, "batches batch"],
    ) -> Iterator[Batch]:
        """The batches of these rows of the set, read ahead by threads.

        Args:
          rows: indices into the set.
          weights: of each, 1 or 0.
        """
        import grain  # only who streams needs it

        source = _Batches(self, rows, weights)
        ahead = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BATCHES_AHEAD)
        return iter(grain.MapDataset.source(source).to_iter_dataset(ahead))


@dataclasses.dataclass(frozen=True)
class _Batches:
    """The batches as what Grain reads from."""

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
