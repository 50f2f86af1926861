"""First-order tests of the assumptions of a smooth model, on images that violate one of them."""

import dataclasses

import jax
import numpy as np
import pytest

from lensjax import fitting
from lensjax.fitting import COMMON_TEST, Parameter

SCALE = 800.0  # counts of the brightest pixel
TRUE = {
    "mass.0.theta_E": 1.2,
    "mass.0.e1": 0.0,
    "mass.0.e2": 0.0,
    "mass.1.gamma1": 0.1,
    "mass.1.gamma2": -0.03,
    "source.0.center_x": 0.2,
    "source.0.center_y": -0.1,
    "source.0.e1": 0.2,
    "source.0.e2": -0.05,
    "source.0.R_sersic": 0.5,
    "source.0.n_sersic": 1.5,
}
LIGHT = {"center_x": 0.0, "center_y": 0.0, "e1": 0.0, "e2": 0.0, "R_sersic": 0.4, "n_sersic": 2.0}
WIDER_PSF = dataclasses.replace(COMMON_TEST, psf_sigma=1.15 * COMMON_TEST.psf_sigma)
CASES = (
    ({}, COMMON_TEST),
    ({"source.0.n_sersic": 1.8}, COMMON_TEST),
    ({"source.0.R_sersic": 0.4}, COMMON_TEST),
    ({"mass.0.e2": 0.11}, COMMON_TEST),
    ({}, WIDER_PSF),
)


def expected_counts(changes, model):
    """Photons of a lens, without the sky."""
    zero = Parameter.fixed(0.0)
    lens = fitting.SIE(theta_E=zero, e1=zero, e2=zero, center_x=zero, center_y=zero)
    model = dataclasses.replace(
        model, lens=dataclasses.replace(model.lens, mass=(lens, model.lens.mass[1]))
    ).with_parameters({name: Parameter.fitted((0, 1), (-5, 5)) for name in TRUE})
    free = np.asarray([(TRUE | changes)[name] for name in model.nonlinear], np.float32)
    render = jax.jit(fitting.render, static_argnums=(0, 1))
    (source,) = np.asarray(render(model, fitting.Resolution.native(model, (150, 150)), free))
    return SCALE * source / source.max()


@pytest.fixture(scope="module")
def images():
    """Counts for each of `CASES`, and an image without a lens."""
    expected = [9 + expected_counts(*case) for case in CASES]
    generator = np.random.default_rng(0)
    return generator.poisson([*expected, np.full((150, 150), 200.0)]).astype(np.float32)[..., None]


@pytest.fixture(scope="module")
def fit(images):
    fit = fitting.fit_in_batches(images, noise=fitting.photon_noise(np.ones(len(images))))
    np.testing.assert_array_equal(fit.converged, [True] * 5 + [False])
    return fit


@pytest.fixture(scope="module")
def found(fit):
    return fitting.assumption_tests(fit)


def test_true_model_passes(found):
    assert abs(found["R_sersic_shift"][0]) < 0.01
    assert abs(found["n_sersic_shift"][0]) < 0.05
    for name in ("all_share", "ellipticity_share", "psf_share"):
        assert -1e-3 < found[name][0] < 0.3, name


def test_shifts_are_the_true_changes_of_the_source(found):
    np.testing.assert_allclose(found["n_sersic_shift"][1], 0.3, atol=0.08)
    np.testing.assert_allclose(found["R_sersic_shift"][2], -0.1, atol=0.02)
    assert (found["all_share"][1:4] > 0.5).all()


def test_wrong_part_of_the_model_explains_the_residual(found):
    assert found["ellipticity_share"][3] > 0.5 > found["ellipticity_share"][1:3].max()
    assert found["psf_share"][4] > 0.6 > found["psf_share"][3]


def test_unconverged_fit_has_no_results(found):
    assert all(np.isnan(values[5]) for values in found.values())


def test_dark_lens_light_changes_nothing(fit, found):
    """An amplitude of 0 is at its bound; the parameters of the light have no effect."""
    light = fitting.Sersic(**{name: Parameter.fixed(value) for name, value in LIGHT.items()})
    model = dataclasses.replace(COMMON_TEST, lens=dataclasses.replace(COMMON_TEST.lens, lens_light=(light,)))
    dark = dataclasses.replace(
        fit, parameters=fit.parameters | {"lens_light.0.amp": np.zeros(len(CASES) + 1, np.float32)}
    )
    for name, values in fitting.assumption_tests(dark, model).items():
        np.testing.assert_allclose(values, found[name], rtol=0.01, atol=1e-3, err_msg=name)
