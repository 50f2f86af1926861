"""Lens fits of images in which the lens is off-center."""

import dataclasses

import numpy as np

from lensjax import fitting
from lensjax.data.images import ImageSet
from lensjax.data.residuals import NO_FIT, add_residuals, fit_images
from lensjax.fitting import Parameter

# Offsets in arcsec that show that a lens is off-center. In 310 simulated images of centered lenses, noise
# moves the fitted center by up to 0.003 arcsec, and substructure by up to 0.07: by more than 0.03 in 19 %,
# and by more than 0.06 in 1 % of the images with substructure. A free center then explains a small part of
# the excess chi-square; it explains more than half if the lens is off-center by a pixel (0.05 arcsec).
_OFFSET, _EXPLAINED_OFFSET, _SMOOTH_OFFSET = 0.06, 0.03, 0.01
_EXPLAINED = 0.5
_MAX_SMOOTH_CHI_SQUARE = 1.03  # reduced chi-square of an image without substructure
_CENTER = "mass.0.center_x", "mass.0.center_y"
_FREE = Parameter.fitted((-0.02, 0.02), (-0.6, 0.6))  # arcsec


def add_centered_residuals(images: ImageSet, model_name: str) -> ImageSet:
    """Fits a smooth lens to each image, after centering images in which the lens is off-center.

    If the model fixes the lens at the center of the image, and its fit does not converge or its residual
    exceeds the noise, the image is fitted again with a free center. If the lens is off-center, the image is
    shifted by whole pixels, with wrapped edges, and fitted with a free center; the remaining offset is below
    a pixel.

    Args:
      images: the images.
      model_name: name of the lens model, see `lensjax.fitting.smooth_model`, or "none".

    Returns:
      The images with residuals. `fit["lens_x"]` and `fit["lens_y"]` are relative to the original image.

    Raises:
      UserError: if the model is unknown.
    """
    images = add_residuals(images, model_name, keep=False)
    if model_name == NO_FIT or _CENTER[0] in fitting.smooth_model(model_name).nonlinear:
        return images
    assert images.fit is not None  # for the type checker: set by add_residuals
    assert images.residuals is not None
    model = fitting.smooth_model(model_name).with_parameters(dict.fromkeys(_CENTER, _FREE))
    is_smooth = images.fit["reduced_chi_square"] <= _MAX_SMOOTH_CHI_SQUARE
    rows = np.flatnonzero(~is_smooth | (images.fit["fit_converged"] == 0))
    if not len(rows):
        return images
    free = fit_images(images.subset(rows), model, test=False)
    offset = np.hypot(free["lens_x"], free["lens_y"])
    centered = {name: values[rows] for name, values in images.fit.items()}
    excess = centered["reduced_chi_square"] - 1
    decrease = centered["reduced_chi_square"] - free["reduced_chi_square"]
    explained = (centered["fit_converged"] == 0) | (decrease > _EXPLAINED * excess)
    smooth = free["reduced_chi_square"] < _MAX_SMOOTH_CHI_SQUARE
    limit = np.where(explained, np.where(smooth, _SMOOTH_OFFSET, _EXPLAINED_OFFSET), _OFFSET)
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
    refit = fit_images(shifted.subset(rows), model)
    residuals[rows] = refit.pop("residuals")
    for name, axis in (("lens_y", 0), ("lens_x", 1)):
        refit[name] = refit[name] + (steps[:, axis] * model.pixel_scale).astype(np.float32)
    for name, values in refit.items():
        fit[name][rows] = values
    return dataclasses.replace(shifted, residuals=residuals, fit=fit)
