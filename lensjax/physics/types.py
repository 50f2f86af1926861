"""Array types that the signatures of the package share."""

from jax.typing import ArrayLike
from jaxtyping import Array, Float

# One number: a parameter of a profile.
Scalar = Float[ArrayLike, ""]
# One value for each point; all arrays of a call have the same shape.
Grid = Float[Array, "*grid"]
