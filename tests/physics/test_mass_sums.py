"""Sums over many lenses, and rows of nothing among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics

LOW = {"sis": [0.01], "pseudo_jaffe": [0.1, 0.01, 0.2], "point_mass": [0.01]}
HIGH = {"sis": [0.1], "pseudo_jaffe": [1.0, 0.1, 0.5], "point_mass": [0.1]}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def points(number=50):
    return jnp.asarray(np.random.default_rng(0).uniform(-2.5, 2.5, (2, number)))


def lenses(profile, number):
    low, high = [*LOW[profile], -2, -2], [*HIGH[profile], 2, 2]
    return jnp.asarray(np.random.default_rng(2).uniform(low, high, (number, len(low))))


def test_many_point_masses_deflect_as_the_sum_of_each():
    x, y = points()
    masses = lenses("point_mass", 7)
    deflection, potential = np.zeros((2, 50)), np.zeros(50)
    for theta_E, center_x, center_y in np.asarray(masses):
        distance = np.stack([np.asarray(x) - center_x, np.asarray(y) - center_y])
        square = (distance**2).sum(0)
        deflection += theta_E**2 * distance / square
        potential += theta_E**2 * np.log(square) / 2
    found = physics.point_masses_deflection(x, y, masses)
    np.testing.assert_allclose(found, deflection, rtol=1e-12)
    found = physics.point_masses_potential(x, y, masses)
    np.testing.assert_allclose(found, potential, rtol=1e-12)


def test_softened_point_masses_keep_their_mass():
    """The convergence, summed over the plane, is pi theta_E^2 for each mass."""
    x, y = physics.pixel_grid(400, 0.05)
    masses = lenses("point_mass", 3)
    kappa = physics.point_masses_convergence(x, y, masses, core=0.1)
    expected = np.pi * jnp.sum(masses[:, 0] ** 2)
    np.testing.assert_allclose(jnp.sum(kappa) * 0.05**2, expected, rtol=1e-3)


@pytest.mark.parametrize("profile", LOW)
def test_padding_with_lenses_of_nothing_changes_no_bit_and_no_gradient(profile):
    x, y = points()
    table = lenses(profile, 7)
    padded = jnp.concatenate([table, jnp.zeros((6, table.shape[1]))])
    for kind in ("deflection",):
        function = getattr(physics, f"{profile}_{kind}")

        @jax.jit
        def both(table, function=function):
            def total(table):
                found = physics.summed(function, x, y, table)
                return sum(jnp.sum(jnp.sin(each)) for each in jax.tree.leaves(found))

            return physics.summed(function, x, y, table), jax.grad(total)(table)

        (value, gradient), (found, found_gradient) = both(table), both(padded)
        jax.tree.map(np.testing.assert_array_equal, found, value)
        np.testing.assert_allclose(found_gradient[:7], gradient, rtol=1e-13, atol=1e-15)
        assert np.isfinite(found_gradient).all()
        if profile == "point_mass":  # theta_E^2 has no slope at 0
            np.testing.assert_array_equal(found_gradient[7:], 0)
        if (
            kind == "deflection" and profile == "sis"
        ):  # theta_E has: what one more lens there would do
            nudged = [
                jax.tree.leaves(physics.summed(function, x, y, padded.at[7, 0].set(step)))
                for step in (1e-6, -1e-6)
            ]
            totals = [sum(jnp.sum(jnp.sin(each)) for each in found) for found in nudged]
            slope = (totals[0] - totals[1]) / 2e-6
            np.testing.assert_allclose(found_gradient[7, 0], slope, rtol=1e-6)


def test_no_lens_at_all_is_no_deflection():
    x, y = points()
    for alpha in physics.point_masses_deflection(x, y, jnp.zeros((0, 3))):
        np.testing.assert_array_equal(alpha, np.zeros(50))
