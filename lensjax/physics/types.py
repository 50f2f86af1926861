"""Array types that the signatures of the package share."""

from typing import SupportsIndex

from jax.typing import ArrayLike
from jaxtyping import Array, Float

# One number: a parameter of a profile.
Scalar = Float[ArrayLike, ""]
# One value for each point; all arrays of a call have the same shape.
Grid = Float[Array, "*grid"]
# Pixels per side of a square image, or rows and columns.
Size = SupportsIndex | tuple[SupportsIndex, SupportsIndex]
