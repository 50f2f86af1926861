"""Labeled lens images as compact arrays, the common form of all data sources."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float, Float16, Float32, Int, Integer, Shaped

CLASSES = ("no", "sphere", "vort")
DISPLAY_NAMES = ("No Substructure", "Subhalo", "Vortex")

Split = Literal["train", "validation", "test"]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images and labels of one split.

    An image is `pixels / scale`. Images that are integer counts divided by their largest count, such as the
    published data, are stored without loss as 16-bit counts, with the largest count as the scale. All other
    images are stored as float32 with a scale of 1.

    Attributes:
      pixels: `[n, height, width]`, uint16 counts or float32 brightness, smallest value 0.
      scale: pixel value of brightness 1, for each image.
      labels: index into `CLASSES`.
      names: origin of each image, for messages, galleries and predictions.
      residuals: residuals of the smooth lens fits, in standard deviations; None without fits.
      fit: results of the fits by name, one value per image; None without fits.

    Raises:
      ValueError: if the number of scales, labels or names differs from that of images.
    """

    pixels: Shaped[np.ndarray, "n height width"]
    scale: Float[np.ndarray, " n"]
    labels: Integer[np.ndarray, " n"]
    names: tuple[str, ...]
    residuals: Float16[np.ndarray, "n height width"] | None = None
    fit: Mapping[str, Float32[np.ndarray, " n"]] | None = None

    def __post_init__(self) -> None:
        if not len(self.pixels) == len(self.scale) == len(self.labels) == len(self.names):
            raise ValueError(
                f"an image set needs one scale, label and name per image: {len(self.pixels)} images, "
                f"{len(self.scale)} scales, {len(self.labels)} labels, {len(self.names)} names"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Int[np.ndarray, " batch"] | slice = slice(None)) -> np.ndarray:
        """Images at `indices`, float32 `[batch, height, width, 1]`, from 0 to 1."""
        scaled = self.pixels[indices].astype(np.float32) / self.scale[indices, None, None]
        return scaled[..., None]

    def class_counts(self) -> tuple[int, ...]:
        """Number of images in each class, in the order of `CLASSES`."""
        return tuple(np.bincount(self.labels, minlength=len(CLASSES)).tolist())

    def subset(self, indices: Int[np.ndarray, " subset"]) -> "ImageSet":
        """Image set with only the images at `indices`, in that order."""
        return ImageSet(
            self.pixels[indices],
            self.scale[indices],
            self.labels[indices],
            tuple(self.names[i] for i in indices),
            None if self.residuals is None else self.residuals[indices],
            self.fit and {name: values[indices] for name, values in self.fit.items()},
        )
