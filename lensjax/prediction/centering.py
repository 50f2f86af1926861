"""Lens fits of images whose lens is not at the image's center."""

import dataclasses

import numpy as np

from lensjax import fitting
from lensjax.data.images import ImageSet
from lensjax.data.residuals import NO_FIT, add_residuals, fit_images
from lensjax.fitting import Parameter

# arcsec. Substructure moves the fitted center of a centered lens by up to 0.055 arcsec (120 images), noise by
# up to 0.003 arcsec.
_MAX_OFFSET, _MAX_NOISE_OFFSET = 0.03, 0.01
_NOISE_ONLY = 1.03  # reduced chi-square of an image without substructure
_RANGE = (-0.6, 0.6)  # arcsec


def add_centered_residuals(images: ImageSet, model_name: str) -> ImageSet:
    """Fits a smooth lens to each image; images with a displaced lens are shifted to its center first.

    If the model assumes that the lens is at the center of the image, and its fit leaves more than noise, the
    center is fitted, too. If it is displaced, the image is shifted by whole pixels, its edges wrap around,
    and the residual of the fit with a free center is used: the remaining offset is less than a pixel.

    Args:
      images: the images.
      model_name: name of the lens model, see `lensjax.fitting.smooth_model`, or "none".

    Returns:
      The images with residuals. `fit["lens_x"]` and `fit["lens_y"]` are relative to the original image.

    Raises:
      UserError: if the model is unknown.
    """
    images = add_residuals(images, model_name, keep=False)
    if model_name == NO_FIT or fitting.smooth_model(model_name).lens_x.free:
        return images
    assert images.fit is not None  # for the type checker: set by add_residuals
    assert images.residuals is not None
    model = dataclasses.replace(
        fitting.smooth_model(model_name),
        lens_x=Parameter.fitted((-0.02, 0.02), _RANGE),
        lens_y=Parameter.fitted((-0.02, 0.02), _RANGE),
    )
    doubtful = (images.fit["reduced_chi_square"] > _NOISE_ONLY) | (images.fit["fit_converged"] == 0)
    rows = np.flatnonzero(doubtful)
    if not len(rows):
        return images
    free = fit_images(images.subset(rows), model)
    offset = np.hypot(free["lens_x"], free["lens_y"])
    limit = np.where(free["reduced_chi_square"] < _NOISE_ONLY, _MAX_NOISE_OFFSET, _MAX_OFFSET)
    displaced = (free["fit_converged"] == 1) & (offset > limit)
    rows, free = rows[displaced], {name: values[displaced] for name, values in free.items()}
    if not len(rows):
        return images
    centers = np.stack([free["lens_y"], free["lens_x"]], 1)
    steps = np.rint(centers / model.pixel_scale).astype(int)
    pixels, residuals = images.pixels.copy(), images.residuals.copy()
    fit = {name: values.copy() for name, values in images.fit.items()}
    for row, step in zip(rows, steps, strict=True):
        pixels[row] = np.roll(pixels[row], -step, (0, 1))
    shifted = dataclasses.replace(images, pixels=pixels)
    again = fit_images(shifted.subset(rows), model)
    residuals[rows] = again.pop("residuals")
    for name, axis in (("lens_y", 0), ("lens_x", 1)):
        again[name] = again[name] + (steps[:, axis] * model.pixel_scale).astype(np.float32)
    for name, values in again.items():
        fit[name][rows] = values
    return dataclasses.replace(shifted, residuals=residuals, fit=fit)
