"""Sums over many lenses, including lenses of strength 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics

# Ranges of the parameters of each profile; the first parameter is the strength.
RANGES = {
    "sis": {"theta_E": (0.01, 0.1)},
    "pseudo_jaffe": {"sigma0": (0.1, 1.0), "Ra": (0.01, 0.1), "Rs": (0.2, 0.5)},
    "nfw": {"alpha_Rs": (0.1, 1.0), "Rs": (0.2, 0.5)},
    "point_mass": {"theta_E": (0.01, 0.1)},
}
CENTERS = {"center_x": (-2, 2), "center_y": (-2, 2)}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def points(number=50):
    return jnp.asarray(np.random.default_rng(0).uniform(-2.5, 2.5, (2, number)))


def lenses(profile, number):
    low, high = zip(*{**RANGES[profile], **CENTERS}.values(), strict=True)
    return jnp.asarray(np.random.default_rng(2).uniform(low, high, (number, len(low))))


def superpose(profile, x, y, table):
    """Total deflection for a table with one row per lens: its parameters, then its center."""
    strength, *others = table.T
    names = [*RANGES[profile], *CENTERS][1:]
    function = getattr(physics, f"{profile}_deflection")
    return physics.superpose(function, x, y, strength, **dict(zip(names, others, strict=True)))


def test_point_masses_deflect_as_the_sum_of_each():
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


def test_convergence_of_point_masses_integrates_to_mass():
    """The integral over the plane is pi theta_E^2 for each mass."""
    x, y = physics.pixel_grid(400, 0.05)
    masses = lenses("point_mass", 3)
    kappa = physics.point_masses_convergence(x, y, masses, core=0.1)
    expected = np.pi * jnp.sum(masses[:, 0] ** 2)
    np.testing.assert_allclose(jnp.sum(kappa) * 0.05**2, expected, rtol=1e-3)


@functools.cache
def padded(profile):
    """Function that returns deflection and gradient, and a table of seven lenses and six of strength 0."""
    x, y = points()
    table = lenses(profile, 7)

    @jax.jit
    def both(table):
        def total(table):
            found = superpose(profile, x, y, table)
            return sum(jnp.sum(jnp.sin(each)) for each in found), found

        return jax.value_and_grad(total, has_aux=True)(table)

    return both, jnp.concatenate([table, jnp.zeros((6, table.shape[1]))])


@pytest.mark.parametrize("profile", RANGES)
def test_padding_changes_neither_deflection_nor_gradient(profile):
    both, table = padded(profile)
    (_, value), gradient = both(table[:7])
    (_, found), found_gradient = both(table)
    jax.tree.map(np.testing.assert_array_equal, found, value)
    np.testing.assert_allclose(found_gradient[:7], gradient, rtol=1e-13, atol=1e-15)
    assert np.isfinite(found_gradient).all()


def test_padded_point_masses_have_no_gradient():
    """The deflection is proportional to theta_E^2, which has no slope at 0."""
    both, table = padded("point_mass")
    np.testing.assert_array_equal(both(table)[1][7:], 0)


def test_padded_sphere_has_the_gradient_of_a_sphere():
    """The deflection is proportional to theta_E, so its slope does not vanish at 0."""
    both, table = padded("sis")
    above, below = (both(table.at[7, 0].set(step))[0][0] for step in (1e-6, -1e-6))
    np.testing.assert_allclose(both(table)[1][7, 0], (above - below) / 2e-6, rtol=1e-6)


def test_empty_set_of_lenses_has_no_deflection():
    x, y = points()
    for alpha in physics.point_masses_deflection(x, y, jnp.zeros((0, 3))):
        np.testing.assert_array_equal(alpha, np.zeros(50))


def test_scalar_parameters_are_shared_by_all_lenses():
    x, y = points()
    theta_E, center_x, center_y = lenses("sis", 3).T
    shape = {"gamma": 2.0, "e1": 0.1, "e2": -0.2, "core": 0.1, "terms": 20}
    centers = {"center_x": center_x, "center_y": center_y}
    found = jax.jit(lambda: physics.superpose(physics.epl_deflection, x, y, theta_E, **shape, **centers))()
    alone = jax.jit(lambda t, cx, cy: physics.epl_deflection(x, y, t, **shape, center_x=cx, center_y=cy))
    expected = sum(np.stack(alone(t, cx, cy)) for t, cx, cy in zip(theta_E, center_x, center_y, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
