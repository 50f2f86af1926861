"""Halos compared with lenstronomy's and astropy's cosmology and with the integral of their convergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics
from lensjax.substructure import Halo

Z = (0.3, 0.8)


def critical_mass():
    """Mass of one square arcsec at the critical surface density, c^2 D_s / (4 pi G D_l D_ls)."""
    cosmology = pytest.importorskip("astropy.cosmology").FlatLambdaCDM(70, 0.3)
    constants, units = pytest.importorskip("astropy.constants"), pytest.importorskip("astropy.units")
    comoving = [cosmology.comoving_distance(z) for z in Z]
    lens, ratio = comoving[0] / (1 + Z[0]), comoving[1] / (comoving[1] - comoving[0])  # D_l, D_s / D_ls
    mass = constants.c**2 / (4 * np.pi * constants.G) * ratio * lens * units.arcsec.to(units.rad) ** 2
    return float(mass.to_value(units.Msun))


def test_critical_mass_agrees_with_astropy():
    assert Halo(*Z).critical_mass() == pytest.approx(critical_mass(), rel=1e-3)


def test_nfw_halo_agrees_with_lenstronomy():
    cosmo = pytest.importorskip("lenstronomy.Cosmo.lens_cosmo")
    cosmology = pytest.importorskip("astropy.cosmology").FlatLambdaCDM(70, 0.3)
    oracle = cosmo.LensCosmo(*Z, cosmo=cosmology)
    mass = np.array([1e8, 1e9, 1e10])
    found = Halo(*Z, "nfw").parameters(mass, 1.2)
    concentration = 5.71 * (mass / (2e12 / 0.7)) ** -0.084 * 1.3**-0.47  # Duffy et al. 2008
    expected = np.transpose(
        [oracle.nfw_physical2angle(M=m, c=c) for m, c in zip(mass, concentration, strict=True)]
    )
    np.testing.assert_allclose(found["Rs"], expected[0], rtol=1e-3)
    np.testing.assert_allclose(found["alpha_Rs"], expected[1], rtol=1e-3)


def test_pseudo_jaffe_halo_has_mass_and_tidal_radius():
    halo, theta_E, mass = Halo(*Z), 1.2, 3e9
    with jax.enable_x64(True):
        values = {name: float(value) for name, value in halo.parameters(mass, theta_E).items()}
        radius = jnp.asarray(np.geomspace(1e-4, 3e3, 20001))
        kappa = np.asarray(
            physics.pseudo_jaffe_convergence(
                radius, jnp.zeros_like(radius), values["sigma0"], Ra=values["Ra"], Rs=values["Rs"]
            )
        )
    total = np.trapezoid(2 * np.pi * np.asarray(radius) * kappa, radius) * critical_mass()
    assert total == pytest.approx(mass, rel=2e-3)
    # The Einstein radius b of the sphere without truncation, and the tidal radius sqrt(b theta_E).
    b = 2 * values["sigma0"] * values["Ra"]
    assert values["Rs"] == pytest.approx(np.sqrt(b * theta_E), rel=0.01)


def test_point_mass_halo_has_the_einstein_radius():
    found = Halo(*Z, "point_mass").parameters(np.array([1e9]), 1.2)["theta_E"]
    assert found == pytest.approx([np.sqrt(1e9 / (np.pi * critical_mass()))], rel=1e-3)
