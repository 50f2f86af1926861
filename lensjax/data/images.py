"""Labelled lens images as compact arrays: what every source of data becomes."""

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

    An image is `pixels / scale`. Images that are whole counts divided by their largest count (the
    published data are) are kept without loss as 16-bit counts, with that largest count as the scale;
    any other set is kept as float32 with a scale of one.

    Attributes:
      pixels: `[n, height, width]`, uint16 counts or float32 brightness, smallest value 0.
      scale: what one is in `pixels`, for each image.
      labels: index into `CLASSES`.
      names: where each image came from, for messages, galleries and predictions.
      residuals: what the fit of a smooth lens leaves over, in standard deviations; None without fits.
      fit: numbers that the fits found, by name, one an image; None without fits.
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
                f"an image set needs as many scales, labels and names as images: {len(self.pixels)} "
                f"images, {len(self.scale)} scales, {len(self.labels)} labels, {len(self.names)} names"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Int[np.ndarray, " batch"] | slice = slice(None)) -> np.ndarray:
        """The images at `indices`, float32 `[batch, height, width, 1]`, from 0 to 1."""
        scaled = self.pixels[indices].astype(np.float32) / self.scale[indices, None, None]
        return scaled[..., None]

    def class_counts(self) -> tuple[int, ...]:
        """How many images each class has, in the order of `CLASSES`."""
        return tuple(np.bincount(self.labels, minlength=len(CLASSES)).tolist())

    def subset(self, indices: Int[np.ndarray, " kept"]) -> "ImageSet":
        """The same set with only the images at `indices`, in that order."""
        return ImageSet(
            self.pixels[indices],
            self.scale[indices],
            self.labels[indices],
            tuple(self.names[i] for i in indices),
            None if self.residuals is None else self.residuals[indices],
            self.fit and {name: values[indices] for name, values in self.fit.items()},
        )
