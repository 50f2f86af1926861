"""Test-time augmentation: mean over the eight views of an image under the symmetries of the square (D4)."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from lensjax.data.images import ImageSet
from lensjax.errors import UserError

CHOICES = ("none", "d4")


def check(config: ConfigDict, workdir: object) -> None:
    """Checks that a classifier was trained on rotated images.

    All lenses of a data set can share an orientation, as in the Common Test. A classifier trained only on
    that orientation misclassifies rotated images, and the mean over the views would be less accurate.

    Args:
      config: the full config of the run.
      workdir: the run's folder, for the error message.

    Raises:
      UserError: if the run was trained without `config.augmentation.dihedral`.
    """
    if not config.augmentation.dihedral:
        raise UserError(
            f"{workdir}: --tta=d4 needs a classifier trained on rotated images; train one with "
            "--config.augmentation.dihedral=True, or omit --tta"
        )


def views(images: ImageSet) -> Iterator[ImageSet]:
    """The image set under each of the eight symmetries of the square, identity first.

    Residuals of a lens fit are transformed with their images: fits commute with the symmetries.

    Args:
      images: square images.
    """
    for element in range(8):
        yield dataclasses.replace(
            images,
            pixels=transform(images.pixels, element),
            residuals=None if images.residuals is None else transform(images.residuals, element),
        )


def transform(pixels: np.ndarray, element: int) -> np.ndarray:
    """Applies a symmetry of the square to images, as `training.augmentation.apply_dihedral` does.

    Args:
      pixels: square images `[n, height, width]`.
      element: 0 to 7; its bits flip the rows, flip the columns, and then transpose.
    """
    if element & 1:
        pixels = pixels[:, ::-1]
    if element & 2:
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels.swapaxes(1, 2) if element & 4 else pixels)
