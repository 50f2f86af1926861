"""Magnification, convergence and shear compared with closed forms, small areas and lenstronomy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.lenses import sheared

from lensjax import physics


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def points(number=100, seed=0):
    x, y = np.random.default_rng(seed).uniform(-2.5, 2.5, (2, number))
    return jnp.asarray(x), jnp.asarray(y)


def test_hessian_matches_lenstronomy():
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model", exc_type=ImportError)
    oracle = lens_model.LensModel(["SIS", "SHEAR", "POINT_MASS"])
    generator = np.random.default_rng(1)

    @jax.jit
    def found(x, y, theta_E, gamma1, gamma2, mass):
        def deflection(x, y):
            smooth = sheared(theta_E, gamma1, gamma2)(x, y)
            point = physics.point_mass_deflection(x, y, mass, center_x=0.3, center_y=-0.2)
            return smooth[0] + point[0], smooth[1] + point[1]

        return physics.hessian(deflection, x, y)

    for _ in range(200):
        x, y = generator.uniform(-2, 2, (2, 5))
        theta_E, mass, gamma1, gamma2 = generator.uniform((0.5, 0.01, -0.3, -0.3), (2, 0.5, 0.3, 0.3))
        parameters = [
            {"theta_E": theta_E},
            {"gamma1": gamma1, "gamma2": gamma2},
            {"theta_E": mass, "center_x": 0.3, "center_y": -0.2},
        ]
        f_xx, f_xy, f_yx, f_yy = oracle.hessian(x, y, parameters)
        np.testing.assert_allclose(
            found(jnp.asarray(x), jnp.asarray(y), theta_E, gamma1, gamma2, mass),
            np.stack([f_xx, f_xy, f_yx, f_yy]),
            rtol=1e-8,
            atol=1e-8,
        )


@pytest.mark.parametrize(("gamma", "angle"), [(0.0, 0.0), (0.2, 0.7)])
def test_magnification_of_sheared_sphere_matches_closed_form(gamma, angle):
    """det A = 1 - gamma^2 - (theta_E / r) (1 - gamma cos 2 (phi - phi_gamma))."""
    x, y = points()
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    gamma1, gamma2 = gamma * np.cos(2 * angle), gamma * np.sin(2 * angle)
    expected = 1 - gamma**2 - 1.2 / r * (1 - gamma * np.cos(2 * (phi - angle)))
    deflection = sheared(1.2, gamma1, gamma2)
    found = jax.jit(lambda x, y: physics.magnification(deflection, x, y))(x, y)
    np.testing.assert_allclose(1 / found, expected, rtol=1e-9, atol=1e-9)
    determinant = physics.inverse_magnification(deflection, x, y)
    np.testing.assert_allclose(determinant, expected, rtol=1e-9, atol=1e-9)


def test_magnification_is_the_signed_ratio_of_areas():
    deflection = sheared(1.2, 0.1, -0.05)
    x, y = points(20, seed=2)
    corner = 1e-5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    u, v = physics.ray_shooting(deflection, x[:, None] + corner[None, :, 0], y[:, None] + corner[None, :, 1])
    area = np.sum(u * np.roll(v, -1, 1) - np.roll(u, -1, 1) * v, axis=1) / 2
    found = physics.magnification(deflection, x, y)
    assert (found < 0).any()
    assert (found > 0).any()
    np.testing.assert_allclose(found, 4e-10 / area, rtol=1e-4)


def test_convergence_and_shear_match_the_profiles():
    x, y = points()
    deflection = sheared(1.2, 0.0, 0.0)
    expected = physics.sis_convergence(x, y, 1.2)
    np.testing.assert_allclose(physics.convergence(deflection, x, y), expected, rtol=1e-10)
    # The shear of an isothermal sphere is tangential, with the magnitude of its convergence.
    phi = np.arctan2(y, x)
    gamma1, gamma2 = physics.shear(deflection, x, y)
    np.testing.assert_allclose(gamma1, -expected * np.cos(2 * phi), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(gamma2, -expected * np.sin(2 * phi), rtol=1e-8, atol=1e-10)
    found = physics.shear(lambda x, y: physics.external_shear_deflection(x, y, 0.1, -0.2), x, y)
    np.testing.assert_allclose(found, np.tile([[0.1], [-0.2]], (1, x.size)), rtol=1e-12)


def test_magnification_gradients_match_finite_differences():
    x, y = points(10, seed=3)

    def total(values):
        return jnp.sum(jnp.tanh(physics.magnification(sheared(*values), x, y)))

    values = jnp.asarray([1.1, 0.08, -0.12])
    for index, found in enumerate(jax.grad(total)(values)):
        nudge = 1e-6 * (jnp.arange(3) == index)
        expected = (total(values + nudge) - total(values - nudge)) / 2e-6
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_magnification_is_zero_at_singular_center(dtype):
    zero = jnp.zeros((), dtype)

    def magnification(x, y, theta_E):
        return physics.magnification(sheared(theta_E, 0.1, 0.05), x, y)

    value, gradients = jax.value_and_grad(magnification, (0, 1, 2))(zero, zero, jnp.asarray(1.3, dtype))
    assert value == pytest.approx(0, abs=1e-15)
    assert np.isfinite(gradients).all()


def test_inverse_magnification_is_smooth_on_einstein_ring():
    deflection = sheared(1.0, 0.0, 0.0)
    one, zero = jnp.ones(()), jnp.zeros(())
    value, slope = jax.value_and_grad(lambda x: physics.inverse_magnification(deflection, x, zero))(one)
    assert value == pytest.approx(0, abs=1e-12)
    assert slope == pytest.approx(1, rel=1e-9)


def test_vmap_over_lenses_matches_loop():
    x, y = points(10)
    theta_E = jnp.asarray([0.5, 1.0, 1.5])

    def magnification(theta_E):
        return physics.magnification(sheared(theta_E, 0.1, 0.0), x, y)

    np.testing.assert_allclose(
        jax.vmap(magnification)(theta_E), np.stack([magnification(value) for value in theta_E]), rtol=1e-12
    )


@pytest.mark.parametrize("core", [1e-5, 1e-8])
def test_float32_gradient_vanishes_at_a_point_mass(core):
    zero = jnp.zeros((), jnp.float32)

    @jax.jit
    @jax.grad
    def slope(x):
        deflection = functools.partial(physics.point_mass_deflection, theta_E=1.2, core=core)
        return physics.magnification(deflection, x, zero)

    assert slope(zero) == 0
    assert np.isfinite(slope(jnp.float32(core)))
