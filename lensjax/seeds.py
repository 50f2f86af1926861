"""Check of the seeds of JAX's random keys."""

import operator
from typing import Any

from lensjax.errors import UserError

LARGEST_SEED = 2**32 - 1  # JAX uses 32 bits: 2**32 would be the same as 0


def check_seed(seed: Any) -> int:
    """Checks that JAX distinguishes a seed from all others.

    Args:
      seed: a whole number from 0 to `LARGEST_SEED`.

    Returns:
      The seed.

    Raises:
      UserError: if it is not.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number <= LARGEST_SEED:
        raise UserError(f"seed is {seed!r}; expected a whole number from 0 to {LARGEST_SEED}")
    return number
