"""Light of the lens galaxy: a fit robust against arcs and neighbors, and weights that include its error."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from lensjax.errors import UserError
from lensjax.modeling.frame import Data, Frame, pixel_distances, pixel_positions, with_weight
from lensjax.modeling.model import LensModel, light_only
from lensjax.modeling.variable_projection import (
    Fit,
    Settings,
    evaluate_model,
    fit_model,
    model_columns,
    model_images,
)

CLIPPING = (8.0, 5.0, 3.5, 3.0, 3.0)  # standard deviations of the noise, per round
CORE = 0.35  # arcsec; residuals closer to the center belong to the lens galaxy
ROBUST = Settings(steps=8, tolerance=1.0, prior_weight=1.0)
SUPPRESSION = 0.05  # factor of the weight of clipped pixels
NOT_FINITE = "no model has finite values; check the image, the noise map and the point-spread function"


class Foreground(NamedTuple):
    """Result of `fit_foreground`.

    Attributes:
      model: the foreground light and sky of the lens model.
      fit: the last fit of this model.
      image: foreground light and sky, [rows, columns], in units of the data.
      light: foreground light without the sky, [rows, columns], in units of the data.
      columns: images of unit amplitude of the light and the sky, for active amplitudes, [n, pixels].
      center: x and y of the first galaxy, arcsec; (0, 0) without foreground light.
    """

    model: LensModel
    fit: Fit
    image: np.ndarray
    light: np.ndarray
    columns: np.ndarray
    center: tuple[float, float]

    @property
    def values(self) -> dict[str, float]:
        """Fitted parameters of the foreground light by name."""
        return dict(zip(self.model.fitted, map(float, self.fit.free), strict=True))


def fit_foreground(model: LensModel, frame: Frame, data: Data) -> Foreground:
    """Fits the foreground light alone; pixels with excess light outside of the core are down-weighted.

    Args:
      model: a lens model; only its foreground light and sky are used.
      frame, data: geometry and values of the pixels.

    Returns:
      The foreground light.

    Raises:
      UserError: if the model has no finite values.
    """
    galaxy = light_only(model)
    center = _brightest_position(frame, data) if model.lens_light else (0.0, 0.0)
    start = galaxy.start({"lens_light.0.center_x": center[0], "lens_light.0.center_y": center[1]})
    weight, fit = data.weight, None
    for threshold in CLIPPING if model.lens_light else ():
        fit = fit_model(galaxy, frame, with_weight(data, weight), start, ROBUST)
        if fit is None:
            break
        start = fit.free
        center = _center(galaxy, fit)
        image = _sum(model_images(galaxy, frame, data, fit.free, fit.amplitudes))
        excess = (data.image - image) * data.weight
        clipped = (excess > threshold) & (pixel_distances(frame, center) > CORE)
        clipped = ndimage.binary_dilation(clipped, np.ones((3, 3)))
        weight = np.where(clipped, SUPPRESSION, 1.0) * data.weight
    final = fit if fit is not None else evaluate_model(galaxy, frame, with_weight(data, weight), start)
    if final is None:
        raise UserError(NOT_FINITE)
    return render_foreground(galaxy, final, center, frame, data)


def render_foreground(
    galaxy: LensModel, fit: Fit, center: tuple[float, float], frame: Frame, data: Data
) -> Foreground:
    """Renders fitted foreground light, also on other pixels of the same observation.

    Args:
      galaxy: a model without mass and source.
      fit: a fit of this model.
      center: x and y of the first galaxy, arcsec.
      frame, data: the pixels; only the point-spread function of the data is used.

    Returns:
      The foreground light on these pixels.
    """
    images = model_images(galaxy, frame, data, fit.free, fit.amplitudes)
    columns = model_columns(galaxy, frame, data, fit.free)[fit.active].reshape(fit.active.sum(), -1)
    return Foreground(galaxy, fit, _sum(images), images["lens_light"], columns, center)


def add_model_noise(data: Data, light: np.ndarray, fraction: float) -> np.ndarray:
    """Weights for noise that includes, in quadrature, `fraction` times the foreground light.

    Args:
      data: the pixels.
      light: the model of the foreground light without the sky, in units of the data.
      fraction: relative error of that model.

    Returns:
      1 / standard deviation; 0 for pixels that are not used.
    """
    used = data.weight > 0
    variance = np.where(used, 1 / np.where(used, data.weight, 1) ** 2, 1)
    variance = variance + (fraction * np.maximum(light, 0)) ** 2
    return np.where(used, 1 / np.sqrt(variance), 0)


def _sum(images: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(sum(images.values()))


def _center(galaxy: LensModel, fit: Fit) -> tuple[float, float]:
    values = galaxy.values(jnp.asarray(fit.free))
    return float(values["lens_light.0.center_x"]), float(values["lens_light.0.center_y"])


def _brightest_position(frame: Frame, data: Data) -> tuple[float, float]:
    """Position of the brightest pixel of the smoothed image in the central part of the frame, arcsec."""
    x, y = pixel_positions(frame)
    smooth = ndimage.gaussian_filter(np.where(data.weight > 0, data.image, 0), 0.1 / frame.pixel_scale)
    near = pixel_distances(frame, (frame.center_x, frame.center_y)) < 0.25 * frame.rows * frame.pixel_scale
    row, column = np.unravel_index(np.argmax(np.where(near, smooth, -np.inf)), smooth.shape)
    return float(x[row, column]), float(y[row, column])
