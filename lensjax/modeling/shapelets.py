"""A source of shapelets: Hermite functions times a Gaussian."""

import dataclasses
from typing import ClassVar

import jax
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
    """Shapelets: Hermite functions times a Gaussian, in the order of lenstronomy's SHAPELETS.

    Attributes:
      order: largest order; there are (order + 1) (order + 2) / 2 amplitudes of any sign.
      beta: scale, arcsec.
      center_x, center_y: position of the center, arcsec.

    Raises:
      UserError: if the order is not from 0 to 30.

    Reference: Refregier 2003, MNRAS 338, 35.
    """

    nonnegative: ClassVar[bool] = False
    order: int = 8
    beta: Parameter = _SCALE
    center_x: Parameter = _COORDINATE
    center_y: Parameter = _COORDINATE

    def __post_init__(self) -> None:
        if not 0 <= self.order <= 30:
            raise UserError(f"the order of Shapelets is {self.order}; expected 0 to 30")

    @property
    def size(self) -> int:
        """Number of amplitudes."""
        return (self.order + 1) * (self.order + 2) // 2

    def columns(self, x: Array, y: Array, values: Values) -> Float[Array, "size *grid"]:
        """Images of the dimensionless shapelets."""
        along_x, along_y = self._profiles(x, y, values)
        first, second = self._orders
        return along_x[first] * along_y[second]

    def image(self, x: Array, y: Array, values: Values, amplitudes: Float[Array, "size"]) -> Array:
        """The sum of the columns times the amplitudes; one axis is summed after the other."""
        along_x, along_y = self._profiles(x, y, values)
        matrix = jnp.zeros((self.order + 1, self.order + 1), amplitudes.dtype)
        matrix = matrix.at[self._orders].set(amplitudes)
        return jnp.sum(jnp.tensordot(matrix, along_x, (0, 0)) * along_y, axis=0)

    def _profiles(self, x: Array, y: Array, values: Values) -> list[Float[Array, "orders *grid"]]:
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


def _hermite_functions(z: Array, order: int) -> Float[Array, "orders *grid"]:
    """Orthonormal Hermite functions of orders 0 to `order`, by their recurrence."""

    def step(pair: tuple[Array, Array], n: Array) -> tuple[tuple[Array, Array], Array]:
        function, previous = pair
        following = jnp.sqrt(2 / n) * z * function - jnp.sqrt((n - 1) / n) * previous
        return (following, function), following

    first = np.pi**-0.25 * jnp.exp(-jnp.minimum(z**2 / 2, 80.0))
    _, others = jax.lax.scan(step, (first, jnp.zeros_like(z)), jnp.arange(1, order + 1, dtype=z.dtype))
    return jnp.concatenate([first[None], others])
