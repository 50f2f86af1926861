"""Time delays compared with closed forms and lenstronomy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def sphere(x, y):
    return physics.sis_potential(x, y, 1.2)


def test_arrival_time_is_stationary_at_images():
    beta = 0.3
    x, y = jnp.asarray([1.2 + beta, beta - 1.2]), jnp.zeros(2)
    slope = jax.grad(lambda x, y: physics.fermat_potential(sphere, x, y, beta, 0.0).sum(), (0, 1))
    np.testing.assert_allclose(slope(x, y), np.zeros((2, 2)), atol=1e-12)


def test_gradient_of_fermat_potential_is_lens_equation():
    x, y = (jnp.asarray(part) for part in np.random.default_rng(0).uniform(-2, 2, (2, 20)))
    slope = jax.grad(lambda x, y: physics.fermat_potential(sphere, x, y, 0.3, -0.1).sum(), (0, 1))
    beta_x, beta_y = physics.sis_lens_equation(x, y, 1.2)
    np.testing.assert_allclose(slope(x, y), (beta_x - 0.3, beta_y + 0.1), rtol=1e-10, atol=1e-12)


def test_delay_between_images_of_sphere_matches_closed_form():
    """The delay is 2 theta_E beta times the time-delay distance over c; the inner image arrives later."""
    beta, theta_E = 0.3, 1.2
    x = jnp.asarray([theta_E + beta, beta - theta_E])
    delay = physics.time_delay(sphere, x, jnp.zeros(2), beta, 0.0, 0.5, 1.5)
    astronomical_unit_day = 1.49597870700e11 / 299_792_458 / 86_400
    parsec = 180 * 3600 / np.pi  # in astronomical units
    distance = float(physics.time_delay_distance(0.5, 1.5)) * 1e6 * parsec * astronomical_unit_day
    expected = 2 * theta_E * beta * (np.pi / 180 / 3600) ** 2 * distance
    np.testing.assert_allclose(delay[1] - delay[0], expected, rtol=1e-9)
    np.testing.assert_allclose(physics.arrival_time_differences(delay), [0, expected], rtol=1e-9, atol=1e-12)


def test_time_delay_matches_lenstronomy():
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model", exc_type=ImportError)
    cosmology = pytest.importorskip("astropy.cosmology")
    flat = cosmology.FlatLambdaCDM(H0=67.0, Om0=0.31, Tcmb0=0)
    oracle = lens_model.LensModel(["SIS", "SHEAR"], z_lens=0.4, z_source=2.1, cosmo=flat)
    parameters = [{"theta_E": 1.2}, {"gamma1": 0.1, "gamma2": -0.05}]
    x, y = np.random.default_rng(1).uniform(-2, 2, (2, 50))

    def potential(x, y):
        return sphere(x, y) + physics.external_shear_potential(x, y, 0.1, -0.05)

    expected = oracle.arrival_time(x, y, parameters, x_source=0.1, y_source=0.2)
    found = physics.time_delay(
        potential, jnp.asarray(x), jnp.asarray(y), 0.1, 0.2, 0.4, 2.1, H0=67.0, Om0=0.31
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)  # limited by lenstronomy's constants


def test_delays_are_inversely_proportional_to_hubble_constant():
    def delay(H0):
        x = jnp.asarray([1.5, -0.9])
        return physics.time_delay(sphere, x, jnp.zeros(2), 0.3, 0.0, 0.5, 1.5, H0=H0)

    slope = jax.jacfwd(delay)(70.0)
    np.testing.assert_allclose(slope, -np.asarray(delay(70.0)) / 70, rtol=1e-10)


def test_float32_delays_are_accurate_to_ten_seconds():
    x = np.array([1.5, -0.9])
    expected = physics.time_delay(sphere, jnp.asarray(x), jnp.zeros(2), 0.3, 0.0)
    with jax.enable_x64(False):
        found = physics.time_delay(sphere, jnp.asarray(x, jnp.float32), jnp.zeros(2), 0.3, 0.0)
        assert found.dtype == jnp.float32
    np.testing.assert_allclose(np.diff(found), np.diff(expected), atol=10 / 86_400)


def test_masked_images_have_neither_delay_nor_gradient():
    delay = jnp.asarray([30.0, 10.0, -5.0])
    mask = jnp.asarray([True, True, False])
    np.testing.assert_array_equal(physics.arrival_time_differences(delay, mask), [20, 0, 0])
    gradient = jax.jacrev(physics.arrival_time_differences)(delay, mask)
    np.testing.assert_array_equal(gradient, [[1, -1, 0], [0, 0, 0], [0, 0, 0]])
    none = jnp.zeros(3, bool)
    np.testing.assert_array_equal(physics.arrival_time_differences(delay, none), np.zeros(3))
    assert np.isfinite(jax.jacrev(physics.arrival_time_differences)(delay, none)).all()
