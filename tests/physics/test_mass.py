"""Mass profiles against their own derivatives, finite differences, and lenstronomy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics

PROFILES = {
    "sis": (
        physics.sis_potential,
        physics.sis_deflection,
        (1.3,),
        {"center_x": 0.1, "center_y": -0.2},
    ),
    "shear": (physics.shear_potential, physics.shear_deflection, (0.11, -0.07), {}),
    "point_mass": (
        physics.point_mass_potential,
        physics.point_mass_deflection,
        (0.4,),
        {"center_x": -0.3, "center_y": 0.25},
    ),
}
LENSTRONOMY = {
    "sis": ("SIS", ("theta_E",)),
    "shear": ("SHEAR", ("gamma1", "gamma2")),
    "point_mass": ("POINT_MASS", ("theta_E",)),
}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def points(number=200, seed=0, reach=2.5):
    x, y = np.random.default_rng(seed).uniform(-reach, reach, (2, number))
    return jnp.asarray(x), jnp.asarray(y)


def at_a_point(function):
    """A scalar function of a position, for derivatives."""
    return lambda x, y: function(x[None], y[None])[0]


@pytest.mark.parametrize("name", PROFILES)
def test_deflection_is_the_gradient_of_its_potential(name):
    potential, deflection, values, options = PROFILES[name]
    x, y = points()
    psi = at_a_point(lambda x, y: potential(x, y, *values, **options))
    expected = jax.vmap(jax.grad(psi, (0, 1)))(x, y)
    np.testing.assert_allclose(
        deflection(x, y, *values, **options), expected, rtol=1e-10, atol=1e-12
    )


def test_sis_convergence_is_half_the_laplacian_of_its_potential():
    _, _, values, options = PROFILES["sis"]
    x, y = points()
    for core in (1e-8, 0.05):
        psi = at_a_point(
            lambda x, y, c=core: physics.sis_potential(x, y, *values, core=c, **options)
        )
        hessian = jax.vmap(jax.hessian(psi, (0, 1)))(x, y)
        laplacian = hessian[0][0] + hessian[1][1]
        found = physics.sis_convergence(x, y, *values, core=core, **options)
        np.testing.assert_allclose(found, laplacian / 2, rtol=1e-6)


@pytest.mark.parametrize("name", PROFILES)
def test_deflection_is_lenstronomy_s(name):
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model", exc_type=ImportError)
    model, parameters = LENSTRONOMY[name]
    _, deflection, _, _ = PROFILES[name]
    generator = np.random.default_rng(1)
    for _ in range(200):
        x, y = generator.uniform(-2.5, 2.5, (2, 3))
        if name == "shear":
            values, center = generator.uniform(-0.3, 0.3, 2), {}
        else:
            values = generator.uniform(0.01, 2, 1)
            center = dict(zip(("center_x", "center_y"), generator.uniform(-1, 1, 2), strict=True))
        oracle = lens_model.LensModel([model])
        expected = oracle.alpha(x, y, [dict(zip(parameters, values, strict=True)) | center])
        found = deflection(jnp.asarray(x), jnp.asarray(y), *values, **center)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", PROFILES)
def test_gradients_in_the_parameters_are_those_of_finite_differences(name):
    _, deflection, values, options = PROFILES[name]
    x, y = points(20)

    def total(parameters):
        alpha_x, alpha_y = deflection(x, y, *parameters, **options)
        return jnp.sum(jnp.sin(alpha_x) + jnp.cos(alpha_y))

    parameters = jnp.asarray(values)
    step = 1e-6
    for index, found in enumerate(jax.grad(total)(parameters)):
        nudge = step * (jnp.arange(len(values)) == index)
        expected = (total(parameters + nudge) - total(parameters - nudge)) / (2 * step)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", PROFILES)
def test_value_and_gradient_are_finite_at_the_centre_and_for_no_mass(name, dtype):
    _, deflection, values, _ = PROFILES[name]
    for scale in (0.0, 1.0):

        def total(x, y, parameters):
            return sum(jnp.sum(alpha) for alpha in deflection(x, y, *parameters))

        arguments = jnp.zeros(1, dtype), jnp.zeros(1, dtype), scale * jnp.asarray(values, dtype)
        assert np.isfinite(total(*arguments))
        for gradient in jax.grad(total, (0, 1, 2))(*arguments):
            assert np.isfinite(gradient).all()


def test_sis_deflection_at_the_centre_is_its_symmetric_limit():
    alpha = physics.sis_deflection(jnp.zeros(1), jnp.zeros(1), 1.3)
    np.testing.assert_array_equal(alpha, np.zeros((2, 1)))


@pytest.mark.parametrize("name", PROFILES)
def test_float32_is_within_three_microarcseconds(name):
    _, deflection, values, options = PROFILES[name]
    x, y = points()
    expected = deflection(x, y, *values, **options)
    found = deflection(x.astype(jnp.float32), y.astype(jnp.float32), *values, **options)
    assert found[0].dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)


def random_masses(number, seed=2):
    generator = np.random.default_rng(seed)
    return jnp.asarray(
        np.column_stack(
            [generator.uniform(0.01, 0.1, number), generator.uniform(-2, 2, (number, 2))]
        )
    )


def test_many_point_masses_deflect_as_the_sum_of_each():
    x, y = points(50)
    masses = random_masses(7)
    expected = np.zeros((2, 50))
    for theta_E, center_x, center_y in np.asarray(masses):
        distance = np.stack([np.asarray(x) - center_x, np.asarray(y) - center_y])
        expected += theta_E**2 * distance / (distance**2).sum(0)
    found = physics.point_masses_deflection(x, y, masses)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_padding_with_masses_of_nothing_changes_no_bit():
    x, y = points(50)
    masses = random_masses(7)
    padded = jnp.concatenate([masses, jnp.zeros((5, 3))])
    deflection = jax.jit(physics.point_masses_deflection)
    np.testing.assert_array_equal(deflection(x, y, padded), deflection(x, y, masses))


def test_vmap_over_lenses_is_a_loop_over_them():
    x, y = points(30)
    theta_E = jnp.asarray([0.3, 1.0, 1.7])
    together = jax.vmap(functools.partial(physics.sis_deflection, x, y))(theta_E)
    one_by_one = [physics.sis_deflection(x, y, value) for value in theta_E]
    np.testing.assert_allclose(np.stack(together, 1), np.asarray(one_by_one), rtol=1e-14)
