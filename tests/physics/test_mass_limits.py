"""Mass profiles in special cases: centers, circles, zero mass, scale radius and extreme arguments."""

import hypothesis
import hypothesis.extra.numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from oracles import lens_profiles

from lensjax import physics

# Range of each argument for which the functions and their derivatives are finite.
DOMAIN = {
    **dict.fromkeys(("x", "y", "center_x", "center_y"), (-1e4, 1e4)),
    **dict.fromkeys(("theta_E", "sigma0", "alpha_Rs"), (-100.0, 100.0)),
    **dict.fromkeys(("gamma1", "gamma2", "kappa", "e1", "e2"), (-3.0, 3.0)),
    **dict.fromkeys(("Rs", "Ra"), (0.0, 1e4)),
    "gamma": (1.0, 2.99),
}


def assert_finite(profile, table):
    table = np.resize(table, (lens_profiles.NUMBER, table.shape[1]))
    names = lens_profiles.columns(profile)
    assert np.isfinite(lens_profiles.values(profile, table)).all(), names
    for derivative in lens_profiles.derivatives(profile, table):
        bad = ~np.isfinite(derivative).all((1, 2))
        assert not bad.any(), (names, table[bad][0].tolist())


def special_rows(profile, dtype):
    """Random combinations of zero, ordinary, equal and extreme arguments."""
    names = lens_profiles.columns(profile)
    low, high = np.array([DOMAIN[name] for name in names]).T
    generator = np.random.default_rng(3)
    shape = (lens_profiles.NUMBER, len(names))
    ordinary = np.array([1.9 if name == "gamma" else 0.3 for name in names])
    choices = np.stack([np.clip(0, low, high), ordinary, ordinary / 7 + 1e-6, low, high])
    choices[2] = np.clip(choices[2], low, high)
    return np.choose(generator.integers(0, 5, shape), choices[:, None, :]).astype(dtype)


# The series of these profiles is slow to compile; float32, with its smaller range, is the harder test.
SERIES = ("sie", "epl")


@pytest.mark.parametrize(
    ("profile", "dtype"),
    [(profile, np.float32) for profile in lens_profiles.MASS]
    + [(profile, np.float64) for profile in lens_profiles.MASS if profile not in SERIES],
)
def test_profiles_are_finite_at_special_arguments(profile, dtype):
    with jax.enable_x64(dtype == np.float64):
        table = special_rows(profile, dtype)
        assert_finite(profile, table)
        at_center = table.copy()
        at_center[:, :2] = table[:, -2:]
        assert_finite(profile, at_center)
        assert_finite(profile, at_center + np.asarray([1e-7, 0] + [0] * (table.shape[1] - 2), dtype))


@pytest.mark.parametrize("profile", lens_profiles.MASS)
@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(data=st.data())
def test_profiles_are_finite_in_float32_within_domain(profile, data):
    limits = [DOMAIN[name] for name in lens_profiles.columns(profile)]
    row = st.tuples(*(st.floats(*map(_to_float32, pair), width=32) for pair in limits))
    table = np.asarray(data.draw(st.lists(row, min_size=1, max_size=8)), np.float32)
    assert_finite(profile, table)


def _to_float32(value):
    """The next float32 toward 0, which Hypothesis accepts as a bound."""
    single = np.float32(value)
    return float(single if abs(float(single)) <= abs(value) else np.nextafter(single, np.float32(0)))


@pytest.mark.parametrize("profile", lens_profiles.MASS)
def test_gradient_at_zero_mass_is_a_limit(profile):
    """For example, d alpha / d theta_E is a unit vector for a sphere and 0 for a point mass."""
    names = lens_profiles.columns(profile)
    strength = {"nfw": "alpha_Rs"}.get(profile, names[2])
    column = names.index(strength)
    table = lens_profiles.draw(profile, seed=31)
    if profile == "epl":  # only the isothermal slope has a finite, nonzero limit: the power of theta_E is 1
        table[:, names.index("gamma")] = 2.0
    small = table.copy()
    table[:, column], small[:, column] = 0.0, 1e-6
    with jax.enable_x64(True):
        at_zero, _ = lens_profiles.derivatives(profile, table)
        close, _ = lens_profiles.derivatives(profile, small)
    np.testing.assert_allclose(at_zero, close, rtol=1e-5, atol=1e-4)
    by_strength = np.abs(at_zero[:, 1:3, column]).max()
    assert (by_strength == 0) if profile == "point_mass" else (by_strength > 0.1)


@pytest.mark.parametrize("profile", ["sie", "epl"])
def test_gradient_at_the_circle_is_a_limit(profile):
    """The limit is the same from every direction, and it is not 0."""
    names = lens_profiles.columns(profile)
    e1, e2 = names.index("e1"), names.index("e2")
    table = lens_profiles.draw(profile, seed=32)
    with jax.enable_x64(True):
        table[:, e1] = table[:, e2] = 0
        at_circle, _ = lens_profiles.derivatives(profile, table)
        for direction in (0.3, 2.0, 4.0):
            table[:, e1], table[:, e2] = 1e-9 * np.cos(direction), 1e-9 * np.sin(direction)
            close, _ = lens_profiles.derivatives(profile, table)
            np.testing.assert_allclose(at_circle[:, 1:3], close[:, 1:3], rtol=1e-6, atol=1e-7)
    assert np.abs(at_circle[:, 1:3, [e1, e2]]).max() > 0.1


@pytest.mark.parametrize("profile", ["sis", "sie", "epl", "point_mass", "nfw", "pseudo_jaffe"])
def test_deflection_vanishes_at_the_center(profile):
    table = lens_profiles.draw(profile, seed=33)
    table[:, :2] = table[:, -2:]
    found = lens_profiles.values(profile, table.astype(np.float32))
    np.testing.assert_array_equal(found[:, 1:3], 0)


def test_float32_power_law_is_finite_at_large_distances():
    @jax.jit
    @jax.vmap
    def values_and_gradients(row):
        def values(row):
            x, theta_E, gamma, e1 = row
            lens = {"theta_E": theta_E, "gamma": gamma, "e1": e1, "e2": 0.1}
            potential = physics.epl_potential(x, -0.3 * x, **lens)
            return jnp.stack([potential, *physics.epl_deflection(x, -0.3 * x, **lens)])

        return values(row), jax.jacrev(values)(row)

    far = [1e4, 1e8, 1e12, 1e15, 1e18]
    rows = [[sign * x, 1.2, t, 0.2] for x in far for sign in (1, -1) for t in (1.0, 1.2, 2.0, 2.9)]
    found = values_and_gradients(jnp.asarray(rows, jnp.float32))
    assert all(np.isfinite(each).all() for each in found)


def nfw_row(ratio, dtype=np.float64):
    return np.asarray([ratio, 0, 1, 1, 0, 0], dtype)  # x, y, Rs, alpha_Rs, center


def nfw(ratio, dtype):
    table = np.stack([nfw_row(each, dtype) for each in ratio])
    return lens_profiles.values("nfw", np.resize(table, (lens_profiles.NUMBER, 6)))[: len(ratio)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-6), (np.float64, 1e-12)])
def test_nfw_is_smooth_at_the_scale_radius(dtype, tolerance):
    """Near X = 1, F = sum (1 - X^2)^n / (2n + 3) and g = ln(X / 2) + sum (1 - X^2)^n / (2n + 1)."""
    ratio = (1 + np.linspace(-0.05, 0.05, 41)).astype(dtype)
    m = 1 - ratio.astype(np.float64) ** 2
    power = m[:, None] ** np.arange(14)
    g = np.log(ratio.astype(np.float64) / 2) + power @ (1 / (2 * np.arange(14) + 1))
    F = power @ (1 / (2 * np.arange(14) + 3))
    with jax.enable_x64(dtype == np.float64):
        found = nfw(ratio, dtype)
        table = np.resize(nfw_row(1, dtype), (lens_profiles.NUMBER, 6))
        first, _ = lens_profiles.derivatives("nfw", table)
    at_Rs = 1 - np.log(2)
    np.testing.assert_allclose(found[:, 1], g / ratio.astype(float) / at_Rs, rtol=tolerance)
    np.testing.assert_allclose(found[:, 3], F / 2 / at_Rs, rtol=tolerance)
    # At X = 1, dF/dX = -2/5 and d(g/X)/dX = F - g.
    np.testing.assert_allclose(first[0, 3, 0], -0.2 / at_Rs, rtol=3 * tolerance)
    np.testing.assert_allclose(first[0, 1, 0], (2 / 3 - at_Rs) / at_Rs - 1 / 3 / at_Rs, rtol=9 * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-9)])
def test_nfw_is_accurate_near_the_center(dtype, tolerance):
    """The terms of g cancel: g / X^2 is (ln(2 / X) - 1/2) / 2 + X^2 (3 ln(2 / X) - 7/4) / 8 + ..."""
    ratio = np.asarray([1e-3, 2e-3, 3e-3], dtype)
    with jax.enable_x64(dtype == np.float64):
        found = nfw(ratio, dtype)
    X = ratio.astype(np.float64)
    log = np.log(2 / X)
    mean = (log - 0.5) / 2 + X**2 * (3 * log - 1.75) / 8
    local = log - 1 + X**2 * (1.5 * log - 1.25)
    at_Rs = 1 - np.log(2)
    # The softening of 1e-8 changes the logarithm by 5e-11 at X = 1e-3.
    np.testing.assert_allclose(found[:, 1], X * mean / at_Rs, rtol=tolerance)
    np.testing.assert_allclose(found[:, 3], local / 2 / at_Rs, rtol=tolerance)


def test_ellipticity_is_clipped():
    x, y = physics.pixel_grid(5, 0.4)

    def deflection(e1, e2):
        return physics.sie_deflection(x, y, 1.2, e1=e1, e2=e2)

    np.testing.assert_allclose(deflection(3.0, -4.0), deflection(0.59994, -0.79992), rtol=2e-3)
    assert np.isfinite(jax.grad(lambda e: jnp.sum(deflection(e, 0.0)[0]))(5.0))
