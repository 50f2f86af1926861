"""Test-time augmentation: the mean answer to the eight views of an image that a square's symmetries give."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from lensjax.data.images import ImageSet
from lensjax.errors import UserError

CHOICES = ("none", "d4")


def check(config: ConfigDict, workdir: object) -> None:
    """Refuses a classifier that never saw images turned by a right angle.

    The lenses of a data set can all lie in one direction, as those of the Common Test do; a classifier that
    was trained on them alone takes a turned one for something else, and the mean would be worse.

    Args:
      config: the whole config of the run.
      workdir: what to call the run.

    Raises:
      UserError: the run was trained without `config.augmentation.dihedral`.
    """
    if not config.augmentation.dihedral:
        raise UserError(
            f"{workdir}: --tta=d4 needs a classifier that was trained on turned images; train one with "
            "--config.augmentation.dihedral=True, or leave --tta out"
        )


def views(images: ImageSet) -> Iterator[ImageSet]:
    """The set as it is, and as each of the square's seven other symmetries shows it.

    Residuals of a lens fit are turned with their images: the fit of a turned image is the turned fit.

    Args:
      images: square images.
    """
    for element in range(8):
        yield dataclasses.replace(
            images,
            pixels=turned(images.pixels, element),
            residuals=None if images.residuals is None else turned(images.residuals, element),
        )


def turned(pixels: np.ndarray, element: int) -> np.ndarray:
    """Images `[n, height, width]` turned by quarters and mirrored, as `training.augmentation.dihedral` does.

    Args:
      pixels: square images.
      element: 0 to 7: its bits mirror the rows, mirror the columns, and then exchange rows and columns.
    """
    if element & 1:
        pixels = pixels[:, ::-1]
    if element & 2:
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels.swapaxes(1, 2) if element & 4 else pixels)
