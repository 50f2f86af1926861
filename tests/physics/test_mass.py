"""Mass profiles against their own derivatives, finite differences, and calls of other kinds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import lens_profiles

from lensjax import physics

SOFTENED = {
    "sis": (1.3,),
    "point_mass": (0.8,),
    "nfw": (1.1, 0.9),
    "pseudo_jaffe": (1.2, 0.1, 0.7),
}
LENSES = {
    "sis": (1.3,),
    "sie": (1.3, 0.2, -0.1),
    "epl": (1.3, 2.2, 0.2, -0.1),
    "sheet": (0.1,),
    **SOFTENED,
}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("profile", lens_profiles.MASS)
def test_deflection_and_convergence_are_derivatives_of_the_potential(profile):
    table = lens_profiles.draws(profile, seed=11)
    _, alpha_x, alpha_y, kappa = lens_profiles.values(profile, table).T
    first, hessian = lens_profiles.derivatives(profile, table)
    size = np.hypot(alpha_x, alpha_y)
    np.testing.assert_array_less(abs(first[:, 0, 0] - alpha_x), 1e-11 * size + 1e-14)
    np.testing.assert_array_less(abs(first[:, 0, 1] - alpha_y), 1e-11 * size + 1e-14)
    second = abs(hessian).max((1, 2))
    half_laplacian = (hessian[:, 0, 0] + hessian[:, 1, 1]) / 2
    np.testing.assert_array_less(abs(half_laplacian - kappa), 1e-9 * second + 1e-14)
    # The Jacobian of the deflection, by reverse mode, is the potential's Hessian, by forward over reverse.
    off = abs(first[:, 1:3, :2] - hessian).max((1, 2))
    np.testing.assert_array_less(off, 1e-9 * second + 1e-14)


@pytest.mark.parametrize("profile", lens_profiles.MASS)
def test_gradients_in_every_argument_are_those_of_finite_differences(profile):
    table = lens_profiles.draws(profile, seed=12)
    names = lens_profiles.columns(profile)
    # The softened centre apart, where the derivatives change within a step.
    far = np.hypot(*(table[:, :2] - table[:, -2:]).T) > 0.1 if "center_x" in names else slice(None)
    first, _ = lens_profiles.derivatives(profile, table)
    for index, name in enumerate(names):
        up, down = table.copy(), table.copy()
        up[:, index] += 1e-5
        down[:, index] -= 1e-5
        change = lens_profiles.values(profile, up) - lens_profiles.values(profile, down)
        expected = change / 2e-5
        np.testing.assert_allclose(
            first[far, :, index], expected[far], rtol=1e-5, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("profile", SOFTENED)
def test_a_round_profile_s_softening_is_a_profile_of_its_own(profile):
    """With a core as large as the lens: still a gradient field, with its own convergence."""
    potential, deflection, convergence = lens_profiles.functions(profile)
    x, y = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 20)))
    options = {"center_x": 0.1, "center_y": -0.2, "core": 0.3}

    def psi(x, y):
        return potential(x, y, *SOFTENED[profile], **options)

    gradient = jax.jit(jax.vmap(jax.grad(psi, (0, 1))))(x, y)
    (xx, _), (_, yy) = jax.jit(jax.vmap(jax.hessian(psi, (0, 1))))(x, y)
    found = deflection(x, y, *SOFTENED[profile], **options)
    np.testing.assert_allclose(found, gradient, rtol=1e-10)
    found = convergence(x, y, *SOFTENED[profile], **options)
    np.testing.assert_allclose(found, (xx + yy) / 2, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("profile", LENSES)
def test_a_grid_without_jit_is_a_loop_over_points_within_jit(profile):
    x, y = physics.pixel_grid(6, 0.4)
    options = {"center_x": 0.1, "center_y": -0.2}
    found = [
        function(x, y, *LENSES[profile], **options) for function in lens_profiles.functions(profile)
    ]
    found = np.stack([found[0], *found[1], found[2]], -1).reshape(36, 4)
    row = [*LENSES[profile], 0.1, -0.2]
    table = np.column_stack([np.ravel(x), np.ravel(y), *np.broadcast_to(row, (36, len(row))).T])
    table = np.resize(table, (lens_profiles.NUMBER, table.shape[1]))
    expected = lens_profiles.values(profile, table)[:36]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_a_truncated_sphere_is_isothermal_between_core_and_truncation():
    sigma0 = physics.pseudo_jaffe_sigma0(1.3, 1e-6, 1e6)
    x, y = jnp.asarray(np.random.default_rng(1).uniform(-2, 2, (2, 50)))
    found = physics.pseudo_jaffe_deflection(x, y, sigma0, 1e-6, 1e6)
    np.testing.assert_allclose(found, physics.sis_deflection(x, y, 1.3), rtol=1e-5, atol=1e-5)


def test_a_truncated_sphere_has_a_finite_mass():
    """Far away it deflects as a point of theta_E^2 = 2 sigma0 Ra Rs."""
    found, _ = physics.pseudo_jaffe_deflection(jnp.asarray([1e5]), jnp.zeros(1), 0.7, 0.1, 2.0)
    np.testing.assert_allclose(found, 2 * 0.7 * 0.1 * 2.0 / 1e5, rtol=1e-4)


def test_vmap_over_lenses_is_a_loop_over_them():
    x, y = physics.pixel_grid(5, 0.5)
    lenses = np.asarray([[0.3, 1.8, 0.1, 0.0], [1.0, 2.0, 0.0, 0.0], [1.7, 2.3, -0.2, 0.4]])
    together = jax.vmap(lambda lens: physics.epl_deflection(x, y, *lens))(lenses)
    one_by_one = [physics.epl_deflection(x, y, *lens) for lens in lenses]
    np.testing.assert_allclose(
        np.stack(together, 1), np.asarray(one_by_one), rtol=1e-12, atol=1e-14
    )
