"""Coordinates and parameters of non-native byte order, such as columns of a FITS table."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from lensjax import physics

X, Y = np.array([1.5, -0.9, 0.3]), np.array([0.2, 0.4, -1.1])


def sphere(x, y):
    return physics.sis_deflection(x, y, jnp.asarray(1.2), center_x=jnp.asarray(0.1))


FUNCTIONS = {
    "sis": sphere,
    "sie": lambda x, y: physics.sie_deflection(x, y, 1.2, e1=0.1, e2=0.05, center_y=jnp.asarray(0.1)),
    "shear": lambda x, y: physics.external_shear_deflection(x, y, jnp.asarray(0.05), 0.02),
    "sheet": lambda x, y: physics.mass_sheet_deflection(x, y, jnp.asarray(0.1)),
    "halos": lambda x, y: physics.superpose(
        physics.sis_deflection, x, y, x**2, center_x=x[::-1], center_y=y[::-1]
    ),
    "sersic": lambda x, y: physics.sersic(x, y, 1.0, R_sersic=1.0, n_sersic=1.0, center_x=jnp.asarray(0.1)),
    "radius": lambda x, y: physics.elliptical_radius(x, y, 0.1, 0.2),
    "rays": lambda x, y: physics.ray_shooting(lambda x, y: (0.1 * x, 0.2 * y), x, y),
    "image pair": lambda x, y: physics.sis_image_pair(x, y, 1.2),
    "same source": lambda x, y: physics.same_source_loss(sphere, x, y),
    "interpolation": lambda x, y: physics.interpolate(jnp.eye(5), x, y, jnp.asarray(0.8)),
}


@pytest.fixture(autouse=True)
def _numpy_arrays():
    jaxtyping.config.update("jaxtyping_disable", True)  # the signatures name JAX arrays
    with jax.enable_x64(True):
        yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_byte_order_does_not_change_results(name):
    function = FUNCTIONS[name]
    expected = function(jnp.asarray(X), jnp.asarray(Y))
    found = function(X.astype(">f8"), Y.astype(">f8"))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-12), found, expected)


def test_numbers_are_accepted_as_coordinates():
    """An NFW halo deflects by alpha_Rs at its scale radius."""
    alpha_x, alpha_y = physics.nfw_deflection(2.0, 0.0, 0.7, Rs=2.0)
    np.testing.assert_allclose((alpha_x, alpha_y), (0.7, 0.0), rtol=1e-7)


def test_sphere_deflects_by_its_einstein_radius():
    alpha = physics.sis_deflection(X.astype(">f8"), Y.astype(">f8"), 1.2, center_x=jnp.asarray(0.1))
    radius = np.hypot(X - 0.1, Y)
    np.testing.assert_allclose(alpha, (1.2 * (X - 0.1) / radius, 1.2 * Y / radius), rtol=1e-12)
