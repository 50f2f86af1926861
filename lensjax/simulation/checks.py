"""Checks of the settings of a preset."""

import math
import operator
from typing import Any

from lensjax.errors import UserError


def check_count(name: str, value: Any, *, odd: bool = False) -> None:
    """Checks that a setting is a positive whole number.

    Args:
      name: name of the setting, for the message.
      value: value of the setting.
      odd: whether the number must be odd.

    Raises:
      UserError: if it is not.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or (odd and number % 2 == 0):
        raise UserError(f"{name} is {value!r}; expected {'an odd' if odd else 'a positive'} whole number")


def check_number(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, above: bool = False
) -> None:
    """Checks that a setting is a finite number within limits.

    Args:
      name: name of the setting, for the message.
      value: value of the setting.
      low, high: smallest and largest value.
      above: whether the value must be larger than `low`.

    Raises:
      UserError: if it is not.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high) or (above and number == low):
        limits = [f"{'above' if above else 'of at least'} {low:g}"] if low > -math.inf else []
        limits += [f"of at most {high:g}"] if high < math.inf else []
        raise UserError(f"{name} is {value!r}; expected a finite number {' and '.join(limits)}".rstrip())


def check_range(name: str, limits: Any, **bounds: Any) -> None:
    """Checks that a setting is a pair of finite numbers in ascending order, which may be equal.

    Args:
      name: name of the setting, for the message.
      limits: value of the setting.
      bounds: limits of both numbers; see `check_number`.

    Raises:
      UserError: if it is not.
    """
    try:
        low, high = limits
    except (TypeError, ValueError):
        raise UserError(f"{name} is {limits!r}; expected a pair of numbers") from None
    for end in (low, high):
        check_number(name, end, **bounds)
    if low > high:
        raise UserError(f"{name} is {limits!r}; expected the smaller number first")
