"""The strength of a regularization that maximizes the Bayesian evidence.

Reference: Suyu et al. 2006, MNRAS 371, 983.
"""

import numpy as np
from scipy import linalg, optimize

_STEPS = 80  # of the search over the logarithm of the strength, before the refinement


def best_strength(gram: np.ndarray, projection: np.ndarray, regularization: np.ndarray) -> float:
    """Maximizes the evidence of a linear model A s of data d with the penalty strength * s^T R s.

    In the basis in which R is the identity and A^T A is diagonal with values f, let b be A^T d. Twice the
    logarithm of the evidence is then the sum of b^2 / (f + strength) - log(f + strength) + log(strength),
    plus a constant.

    Args:
      gram: A^T A, for data with noise of unit variance [columns, columns].
      projection: A^T d [columns].
      regularization: R, positive definite [columns, columns].

    Returns:
      The strength, within about e^-25 to e^5 times the largest f.
    """
    values, vectors = linalg.eigh((gram + gram.T) / 2, regularization)
    values, squares = np.maximum(values, 0), (vectors.T @ projection) ** 2

    def loss(logarithm: float) -> float:
        total = values + np.exp(logarithm)
        return float(np.sum(np.log(total) - logarithm - squares / total))

    largest = max(float(np.log(max(values.max(), 1e-30))), -60.0)
    grid = np.linspace(largest - 25, largest + 5, _STEPS)
    step = grid[1] - grid[0]
    middle = grid[np.argmin([loss(each) for each in grid])]
    bounds = (middle - step, middle + step)
    result = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(result.x))
