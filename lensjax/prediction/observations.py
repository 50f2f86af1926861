"""Classification of telescope images from the residual of a lens model."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from lensjax import fitting, modeling
from lensjax.data.images import ImageSet
from lensjax.data.npy import min_max_scale
from lensjax.data.residuals import FIT_VALUES, NO_FIT
from lensjax.errors import UserError
from lensjax.modeling.frame import binning, fitted_square
from lensjax.prediction.classifier import Classifier, Predictions
from lensjax.prediction.readers.sizes import crop_center, resample
from lensjax.prediction.trained_model import PredictionOptions

_OUT_OF_DOMAIN = "telescope image: the classifier was not validated on telescope images"
_SAME_SCALE = 0.02  # relative difference of two pixel scales that are treated as equal


def classify_observation(
    classifier: Classifier, observation: modeling.Observation, model: modeling.LensModel = modeling.GALAXY
) -> tuple[Predictions, modeling.LensModelFit]:
    """Fits a lens model to a telescope image and classifies its residual.

    The inputs of the classifier are the image without the foreground light and the sky, and the residual of
    the fit in standard deviations of the blank sky. In invalid pixels, they are the fitted lensed source and
    0. Pixels whose scale differs by at most 2 % from the classifier's are not resampled. All predictions are
    marked as outside the domain of the classifier, because it was not validated on telescope images.

    Args:
      classifier: a classifier that was trained with a lens fit.
      observation: the telescope image.
      model: the lens model.

    Returns:
      The prediction for this image, without a class if the fit failed, and the fit.

    Raises:
      UserError: if the classifier has no lens fit, the image is too small, its pixels are larger than the
        classifier's, or the image cannot be fitted (see `modeling.fit`).
    """
    config = classifier.trained.config
    if config.data.fit == NO_FIT:
        raise UserError("the classifier was trained without a lens fit; it cannot use the residual of a fit")
    size, scale = config.data.image_size, fitting.smooth_model(config.data.fit).pixel_scale
    zoom = observation.pixel_scale / scale
    if zoom > 1 + _SAME_SCALE:
        raise UserError(
            f"the pixels of the image ({observation.pixel_scale:g} arcsec) are larger than those of the "
            f"classifier ({scale:g} arcsec); train on images with this pixel scale"
        )
    if abs(zoom - 1) <= _SAME_SCALE:
        zoom = 1.0
    needed = math.ceil(size / zoom - 1e-6)
    if min(observation.image.shape) < needed:
        raise UserError(
            f"the image has {observation.image.shape} pixels of {observation.pixel_scale:g} arcsec; the "
            f"classifier needs a field of {size * scale:g} arcsec: at least {needed} x {needed} pixels"
        )
    factor = binning(observation.pixel_scale)
    side = math.ceil(needed / factor) * factor
    observation = _pad(observation, side)
    radius = side * observation.pixel_scale / 2
    fit = modeling.fit(observation, model, radius=radius)
    valid = observation.valid[fitted_square(observation, radius)]
    lensed = np.where(valid, fit.image - fit.lens_light - fit.sky, fit.lensed_source)
    residual = np.where(np.isfinite(fit.noise), fit.residual, 0) / np.sqrt(fit.sky_variance)
    parameters = fit.parameters
    sky = float(np.median(fit.noise[np.isfinite(fit.noise)])) * np.sqrt(fit.sky_variance)
    values = {
        "theta_E": fit.einstein_radius,
        "theta_E_sigma": fit.standard_errors.get("mass.0.theta_E", 0.0),
        "gamma1": parameters.get("mass.1.gamma1", 0.0),
        "gamma2": parameters.get("mass.1.gamma2", 0.0),
        "lens_x": parameters["mass.0.center_x"],
        "lens_y": parameters["mass.0.center_y"],
        "sky_noise": sky / max(float(np.ptp(lensed)), 1e-30),
        "reduced_chi_square": fit.reduced_chi_square,
        "fit_converged": float(fit.verdict.name != "failed"),
    }
    images = ImageSet(
        pixels=min_max_scale(_match(lensed, zoom, size))[None].astype(np.float32),
        scale=np.ones(1, np.float32),
        labels=np.zeros(1, np.int32),
        names=("",),
        # The mean of 1 / zoom^2 pixels of white noise has zoom times their standard deviation.
        residuals=np.clip(_match(residual, zoom, size) / zoom, -1e4, 1e4)[None].astype(np.float16),
        fit={name: np.array([values[name]], np.float32) for name in FIT_VALUES},
    )
    error = "" if fit.verdict.name != "failed" else f"the lens fit failed: {'; '.join(fit.verdict.reasons)}"
    return classifier.predict_fitted(images, [error], PredictionOptions(), note=_OUT_OF_DOMAIN), fit


def _pad(observation: modeling.Observation, side: int) -> modeling.Observation:
    """Adds invalid pixels on both sides of axes with fewer than `side` pixels."""
    margins = [2 * (max(0, math.ceil((side - length) / 2)),) for length in observation.image.shape]
    if not any(map(any, margins)):
        return observation
    image, noise = (np.pad(plane, margins, "edge") for plane in (observation.image, observation.noise))
    return dataclasses.replace(observation, image=image, noise=noise, mask=np.pad(observation.mask, margins))


def _match(image: np.ndarray, zoom: float, size: int) -> Float[np.ndarray, "{size} {size}"]:
    """The central part of an image, with the number and scale of the classifier's pixels."""
    return crop_center(image, size, size) if zoom == 1 else resample(image, zoom, size)
