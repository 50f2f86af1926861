"""Whole photon counts behind an image that was divided by its largest count."""

import math

import numpy as np
from jaxtyping import Float, UInt16

MAX_COUNT = 65_535


def whole_counts(
    image: Float[np.ndarray, "height width"],
) -> tuple[UInt16[np.ndarray, "height width"], int] | None:
    """The counts k and their maximum N of an image whose pixels are all k / N.

    The published images are such quotients (N between 684 and 893 in those at hand), and 16-bit counts
    keep them without loss in a quarter of the room.

    Args:
      image: pixels from 0 to 1, with both 0 and 1 among them; float32 or float64.

    Returns:
      Counts and maximum, such that float32(k) / float32(N) is float32(image) exactly; None where there
      are none with N up to 65,535. In float32 files with N above 4,096, counts can go unrecognised.
    """
    pixels = image.astype(np.float32)
    # The smallest pixel is often one count, and then N is its inverse at once.
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

    A float64 that holds a float32 number (a float32 file, or one saved from it) is read as float32.

    The convergents of a continued fraction come with growing denominators, and a fraction p / q closer
    than 1 / (2 q^2) to the value is one of them (Legendre's theorem): true of every q up to 65,535 in
    float64, and of p q < 2^23 in float32.
    """
    precision = np.float32 if np.float32(value) == value else np.float64
    rest, divisor = float(value).as_integer_ratio()
    before = (0, 1)
    fraction = (1, 0)
    while divisor:
        whole, remainder = divmod(rest, divisor)
        before, fraction = (
            fraction,
            (
                whole * fraction[0] + before[0],
                whole * fraction[1] + before[1],
            ),
        )
        if fraction[1] > MAX_COUNT:
            return None
        if precision(fraction[0] / fraction[1]) == value:
            return fraction[1]
        rest, divisor = divisor, remainder
    return None
