"""What a fit gives back."""

import dataclasses

import jax
from jaxtyping import Array, Bool, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LensFit:
    """What the fits of a batch found. Every number is finite, whatever the images were.

    Attributes:
      parameters: every parameter by its name in `SmoothModel`, known ones too, and `amp` and `sky` in the
        image's unit.
      covariance: of the free parameters, in the order of `SmoothModel.names`.
      reduced_chi_square: chi-square of the valid pixels over their number less that of free parameters.
      model_image: the smooth model, in the image's unit.
      residual: image less model, in standard deviations of the model's noise; 0 where a pixel is masked.
      source_plane: x and y in the source plane of the ray through each pixel's centre, arcsec.
      gain: variance for each unit of the source's flux, in the image's unit.
      background_variance: variance where there is no source, in the image's unit squared.
      converged: whether the image holds a lens of the model's kind and the fit came to its optimum: the last
        step gained less than 0.3 in chi-square, no parameter is at a bound, the source is seen and the
        reduced chi-square is below 8.
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
