"""Linear amplitudes against SciPy's bounded least squares."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from lensjax.modeling.linear import solve_amplitudes

RIDGE = 1e-6


def problem(seed, columns=9, rows=60):
    """Random columns of different norms, data, and a mask of amplitudes that must not be negative."""
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(rows, columns)) * 10 ** generator.uniform(-2, 2, columns)
    return matrix, generator.normal(size=rows), generator.random(columns) < 0.6


def solve(matrix, data, nonnegative):
    gram = matrix.T @ matrix
    return solve_amplitudes(gram, matrix.T @ data, nonnegative, np.diag(RIDGE * np.diag(gram)))


def with_ridge(matrix, data):
    """The equivalent problem without a ridge: one more row per column."""
    ridge = np.diag(np.sqrt(RIDGE) * np.linalg.norm(matrix, axis=0))
    return np.concatenate([matrix, ridge]), np.append(data, np.zeros(len(ridge)))


def assert_optimal(matrix, data, nonnegative, found):
    """Karush-Kuhn-Tucker conditions, with columns of norm 1."""
    norms = np.linalg.norm(matrix, axis=0)
    rows, target = with_ridge(matrix / norms, data)
    gradient = rows.T @ (rows @ (found.amplitudes * norms) - target)
    scale = np.linalg.norm(data)
    assert (found.amplitudes[nonnegative] >= 0).all()
    np.testing.assert_array_equal(found.active, ~nonnegative | (found.amplitudes > 0))
    assert np.abs(gradient[found.active]).max(initial=0) < 1e-8 * scale
    assert gradient[~found.active].min(initial=0) > -1e-8 * scale


@pytest.mark.parametrize("seed", range(20))
def test_amplitudes_equal_those_of_bounded_least_squares(seed):
    matrix, data, nonnegative = problem(seed)
    found = solve(matrix, data, nonnegative)
    norms = np.linalg.norm(matrix, axis=0)
    low = np.where(nonnegative, 0, -np.inf)
    expected = lsq_linear(*with_ridge(matrix / norms, data), (low, np.inf), method="bvls", tol=1e-14)
    np.testing.assert_allclose(found.amplitudes * norms, expected.x, atol=1e-7)
    assert_optimal(matrix, data, nonnegative, found)


@pytest.mark.parametrize("kind", ["none", "all"])
def test_all_or_no_amplitudes_may_be_bounded(kind):
    matrix, data, _ = problem(3)
    nonnegative = np.full(9, kind == "all")
    assert_optimal(matrix, data, nonnegative, solve(matrix, data, nonnegative))
    if kind == "none":
        expected = np.linalg.lstsq(*with_ridge(matrix, data))[0]
        np.testing.assert_allclose(solve(matrix, data, nonnegative).amplitudes, expected, rtol=1e-6)


def test_negative_data_give_zero_amplitudes():
    matrix = np.abs(problem(4)[0])
    found = solve(matrix, -matrix.sum(1), np.ones(9, bool))
    np.testing.assert_array_equal(found.amplitudes, 0)
    assert not found.active.any()


@pytest.mark.parametrize("bounded", [True, False])
def test_collinear_columns_share_their_amplitude(bounded):
    matrix, _, _ = problem(5)
    matrix[:, 1] = 3 * matrix[:, 0]
    truth = np.arange(1.0, 10)
    nonnegative = np.full(9, bounded)
    found = solve(matrix, matrix @ truth, nonnegative)
    np.testing.assert_allclose(matrix @ found.amplitudes, matrix @ truth, rtol=1e-4, atol=1e-4)
    assert found.amplitudes[0] == pytest.approx(3 * found.amplitudes[1], rel=1e-3)  # the smallest norm
    assert_optimal(matrix, matrix @ truth, nonnegative, found)


@pytest.mark.parametrize("bounded", [True, False])
def test_zero_columns_are_not_used(bounded):
    matrix, data, nonnegative = problem(6)
    nonnegative[2] = bounded
    matrix[:, 2] = 0
    found = solve(matrix, data, nonnegative)
    rest = np.arange(9) != 2
    expected = solve(matrix[:, rest], data, nonnegative[rest])
    assert found.amplitudes[2] == 0
    assert not found.active[2]
    np.testing.assert_allclose(found.amplitudes[rest], expected.amplitudes, rtol=1e-9)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_columns_that_are_not_finite_are_rejected(wrong):
    gram = np.eye(3)
    gram[0, 0] = wrong
    with pytest.raises(FloatingPointError, match="not finite"):
        solve_amplitudes(gram, np.ones(3), np.ones(3, bool), np.full(3, RIDGE))
