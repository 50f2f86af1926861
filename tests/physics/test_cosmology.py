"""Distances and masses compared with astropy, independent constants and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from lensjax import physics


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def flat():
    cosmology = pytest.importorskip("astropy.cosmology")
    return cosmology.FlatLambdaCDM(H0=67.4, Om0=0.315, Tcmb0=0)


@pytest.mark.parametrize(("z_lens", "z_source"), [(0.5, 1.0), (0.05, 0.1), (0.9, 6.0)])
def test_distances_match_astropy(flat, z_lens, z_source):
    found = physics.lensing_distances(z_lens, z_source, H0=67.4, Om0=0.315)
    expected = [
        flat.angular_diameter_distance(z_lens).value,
        flat.angular_diameter_distance(z_source).value,
        (flat.comoving_distance(z_source) - flat.comoving_distance(z_lens)).value / (1 + z_source),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    expected = [flat.luminosity_distance(z).value for z in (z_lens, z_source)]
    found = physics.lensing_distances(z_lens, z_source, H0=67.4, Om0=0.315, convention="deeplensesim")
    np.testing.assert_allclose(found, [*expected, expected[1] - expected[0]], rtol=1e-8)


def test_masses_and_dispersions_match_astropy_constants():
    constants = pytest.importorskip("astropy.constants")
    lens, source, between = (
        1e6 * constants.pc.value * float(distance)
        for distance in physics.lensing_distances(0.3, 2.0, H0=67.4, Om0=0.315)
    )
    arcsec = np.pi / 180 / 3600
    radius = 1.1 * arcsec
    mass = radius**2 * constants.c.value**2 / (4 * constants.G.value) * lens * source / between
    found = physics.einstein_mass(1.1, 0.3, 2.0, H0=67.4, Om0=0.315)
    np.testing.assert_allclose(found, mass / constants.M_sun.value, rtol=1e-4)  # limited by the accuracy of G
    expected = 4 * np.pi * (230e3 / constants.c.value) ** 2 * between / source / arcsec
    found = physics.sis_einstein_radius(230.0, 0.3, 2.0, H0=67.4, Om0=0.315)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("convention", ["angular_diameter", "deeplensesim"])
def test_einstein_radius_conversions_are_inverses(convention):
    theta_E = jnp.asarray([1e-5, 0.3, 1.66])
    mass = physics.einstein_mass(theta_E, 0.4, 1.7, convention=convention)
    back = physics.einstein_radius(mass, 0.4, 1.7, convention=convention)
    np.testing.assert_allclose(back, theta_E, rtol=1e-12)
    dispersion = physics.sis_velocity_dispersion(theta_E, 0.4, 1.7, convention=convention)
    back = physics.sis_einstein_radius(dispersion, 0.4, 1.7, convention=convention)
    np.testing.assert_allclose(back, theta_E, rtol=1e-12)


def test_einstein_mass_of_known_radius_in_both_conventions():
    np.testing.assert_allclose(physics.einstein_mass(1.6645), 1e12, rtol=1e-4)
    np.testing.assert_allclose(physics.einstein_mass(1.2815, convention="deeplensesim"), 1e12, rtol=1e-4)


def test_einstein_mass_matches_isothermal_sphere():
    """The mass of an isothermal sphere within the projected radius R is pi sigma^2 R / G."""
    theta_E = physics.sis_einstein_radius(200.0)
    lens, _, _ = physics.lensing_distances(0.5, 1.0)
    radius = float(theta_E * lens) * np.pi / 180 / 3600 * 1e6  # pc
    expected = np.pi * 200.0**2 * radius / 4.30091e-3  # G in pc (km / s)^2 per solar mass
    np.testing.assert_allclose(physics.einstein_mass(theta_E), expected, rtol=1e-5)


@pytest.mark.parametrize("function", [physics.einstein_radius, physics.sis_einstein_radius])
@pytest.mark.parametrize("z_source", [0.2, 0.5])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_source_in_front_of_lens_is_not_lensed(dtype, z_source, function):
    redshifts = jnp.asarray([0.5, z_source], dtype)
    value, gradient = jax.value_and_grad(lambda z: function(jnp.asarray(100.0, dtype), z[0], z[1]))(redshifts)
    assert value == 0
    assert np.isfinite(gradient).all()


def test_gradients_match_finite_differences():
    def radius(values):
        return physics.einstein_radius(values[0] * 1e12, values[1], values[2])

    values = jnp.asarray([1.3, 0.5, 1.4])
    for index, found in enumerate(jax.grad(radius)(values)):
        nudge = 1e-6 * (jnp.arange(3) == index)
        expected = (radius(values + nudge) - radius(values - nudge)) / 2e-6
        np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_float32_mass_is_accurate_to_rounding():
    expected = physics.einstein_mass(1.1, 0.3, 2.0)
    with jax.enable_x64(False):
        found = physics.einstein_mass(jnp.asarray(1.1), jnp.asarray(0.3), jnp.asarray(2.0))
        assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=3e-6)


@pytest.mark.parametrize("Om0", [0.01, 0.3, 1.0])
def test_comoving_distances_match_quadrature_at_any_redshift(Om0):
    redshifts = np.array([[1e-6, 0.5], [10.0, 1100.0]])

    def integrand(log):
        return np.exp(log) * 299_792.458 / 70 / np.sqrt(Om0 * np.exp(3 * log) + 1 - Om0)

    options = {"epsabs": 0, "epsrel": 1e-12}
    expected = [[quad(integrand, 0, np.log1p(z), **options)[0] for z in row] for row in redshifts]
    found = physics.comoving_distance(redshifts, Om0=Om0)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_arrays_of_redshifts_are_broadcast(flat):
    lenses, sources = np.array([[0.3], [0.5], [1.0]]), np.array([0.4, 1.2, 2.0, 3.0])
    found = physics.time_delay_distance(lenses, sources, H0=67.4, Om0=0.315)
    lens, source = (flat.comoving_distance(z).value for z in (lenses, sources))
    expected = lens * source / (source - lens)  # the factors 1 + z cancel in a flat universe
    np.testing.assert_allclose(found, np.where(sources > lenses, expected, np.nan), rtol=1e-8)
    radii = physics.einstein_radius(np.array([10**12, 10**11]), lenses, 2, H0=67.4, Om0=0.315)
    one = physics.einstein_radius(1e11, 0.5, 2.0, H0=67.4, Om0=0.315)
    assert radii.shape == (3, 2)
    np.testing.assert_allclose(radii[1, 1], one, rtol=1e-12)


def test_float32_distance_between_neighbors_is_accurate():
    """The difference of two distances would lose four digits."""
    near = physics.lensing_distances(0.5, 0.5001)[2]
    with jax.enable_x64(False):
        found = physics.lensing_distances(0.5, 0.5001)[2]
    step = float(np.float32(0.5001) - np.float32(0.5)) / 1e-4
    np.testing.assert_allclose(found, near * step, rtol=1e-6)


def test_undefined_results_are_nan():
    distance = physics.lensing_distances
    assert np.isnan(distance(0.5, 0.3)[2])
    assert np.isnan(distance(0.5, 0.3, convention="deeplensesim")[2])
    assert np.isnan(physics.time_delay_distance(0.5, 0.3))
    assert np.isinf(physics.time_delay_distance(0.5, 0.5))
    assert np.isnan(physics.comoving_distance(-0.1))
    assert np.isnan(physics.comoving_distance(1.0, H0=0.0))
    assert np.isnan(physics.comoving_distance(1.0, Om0=-0.1))
    assert np.isnan(physics.comoving_distance(1100.0, Om0=0.0))
    assert np.isnan(physics.einstein_radius(1e12, -0.1, 1.0))


def test_einstein_radius_of_known_mass_in_both_conventions():
    correct = physics.einstein_radius(1e12)
    published = physics.einstein_radius(1e12, convention="deeplensesim")
    assert float(correct) == pytest.approx(1.6645, abs=5e-5)
    assert float(published) == pytest.approx(1.2815, abs=5e-5)


def test_einstein_radius_scales_as_square_root_of_mass():
    masses = jnp.asarray([0.0, 1e6, 4e6])
    radii = physics.einstein_radius(masses)
    assert radii[0] == 0
    np.testing.assert_allclose(radii[2], 2 * radii[1], rtol=1e-6)


def test_unknown_convention_is_rejected():
    # The runtime type checks of the tests raise a TypeError first.
    with pytest.raises((ValueError, TypeError), match="luminosity"):
        physics.lensing_distances(0.5, 1.0, convention="luminosity")
