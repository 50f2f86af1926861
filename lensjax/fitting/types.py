"""Array types that the signatures of the package share."""

from jaxtyping import Array, Bool, Float

Number = Float[Array, ""]
Image = Float[Array, "rows columns"]
Mask = Bool[Array, "rows columns"]  # True for valid pixels
Free = Float[Array, " nonlinear"]  # values of the parameters `SmoothModel.nonlinear`
Theta = Float[Array, " all"]  # all parameters: those in Free, those of masses, then amplitudes and sky
Matrix = Float[Array, "all all"]
