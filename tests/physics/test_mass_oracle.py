"""Mass profiles compared with lenstronomy and SciPy, and float32 results with float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import lens_profiles
from scipy import special

from lensjax import physics


def assert_agree(found, expected):
    """Asserts that deflection, convergence and potential agree to 1e-8."""
    length = np.hypot(expected[:, 1], expected[:, 2])
    error = np.hypot(*(found[:, 1:3] - expected[:, 1:3]).T)
    np.testing.assert_array_less(error, 1e-8 * length)
    np.testing.assert_allclose(found[:, 3], expected[:, 3], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found[:, 0], expected[:, 0], rtol=1e-8, atol=1e-8 * abs(expected[:, 0]).mean())


@pytest.mark.parametrize("profile", lens_profiles.MASS)
def test_profiles_match_golden_file(profile):
    with np.load(lens_profiles.GOLDEN / "mass.npz") as golden, jax.enable_x64(True):
        table, expected = golden[profile], golden[f"{profile}_truth"]
        found = lens_profiles.values(profile, np.resize(table, (lens_profiles.NUMBER, table.shape[1])))
        assert_agree(found[: len(table)], expected)


@pytest.mark.parametrize("profile", lens_profiles.MASS)
def test_profiles_match_lenstronomy(profile):
    pytest.importorskip("lenstronomy.LensModel.lens_model", exc_type=ImportError)
    table = lens_profiles.draw(profile, seed=21)
    expected = lens_profiles.tool["lens_truth"](profile, table)
    with jax.enable_x64(True):
        assert_agree(lens_profiles.values(profile, table), expected)


ORDINARY = {
    "sis": ((1.0, 2.0),),
    "sie": ((1.0, 2.0), (-0.35, 0.35), (-0.35, 0.35)),
    "epl": ((1.0, 2.0), (1.7, 2.3), (-0.35, 0.35), (-0.35, 0.35)),
    "external_shear": ((-0.3, 0.3), (-0.3, 0.3)),
    "mass_sheet": ((-0.3, 0.3),),
    "point_mass": ((0.05, 0.5),),
    "nfw": ((2.0, 10.0), (0.5, 1.5)),
    "pseudo_jaffe": ((0.1, 2.0), (0.01, 0.5), (0.6, 5.0)),
}


@pytest.mark.parametrize("profile", lens_profiles.MASS)
def test_float32_deflections_are_accurate_to_three_microarcseconds(profile):
    generator = np.random.default_rng(5)
    number = lens_profiles.NUMBER
    parts = [generator.uniform(-3.75, 3.75, (2, number))]
    parts += [generator.uniform(*limits, (1, number)) for limits in ORDINARY[profile]]
    if profile != "external_shear":
        parts.append(generator.uniform(-0.1, 0.1, (2, number)))
    table = np.concatenate(parts).T.astype(np.float32)
    found = lens_profiles.values(profile, table)
    assert found.dtype == np.float32
    with jax.enable_x64(True):
        expected = lens_profiles.values(profile, table.astype(np.float64))
    np.testing.assert_allclose(found[:, 1:3], expected[:, 1:3], rtol=0, atol=3e-6)


@pytest.mark.parametrize("terms", [1, 2, 3])
@pytest.mark.parametrize("profile", ["sie", "epl"])
def test_short_series_and_derivatives_agree_with_polynomials(profile, terms):
    """The coefficients are those of 2F1(1, b; c; u), with u = 2 v - 2 v^2 + ..."""

    def polynomial(parameters):
        x, y, e1, e2, gamma = parameters
        t, z, e = (gamma if profile == "epl" else 2.0) - 1, x + 1j * y, e1 + 1j * e2
        w = z - e * jnp.conj(z)
        u = -jnp.conj(e) * w / jnp.conj(w)
        v, first = u / (2 - u), t / (4 - t)
        second = first * (t + 2) / (6 - t)
        angular = sum([1, 2 * first * v, (4 * second - 2 * first) * v**2][:terms])
        alpha = (1.2 * jnp.sqrt(1 - e1**2 - e2**2) / abs(w)) ** t * w * angular
        return jnp.stack([alpha.real, alpha.imag])

    def series(parameters):
        x, y, e1, e2, gamma = parameters
        options = {"e1": e1, "e2": e2, "terms": terms, "core": 1e-9}
        if profile == "sie":
            return jnp.stack(physics.sie_deflection(x, y, 1.2, **options))
        return jnp.stack(physics.epl_deflection(x, y, 1.2, gamma=gamma, **options))

    with jax.enable_x64(True):
        parameters = jnp.array([0.7, -0.4, 0.15, -0.2, 1.8])
        for derive in (lambda f: f, jax.jacfwd, jax.hessian):
            np.testing.assert_allclose(
                derive(series)(parameters), derive(polynomial)(parameters), rtol=1e-12, atol=1e-12
            )


@pytest.mark.parametrize("gamma", [1.4, 2.0, 2.6])
@pytest.mark.parametrize(
    ("axis_ratio", "tolerance", "options"),
    [
        (0.3, 1e-12, {}),
        (0.2, 1e-8, {}),
        (0.1, 2e-5, {}),
        (0.05, 1e-3, {}),
        (0.05, 1e-12, {"terms": 180}),
        (0.3, 1e-12, {"terms": 90}),
        (0.2, 1e-12, {"terms": 90}),
        (0.1, 1e-12, {"terms": 90}),
    ],
)
def test_elliptical_series_converges_for_flattened_lenses(axis_ratio, tolerance, options, gamma):
    """The reference is SciPy's hypergeometric function."""
    x, y = np.random.default_rng(6).uniform(-2, 2, (2, 100))
    with jax.enable_x64(True):
        e1, e2 = (float(part) for part in physics.ellipticity(axis_ratio, 0.4))
        found = physics.epl_deflection(
            jnp.asarray(x), jnp.asarray(y), 1.2, gamma=gamma, e1=e1, e2=e2, **options
        )
    t, z, e = gamma - 1, x + 1j * y, e1 + 1j * e2
    w = z - e * z.conj()
    angular = special.hyp2f1(1, t / 2, 2 - t / 2, -np.conj(e) * w / w.conj())
    expected = (1.2 * np.sqrt(1 - abs(e) ** 2) / abs(w)) ** t * w * angular
    error = abs(np.asarray(found[0]) + 1j * np.asarray(found[1]) - expected)
    np.testing.assert_array_less(error, tolerance * abs(expected))
