"""A source on a grid of pixels, smoothed by a regularization."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax.scipy import ndimage
from jaxtyping import Array, Float

from lensjax.errors import UserError
from lensjax.modeling.components import Values
from lensjax.modeling.parameter import Parameter

_POSITION = Parameter.chosen(0.0, (-4.0, 4.0))
_WIDTH = Parameter.chosen(1.0, (0.1, 8.0))
_STRENGTH = Parameter.chosen(1.0, (1e-15, 1e15))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelGrid:
    """Brightness at the nodes of a square grid with linear interpolation and a penalty on its curvature.

    The amplitudes, of any sign, are the brightnesses at the nodes, row by row. Beyond the outer nodes, the
    brightness decreases to 0 within one step of the grid. The fit chooses the position and the width so that
    the grid covers the source of simpler models, and the strength that maximizes the Bayesian evidence.

    Attributes:
      number: nodes per side.
      center_x, center_y: position of the middle of the grid, arcsec.
      width: distance between the outer nodes, arcsec.
      strength: factor of the sum of the squared second differences of the brightness that is added to
        chi-square.

    Raises:
      UserError: if the number of nodes per side is not from 5 to 60.

    Reference: Suyu et al. 2006, MNRAS 371, 983.
    """

    nonnegative: ClassVar[bool] = False
    number: int = 25
    center_x: Parameter = _POSITION
    center_y: Parameter = _POSITION
    width: Parameter = _WIDTH
    strength: Parameter = _STRENGTH

    def __post_init__(self) -> None:
        if not 5 <= self.number <= 60:
            raise UserError(f"the number of nodes per side of a PixelGrid is {self.number}; expected 5 to 60")

    @property
    def size(self) -> int:
        """Number of amplitudes."""
        return self.number**2

    @property
    def border(self) -> np.ndarray:
        """True for the outer nodes [size]."""
        border = np.ones((self.number, self.number), bool)
        border[1:-1, 1:-1] = False
        return border.ravel()

    @functools.cached_property
    def regularization(self) -> np.ndarray:
        """Matrix of the sum of the squared second differences, with brightness 0 outside [size, size]."""
        along = -2 * np.eye(self.number) + np.eye(self.number, k=1) + np.eye(self.number, k=-1)
        square, one = along @ along, np.eye(self.number)
        return np.kron(square, one) + np.kron(one, square)

    def columns(self, x: Array, y: Array, values: Values) -> Float[Array, "size *grid"]:
        """Images of nodes with brightness 1."""
        column, row = self._indices(x, y, values)
        nodes = jnp.arange(self.number, dtype=x.dtype)[:, None, None]
        along_x = jnp.maximum(1 - jnp.abs(column[None] - nodes), 0)
        along_y = jnp.maximum(1 - jnp.abs(row[None] - nodes), 0)
        return (along_y[:, None] * along_x[None]).reshape(self.size, *x.shape)

    def image(self, x: Array, y: Array, values: Values, amplitudes: Float[Array, "size"]) -> Array:
        """The sum of the columns times the amplitudes, by interpolation."""
        column, row = self._indices(x, y, values)
        nodes = amplitudes.reshape(self.number, self.number)
        return ndimage.map_coordinates(nodes, [row, column], order=1, mode="constant")

    def _indices(self, x: Array, y: Array, values: Values) -> tuple[Array, Array]:
        """Positions in steps of the grid, from the first node along each axis."""
        step, middle = values["width"] / (self.number - 1), (self.number - 1) / 2
        return (x - values["center_x"]) / step + middle, (y - values["center_y"]) / step + middle

    def to_lenstronomy(self, values: Values, amplitudes: np.ndarray) -> list[tuple[str, dict[str, float]]]:
        """Names and arguments of lenstronomy's light profiles with the same light."""
        arguments: dict[str, Any] = {
            "image": amplitudes.reshape(self.number, self.number).tolist(),
            "amp": 1.0,
            "center_x": float(values["center_x"]),
            "center_y": float(values["center_y"]),
            "phi_G": 0.0,
            "scale": float(values["width"]) / (self.number - 1),
        }
        return [("INTERPOL", arguments)]
