"""Integer photon counts of an image that was divided by its largest count."""

import math

import numpy as np
from jaxtyping import Float, UInt16

MAX_COUNT = 65_535


def recover_counts(
    image: Float[np.ndarray, "height width"],
) -> tuple[UInt16[np.ndarray, "height width"], int] | None:
    """Counts k and their maximum N of an image whose pixels are all k / N.

    The published images are such quotients (N is 684 to 893 in the available files). 16-bit counts store them
    without loss in a quarter of the space of float64.

    Args:
      image: pixels from 0 to 1, including both 0 and 1; float32 or float64.

    Returns:
      Counts and maximum, such that float32(k) / float32(N) is exactly float32(image). None if there is no
      such N up to 65,535. Counts in float32 files with N above 4,096 may not be recognized.
    """
    pixels = image.astype(np.float32)
    # The smallest positive pixel is often a single count, and then its inverse is N.
    unexplained = image.min(where=image > 0, initial=1)
    largest = _denominator(unexplained)
    while largest is not None and largest <= MAX_COUNT:
        counts = np.rint(pixels * np.float32(largest))
        wrong = counts / np.float32(largest) != pixels
        if not wrong.any():
            return counts.astype(np.uint16), largest
        unexplained = image.min(where=wrong, initial=1)
        denominator = _denominator(unexplained)
        if denominator is None or largest % denominator == 0:
            return None
        largest = math.lcm(largest, denominator)
    return None


def _denominator(value: np.floating) -> int | None:
    """Denominator of the simplest fraction that rounds to `value`; None above 65,535.

    A float64 that holds a float32 number (from a float32 file, or saved from one) is treated as float32.

    The denominators of the convergents of a continued fraction increase, and a fraction p / q closer than
    1 / (2 q^2) to the value is one of the convergents (Legendre's theorem). This holds for every q up to
    65,535 in float64, and for p q < 2^23 in float32.
    """
    precision = np.float32 if np.float32(value) == value else np.float64
    rest, divisor = float(value).as_integer_ratio()
    before = (0, 1)
    fraction = (1, 0)
    while divisor:
        whole, remainder = divmod(rest, divisor)
        before, fraction = (fraction, (whole * fraction[0] + before[0], whole * fraction[1] + before[1]))
        if fraction[1] > MAX_COUNT:
            return None
        if precision(fraction[0] / fraction[1]) == value:
            return fraction[1]
        rest, divisor = divisor, remainder
    return None
