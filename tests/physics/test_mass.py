"""Mass profiles: derivatives, softening, grids and limiting cases."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import lens_profiles

from lensjax import physics

SOFTENED = {
    "sis": {"theta_E": 1.3},
    "point_mass": {"theta_E": 0.8},
    "nfw": {"Rs": 1.1, "alpha_Rs": 0.9},
    "pseudo_jaffe": {"sigma0": 1.2, "Ra": 0.1, "Rs": 0.7},
}
LENSES = {
    "sie": {"theta_E": 1.3, "e1": 0.2, "e2": -0.1},
    "epl": {"theta_E": 1.3, "gamma": 2.2, "e1": 0.2, "e2": -0.1},
    "mass_sheet": {"kappa": 0.1},
    **SOFTENED,
}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("profile", lens_profiles.MASS)
def test_profiles_are_derivatives_of_their_potential(profile):
    table = lens_profiles.draw(profile, seed=11)
    _, alpha_x, alpha_y, kappa = lens_profiles.values(profile, table).T
    first, hessian = lens_profiles.derivatives(profile, table)
    size = np.hypot(alpha_x, alpha_y)
    np.testing.assert_array_less(abs(first[:, 0, 0] - alpha_x), 1e-11 * size + 1e-14)
    np.testing.assert_array_less(abs(first[:, 0, 1] - alpha_y), 1e-11 * size + 1e-14)
    second = abs(hessian).max((1, 2))
    half_laplacian = (hessian[:, 0, 0] + hessian[:, 1, 1]) / 2
    np.testing.assert_array_less(abs(half_laplacian - kappa), 1e-9 * second + 1e-14)
    # The Jacobian of the deflection (reverse mode) is the Hessian of the potential (forward over reverse).
    error = abs(first[:, 1:3, :2] - hessian).max((1, 2))
    np.testing.assert_array_less(error, 1e-9 * second + 1e-14)


@pytest.mark.parametrize("profile", lens_profiles.MASS)
def test_gradients_match_finite_differences(profile):
    table = lens_profiles.draw(profile, seed=12)
    names = lens_profiles.columns(profile)
    # Exclude the softened center, where the derivatives change within a step.
    far = np.hypot(*(table[:, :2] - table[:, -2:]).T) > 0.1 if "center_x" in names else slice(None)
    first, _ = lens_profiles.derivatives(profile, table)
    for index, name in enumerate(names):
        up, down = table.copy(), table.copy()
        up[:, index] += 1e-5
        down[:, index] -= 1e-5
        change = lens_profiles.values(profile, up) - lens_profiles.values(profile, down)
        expected = change / 2e-5
        np.testing.assert_allclose(first[far, :, index], expected[far], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("profile", SOFTENED)
def test_softened_profile_is_self_consistent(profile):
    """Deflection and convergence are derivatives of the potential even for a large core."""
    potential, deflection, convergence = lens_profiles.functions(profile)
    x, y = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 20)))
    options = {**SOFTENED[profile], "center_x": 0.1, "center_y": -0.2, "core": 0.3}

    def psi(x, y):
        return potential(x, y, **options)

    gradient = jax.jit(jax.vmap(jax.grad(psi, (0, 1))))(x, y)
    (xx, _), (_, yy) = jax.jit(jax.vmap(jax.hessian(psi, (0, 1))))(x, y)
    found = deflection(x, y, **options)
    np.testing.assert_allclose(found, gradient, rtol=1e-10)
    found = convergence(x, y, **options)
    np.testing.assert_allclose(found, (xx + yy) / 2, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("profile", LENSES)
def test_grid_without_jit_matches_points_under_jit(profile):
    x, y = physics.pixel_grid(6, 0.4)
    lens = {**LENSES[profile], "center_x": 0.1, "center_y": -0.2}
    found = [function(x, y, **lens) for function in lens_profiles.functions(profile)]
    found = np.stack([found[0], *found[1], found[2]], -1).reshape(36, 4)
    row = [lens[name] for name in lens_profiles.columns(profile)[2:]]
    table = np.column_stack([np.ravel(x), np.ravel(y), *np.broadcast_to(row, (36, len(row))).T])
    table = np.resize(table, (lens_profiles.NUMBER, table.shape[1]))
    expected = lens_profiles.values(profile, table)[:36]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_pseudo_jaffe_is_isothermal_between_its_radii():
    sigma0 = physics.pseudo_jaffe_sigma0(1.3, 1e-6, 1e6)
    x, y = jnp.asarray(np.random.default_rng(1).uniform(-2, 2, (2, 50)))
    found = physics.pseudo_jaffe_deflection(x, y, sigma0, Ra=1e-6, Rs=1e6)
    np.testing.assert_allclose(found, physics.sis_deflection(x, y, 1.3), rtol=1e-5, atol=1e-5)


def test_pseudo_jaffe_has_finite_mass():
    """At large distances it deflects like a point mass with theta_E^2 = 2 sigma0 Ra Rs."""
    x, y = jnp.asarray([1e5]), jnp.zeros(1)
    found, _ = physics.pseudo_jaffe_deflection(x, y, 0.7, Ra=0.1, Rs=2.0)
    np.testing.assert_allclose(found, 2 * 0.7 * 0.1 * 2.0 / 1e5, rtol=1e-4)


def test_vmap_over_lenses_matches_loop():
    x, y = physics.pixel_grid(5, 0.5)
    lenses = np.asarray([[0.3, 1.8, 0.1, 0.0], [1.0, 2.0, 0.0, 0.0], [1.7, 2.3, -0.2, 0.4]])

    def deflection(lens):
        return physics.epl_deflection(x, y, lens[0], gamma=lens[1], e1=lens[2], e2=lens[3])

    together = jax.vmap(deflection)(lenses)
    one_by_one = [deflection(lens) for lens in lenses]
    np.testing.assert_allclose(np.stack(together, 1), np.asarray(one_by_one), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("profile", lens_profiles.MASS)
def test_functions_of_a_profile_share_one_signature(profile):
    """x, y and the strength are positional; all other parameters are keyword-only."""
    found = []
    for function in lens_profiles.functions(profile):
        parameters = inspect.signature(function).parameters.values()
        found.append([(each.name, each.kind, each.default) for each in parameters])
    assert found[0] == found[1] == found[2]
    number = 4 if profile == "external_shear" else 3
    kinds = [kind for _, kind, _ in found[0]]
    assert set(kinds[:number]) == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert set(kinds[number:]) <= {inspect.Parameter.KEYWORD_ONLY}
