"""Photon noise, drawn on the host.

NumPy's exact Poisson sampler is several times faster on a CPU than JAX's. Each image has a generator of
its own, so its noise does not depend on which images are drawn beside it, or in which order.
"""

import numpy as np
from jaxtyping import Float, UInt16


def poisson_counts(
    expected: Float[np.ndarray, "height width"], seed: tuple[int, ...]
) -> UInt16[np.ndarray, "height width"]:
    """Photon counts in each pixel.

    Args:
      expected: expected counts.
      seed: whole numbers, not negative, that the noise follows from.

    Raises:
      ValueError: a pixel has more counts than 16 bits hold.
    """
    counts = np.random.default_rng(seed).poisson(expected)
    if counts.max(initial=0) > np.iinfo(np.uint16).max:
        raise ValueError(f"{counts.max()} counts in a pixel are too many: at most 65,535 are kept")
    return counts.astype(np.uint16)
