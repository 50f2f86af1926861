"""Multipoles against lenstronomy and finite differences of their potential."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics

LENS = {"phi_m": 0.4, "center_x": 0.1, "center_y": -0.2}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def positions():
    angle = np.linspace(0, 2 * np.pi, 23)
    radius = np.linspace(0.3, 2.5, 23)
    return jnp.asarray(radius * np.cos(angle)), jnp.asarray(radius * np.sin(angle))


@pytest.mark.parametrize("m", [2, 3, 4])
def test_multipoles_agree_with_lenstronomy(m):
    multipole = pytest.importorskip("lenstronomy.LensModel.Profiles.multipole").Multipole()
    x, y = positions()
    arguments = (np.asarray(x), np.asarray(y), m, 0.03)
    np.testing.assert_allclose(
        physics.multipole_potential(x, y, 0.03, m=m, **LENS),
        multipole.function(*arguments, **LENS),
        atol=1e-12,
    )
    np.testing.assert_allclose(
        physics.multipole_deflection(x, y, 0.03, m=m, **LENS),
        multipole.derivatives(*arguments, **LENS),
        atol=1e-12,
    )
    xx, _, _, yy = multipole.hessian(*arguments, **LENS)
    np.testing.assert_allclose(
        physics.multipole_convergence(x, y, 0.03, m=m, **LENS), (xx + yy) / 2, atol=1e-12
    )


@pytest.mark.parametrize("m", [3, 4])
def test_deflection_is_the_slope_of_the_potential(m):
    x, y = positions()
    step = 1e-5

    def potential(dx, dy):
        return physics.multipole_potential(x + dx, y + dy, 0.03, m=m, **LENS)

    along_x = (potential(step, 0) - potential(-step, 0)) / (2 * step)
    along_y = (potential(0, step) - potential(0, -step)) / (2 * step)
    found = physics.multipole_deflection(x, y, 0.03, m=m, **LENS)
    np.testing.assert_allclose(found, (along_x, along_y), atol=1e-9)
    kappa = physics.convergence(lambda x, y: physics.multipole_deflection(x, y, 0.03, m=m, **LENS), x, y)
    np.testing.assert_allclose(kappa, physics.multipole_convergence(x, y, 0.03, m=m, **LENS), atol=1e-12)


def test_order_below_two_is_rejected():
    with pytest.raises(ValueError, match="at least 2"):
        physics.multipole_deflection(*positions(), 0.03, m=1, **LENS)
