"""A source of shapelets: Hermite polynomials times a Gaussian."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax.errors import UserError
from lensjax.modeling.components import Values, to_floats
from lensjax.modeling.parameter import Parameter

_COORDINATE = Parameter.fitted((0.0, 0.0), (-2.0, 2.0))
_SCALE = Parameter.fitted((0.05, 0.2), (0.01, 2.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapelets:
    """Shapelets: Hermite polynomials times a Gaussian, in the order of lenstronomy's SHAPELETS.

    Attributes:
      order: largest order; there are (order + 1) (order + 2) / 2 amplitudes of any sign.
      max_order: `fitting.fit` increases the order in steps of 4 up to this, while the residual of the arcs
        is much larger than the noise; None to keep the order.
      beta: scale, arcsec.
      center_x, center_y: position of the center, arcsec.

    Raises:
      UserError: if the order is not from 0 to 30, or `max_order` not from `order` to 30.

    Reference: Refregier 2003, MNRAS 338, 35.
    """

    nonnegative: ClassVar[bool] = False
    order: int = 8
    max_order: int | None = None
    beta: Parameter = _SCALE
    center_x: Parameter = _COORDINATE
    center_y: Parameter = _COORDINATE

    def __post_init__(self) -> None:
        if not 0 <= self.order <= 30:
            raise UserError(f"the order of Shapelets is {self.order}; expected 0 to 30")
        if self.max_order is not None and not self.order <= self.max_order <= 30:
            raise UserError(
                f"max_order of Shapelets is {self.max_order}; expected {self.order} to 30 or None"
            )

    @property
    def size(self) -> int:
        """Number of amplitudes."""
        return (self.order + 1) * (self.order + 2) // 2

    def columns(self, x: Array, y: Array, values: Values) -> Float[Array, "size *grid"]:
        """Images of the dimensionless shapelets."""
        along_x, along_y = (jnp.stack(each) for each in self._profiles(x, y, values))
        first, second = self._orders
        return along_x[first] * along_y[second]

    def image(self, x: Array, y: Array, values: Values, amplitudes: Float[Array, "size"]) -> Array:
        """The sum of the columns times the amplitudes.

        One axis is summed after the other, in loops that XLA compiles to a single pass over the image.
        """
        along_x, along_y = self._profiles(x, y, values)
        matrix = jnp.zeros((self.order + 1, self.order + 1), amplitudes.dtype)
        matrix = matrix.at[self._orders].set(amplitudes)
        total = jnp.zeros_like(x)
        for second, profile in enumerate(along_y):
            part = sum(matrix[first, second] * along_x[first] for first in range(self.order + 1 - second))
            total += part * profile
        return total

    def _profiles(self, x: Array, y: Array, values: Values) -> list[list[Float[Array, "*grid"]]]:
        """Hermite functions along x and along y."""
        centered = x - values["center_x"], y - values["center_y"]
        return [_hermite_functions(each / values["beta"], self.order) for each in centered]

    @property
    def _orders(self) -> tuple[np.ndarray, np.ndarray]:
        """Orders along x and y of each amplitude."""
        pairs = [(n - m, m) for n in range(self.order + 1) for m in range(n + 1)]
        along_x, along_y = np.transpose(pairs)
        return along_x, along_y

    def to_lenstronomy(self, values: Values, amplitudes: np.ndarray) -> list[tuple[str, dict[str, float]]]:
        """Names and arguments of lenstronomy's light profiles with the same light."""
        return [("SHAPELETS", {"n_max": self.order, "amp": amplitudes.tolist(), **to_floats(values)})]


def _hermite_functions(z: Float[Array, "*grid"], order: int) -> list[Float[Array, "*grid"]]:
    """Orthonormal Hermite functions of orders 0 to `order`, by their recurrence."""
    functions = [np.pi**-0.25 * jnp.exp(-jnp.minimum(z**2 / 2, 80.0))]
    previous = jnp.zeros_like(z)
    for n in range(1, order + 1):
        following = math.sqrt(2 / n) * z * functions[-1] - math.sqrt((n - 1) / n) * previous
        previous = functions[-1]
        functions.append(following)
    return functions
