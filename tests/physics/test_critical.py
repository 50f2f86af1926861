"""Critical curves and caustics compared with closed forms."""

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


def critical_radius(phi, theta_E, gamma, angle):
    """Critical radius, in the direction phi, of an isothermal sphere with shear."""
    return theta_E * (1 - gamma * np.cos(2 * (phi - angle))) / (1 - gamma**2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-11), (jnp.float32, 2e-6)])
def test_critical_points_of_sheared_sphere_match_closed_form(dtype, tolerance):
    theta_E, gamma, angle = 1.2, 0.15, 0.4
    gamma1, gamma2 = gamma * np.cos(2 * angle), gamma * np.sin(2 * angle)
    x, y = (axis.astype(dtype) for axis in physics.pixel_grid((40, 50), 0.1))

    @jax.jit
    def points(theta_E, gamma1, gamma2):
        return physics.critical_points(sheared(theta_E, gamma1, gamma2), x, y)

    found = points(*(jnp.asarray(value, dtype) for value in (theta_E, gamma1, gamma2)))
    assert found.x.shape == (40 * 49 + 39 * 50,)
    assert all(np.isfinite(part).all() for part in found)
    mask = np.asarray(found.mask)
    assert mask.sum() > 60
    phi = np.arctan2(found.y, found.x)[mask]
    radius = critical_radius(phi, theta_E, gamma, angle)
    np.testing.assert_allclose(np.hypot(found.x, found.y)[mask], radius, atol=tolerance)
    theta = radius * np.array([np.cos(phi), np.sin(phi)])
    shear = np.array([[gamma1, gamma2], [gamma2, -gamma1]])
    caustic = theta - shear @ theta - theta_E * theta / radius
    beta = np.stack([found.beta_x, found.beta_y])[:, mask]
    np.testing.assert_allclose(beta, caustic, atol=tolerance)


def test_derivatives_of_critical_points_match_finite_differences():
    x, y = physics.pixel_grid(16, 0.25)

    @jax.jit
    def radii(theta_E):
        points = physics.critical_points(sheared(theta_E, 0.1, 0.0), x, y)
        return jnp.where(points.mask, points.x**2 + points.y**2, 0)

    _, found = jax.jvp(radii, (1.2,), (1.0,))
    expected = (radii(1.2 + 1e-6) - radii(1.2 - 1e-6)) / 2e-6
    assert np.count_nonzero(expected) > 20
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_critical_curve_is_closed_and_caustic_is_astroid():
    deflection = sheared(1.2, 0.1, 0.0)
    # An odd grid has a point at the softened center; the tiny critical curve around it must be omitted.
    (curve,) = physics.critical_curves(deflection, *physics.pixel_grid(51, 0.1))
    np.testing.assert_array_equal(curve[0], curve[-1])
    assert np.linalg.norm(np.diff(curve, axis=0), axis=1).max() < 0.1 * 2**0.5
    phi = np.unwrap(np.arctan2(curve[:, 1], curve[:, 0]))
    assert abs(phi[-1] - phi[0]) == pytest.approx(2 * np.pi)
    np.testing.assert_allclose(np.hypot(*curve.T), critical_radius(phi, 1.2, 0.1, 0.0), atol=1e-11)
    (caustic,) = physics.caustics(deflection, [curve])
    # The cusps are at 2 gamma theta_E / (1 +- gamma) from the origin.
    cusps = abs(caustic).max(axis=0)
    np.testing.assert_allclose(cusps, [0.24 / 1.1, 0.24 / 0.9], rtol=5e-3)


def test_open_and_distant_curves_are_not_connected():
    """A grid narrower than the Einstein ring, and two masses far from each other."""
    x, y = physics.pixel_grid((80, 40), 0.05)
    curves = physics.critical_curves(sheared(1.2, 0.0, 0.0), x, y)
    assert len(curves) == 2
    assert all((curve[0] != curve[-1]).any() for curve in curves)

    def two_masses(x, y):
        masses = jnp.asarray([[0.3, 0.0, 1.2], [0.4, 0.0, -1.2]])
        return physics.point_masses_deflection(x, y, masses)

    curves = physics.critical_curves(two_masses, *physics.pixel_grid((100, 60), 0.05))
    middles = sorted(curve[:-1].mean(axis=0)[1] for curve in curves if len(curve) > 10)
    np.testing.assert_allclose(middles, [-1.2, 1.2], atol=0.05)


@pytest.mark.parametrize(("offset", "sign"), [(0.001, -1), (-0.001, 1)])
def test_branches_in_one_cell_are_not_connected(offset, sign):
    """The two branches of x y = -+ 0.001 pass through opposite corners of one cell."""

    def deflection(x, y):  # the determinant of d beta / d theta is x y + offset
        return x - (x**2 * y / 2 + offset * x), jnp.zeros_like(y)

    x, y = physics.pixel_grid(4, 0.5)
    curves = physics.critical_curves(deflection, x, y)
    assert len(curves) == 2
    for curve in curves:
        inner = curve[(abs(curve) < 0.3).all(axis=1)]
        assert len(inner) == 2
        assert (np.sign(inner[:, 0] * inner[:, 1]) == sign).all()
        assert (np.sign(inner[0]) == np.sign(inner[1])).all()


@pytest.mark.parametrize("shape", [(1, 5), (5,)])
def test_grid_without_cells_raises_an_error(shape):
    # The runtime type checks of the tests raise a TypeError first for one axis.
    with pytest.raises((ValueError, TypeError), match=r"expected \(rows, columns\)|Type-check"):
        physics.critical_points(sheared(1.2, 0.1, 0.0), jnp.zeros(shape), jnp.zeros(shape))


def test_shear_alone_has_no_critical_curve():
    assert physics.critical_curves(sheared(0.0, 0.1, 0.0), *physics.pixel_grid(20, 0.2)) == []
