"""Result of the lens fits of a batch."""

import dataclasses

import jax
from jaxtyping import Array, Bool, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LensFit:
    """Lens fits of a batch of images.

    All values are finite, whatever the images contain.

    Attributes:
      parameters: value of every fixed and fitted parameter of the model by name, and of `amp` and `sky`
        in the unit of the image.
      covariance: covariance of the fitted parameters, in the order of `SmoothModel.names`.
      reduced_chi_square: chi-square of the valid pixels per degree of freedom.
      model_image: image of the smooth model, in the unit of the image.
      residual: image minus model, in standard deviations of the noise; 0 for masked pixels.
      source_plane: source-plane position (x and y) of the ray through each pixel center, arcsec.
      gain: variance per unit of the source's flux, in the unit of the image.
      background_variance: variance without source flux, in the squared unit of the image.
      converged: True if the fit reached its optimum and the image contains a lens that the model
        describes: the last step was expected to reduce chi-square by less than 0.3, no parameter is at
        a bound, the source is detected, and the reduced chi-square is below 8.
    """

    parameters: dict[str, Float[Array, "*batch"]]
    covariance: Float[Array, "*batch free free"]
    reduced_chi_square: Float[Array, "*batch"]
    model_image: Float[Array, "*batch height width 1"]
    residual: Float[Array, "*batch height width 1"]
    source_plane: Float[Array, "*batch height width 2"]
    gain: Float[Array, "*batch"]
    background_variance: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]
