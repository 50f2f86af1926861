"""Checks of arguments before they are used."""

import math
from typing import Any

from lensjax.errors import UserError
from lensjax.physics.checks import check_number


def positive_length(name: str, value: Any) -> float:
    """A positive, finite length in arcsec, as a `float`.

    Raises:
      UserError: for any other value.
    """
    try:
        length = float(value)
    except (TypeError, ValueError, OverflowError):
        length = math.nan
    if not 0 < length < math.inf:
        raise UserError(f"{name} is {value!r}; expected a positive number, arcsec")
    return length


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`, as an `int`.

    Raises:
      UserError: for any other value.
    """
    try:
        return check_number(name, value, least)
    except ValueError as error:
        raise UserError(str(error)) from None
