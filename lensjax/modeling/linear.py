"""Linear amplitudes: least squares in which some amplitudes must not be negative."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

ROUNDING = 1e-7  # smallest eigenvalue of a matrix with 1 on its diagonal


class LinearFit(NamedTuple):
    """Solution of `solve_amplitudes`.

    Attributes:
      amplitudes: the amplitudes, [columns].
      active: False for amplitudes that are held at 0, [columns].
    """

    amplitudes: np.ndarray
    active: np.ndarray


def solve_amplitudes(
    gram: np.ndarray, projection: np.ndarray, nonnegative: np.ndarray, penalty: np.ndarray
) -> LinearFit:
    """Minimizes |A c - d|^2 + c^T P c over the amplitudes c, some of which must not be negative.

    The free amplitudes are eliminated first (Schur complement); the remaining problem is solved by SciPy's
    `nnls`.

    Args:
      gram: A^T A, [columns, columns].
      projection: A^T d, [columns].
      nonnegative: True for amplitudes that must not be negative, [columns].
      penalty: P, positive semidefinite, [columns, columns].

    Returns:
      The amplitudes, and which of them are active.

    Raises:
      FloatingPointError: if a value of A^T A or A^T d is not finite.
    """
    gram, projection = np.asarray(gram, np.float64), np.asarray(projection, np.float64)
    if not (np.isfinite(gram).all() and np.isfinite(projection).all()):
        raise FloatingPointError("the columns of a linear fit are not finite")
    total = gram + penalty
    norms = np.sqrt(np.diag(total))
    present = norms > 1e-12 * norms.max(initial=1e-300)
    scale = np.where(present, 1 / np.where(present, norms, 1), 0.0)
    unit = total * np.outer(scale, scale) + np.diag(1.0 * ~present)
    right = projection * scale
    bounded, free = nonnegative & present, ~nonnegative
    amplitudes = np.zeros(len(gram))
    inverse = np.linalg.inv(unit[np.ix_(free, free)])
    if bounded.any():
        cross = unit[np.ix_(bounded, free)]
        schur = unit[np.ix_(bounded, bounded)] - cross @ inverse @ cross.T
        values, vectors = np.linalg.eigh((schur + schur.T) / 2)
        root = np.sqrt(np.maximum(values, ROUNDING))
        target = (vectors.T @ (right[bounded] - cross @ inverse @ right[free])) / root
        amplitudes[bounded], _ = nnls((vectors * root).T, target, maxiter=50 * bounded.sum())
        right = right - unit[:, bounded] @ amplitudes[bounded]
    amplitudes[free] = inverse @ right[free]
    active = (free | (amplitudes > 0)) & present
    return LinearFit(amplitudes * scale, active)
