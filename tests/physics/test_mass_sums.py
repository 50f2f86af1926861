"""Sums over many lenses, and rows of nothing among them."""

import functools

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


@functools.cache
def padded(profile):
    """The sum of seven lenses and six of nothing, as a function of their table, and that table."""
    x, y = points()
    table = lenses(profile, 7)
    function = getattr(physics, f"{profile}_deflection")

    @jax.jit
    def both(table):
        def total(table):
            found = physics.summed(function, x, y, table)
            return sum(jnp.sum(jnp.sin(each)) for each in found), found

        return jax.value_and_grad(total, has_aux=True)(table)

    return both, jnp.concatenate([table, jnp.zeros((6, table.shape[1]))])


@pytest.mark.parametrize("profile", LOW)
def test_padding_changes_no_deflection_and_no_gradient(profile):
    both, table = padded(profile)
    (_, value), gradient = both(table[:7])
    (_, found), found_gradient = both(table)
    jax.tree.map(np.testing.assert_array_equal, found, value)
    np.testing.assert_allclose(found_gradient[:7], gradient, rtol=1e-13, atol=1e-15)
    assert np.isfinite(found_gradient).all()


def test_point_masses_of_nothing_have_no_gradient():
    """The deflection is of theta_E^2, which has no slope at 0."""
    both, table = padded("point_mass")
    np.testing.assert_array_equal(both(table)[1][7:], 0)


def test_a_sphere_of_nothing_has_its_own_gradient():
    """The deflection is of theta_E itself: the slope is what one more sphere there adds."""
    both, table = padded("sis")
    above, below = (both(table.at[7, 0].set(step))[0][0] for step in (1e-6, -1e-6))
    np.testing.assert_allclose(both(table)[1][7, 0], (above - below) / 2e-6, rtol=1e-6)


def test_no_lens_at_all_is_no_deflection():
    x, y = points()
    for alpha in physics.point_masses_deflection(x, y, jnp.zeros((0, 3))):
        np.testing.assert_array_equal(alpha, np.zeros(50))
