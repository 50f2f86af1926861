"""Result of the lens fits of a batch."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LensFit:
    """Lens fits of a batch of images.

    All values are finite, whatever the images contain.

    Attributes:
      parameters: value of every fixed and fitted parameter of the model by name, such as "mass.0.theta_E",
        and of the amplitudes ("source.0.amp", "lens_light.0.amp") and the "sky" in the unit of the image.
      standard_errors: standard deviations of the fitted parameters, in the order of `SmoothModel.names`.
      correlation: their correlation matrix.
      reduced_chi_square: chi-square of the valid pixels per degree of freedom.
      model_image: image of the smooth model, in the unit of the image.
      residual: image minus model, in standard deviations of the noise; 0 for masked pixels.
      source_plane: source-plane position (x and y) of the ray through each pixel center, arcsec.
      gain: variance per unit of the flux of source and lens light, in the unit of the image.
      background_rms: standard deviation without this flux, in the unit of the image.
      converged: True if the fit reached its optimum and the image contains a lens that the model
        describes: the last step was expected to reduce chi-square by less than 0.3, no parameter except
        those of the lens light is at a bound, the source is detected, the reduced chi-square is below 8, at
        most ten pixels have the largest value, and there are more valid pixels than parameters.
    """

    parameters: dict[str, Float[Array, "*batch"]]
    standard_errors: Float[Array, "*batch free"]
    correlation: Float[Array, "*batch free free"]
    reduced_chi_square: Float[Array, "*batch"]
    model_image: Float[Array, "*batch height width 1"]
    residual: Float[Array, "*batch height width 1"]
    source_plane: Float[Array, "*batch height width 2"]
    gain: Float[Array, "*batch"]
    background_rms: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]

    @property
    def covariance(self) -> Float[Array, "*batch free free"]:
        """Covariance of the fitted parameters; in float64, except under `jit`, so that it is in range."""
        deviations = _widen(self.standard_errors)
        return _widen(self.correlation) * deviations[..., :, None] * deviations[..., None, :]

    @property
    def background_variance(self) -> Float[Array, "*batch"]:
        """Square of `background_rms`; in float64, except under `jit`, so that it is in range."""
        return _widen(self.background_rms) ** 2


def _widen(values: Any) -> Any:
    return values if isinstance(values, jax.core.Tracer) else np.asarray(values, np.float64)
