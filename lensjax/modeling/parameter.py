"""A fixed or fitted parameter with its starting range, bounds and prior."""

import dataclasses
import math

from lensjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Parameter:
    """Fixed or fitted parameter of a model; create it with `Parameter.fixed`, `fitted` or `chosen`.

    Attributes:
      value: value of a fixed parameter; center of the starting range of a fitted parameter.
      free: True if the parameter is fitted or chosen.
      start: range of the starting values of a fit.
      bounds: smallest and largest allowed value.
      prior: mean and standard deviation of a normal prior; None for a flat prior.
      held: True for a chosen parameter, which the steps of a fit do not change.
    """

    value: float = 0.0
    free: bool = False
    start: tuple[float, float] = (0.0, 0.0)
    bounds: tuple[float, float] = (0.0, 0.0)
    prior: tuple[float, float] | None = None
    held: bool = False

    @classmethod
    def fixed(cls, value: float) -> "Parameter":
        """Creates a parameter with a known value.

        Raises:
          UserError: if `value` is not finite.
        """
        if not math.isfinite(value):
            raise UserError(f"the value of a fixed parameter is {value}; expected a finite number")
        return cls(value=value)

    @classmethod
    def fitted(
        cls, start: tuple[float, float], bounds: tuple[float, float], prior: tuple[float, float] | None = None
    ) -> "Parameter":
        """Creates a parameter to fit.

        Args:
          start: range of the starting values of a fit.
          bounds: smallest and largest allowed value.
          prior: mean and standard deviation of a normal prior; None for a flat prior.

        Raises:
          UserError: if `start` is not within `bounds`, or the standard deviation is not positive.
        """
        if not bounds[0] <= start[0] <= start[1] <= bounds[1]:
            raise UserError(f"start={start} of a parameter is not within bounds={bounds}")
        if prior is not None and not prior[1] > 0:
            raise UserError(f"the standard deviation of a prior is {prior[1]}; it must be positive")
        return cls((start[0] + start[1]) / 2, True, start, bounds, prior)

    @classmethod
    def chosen(cls, value: float, bounds: tuple[float, float]) -> "Parameter":
        """Creates a parameter that a fit chooses separately, not in its steps.

        Args:
          value: value until a fit chooses another one.
          bounds: smallest and largest allowed value.

        Raises:
          UserError: if `value` is not within `bounds`.
        """
        return dataclasses.replace(cls.fitted((value, value), bounds), held=True)
