"""Components and models against lenstronomy, and the messages for invalid ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel as LenstronomyLens
from lenstronomy.LightModel.light_model import LightModel

from lensjax import modeling
from lensjax.errors import UserError
from lensjax.modeling import (
    EPL,
    SIE,
    SIS,
    LensModel,
    MultiGaussian,
    Parameter,
    PointMass,
    Prior,
    Sersic,
    Shapelets,
    Shear,
)

X, Y = np.meshgrid(np.linspace(-1.9, 2.1, 24), np.linspace(-2.2, 1.8, 21))
PLACE = {"center_x": 0.07, "center_y": -0.11}
SHAPE = {"e1": 0.12, "e2": -0.2, **PLACE}
MASSES = {
    SIS: {"theta_E": 1.3, **PLACE},
    SIE: {"theta_E": 1.3, **SHAPE},
    EPL: {"theta_E": 1.3, "gamma": 2.2, **SHAPE},
    Shear: {"gamma1": 0.08, "gamma2": -0.03},
}
LIGHTS = [
    (Sersic(), {"R_sersic": 0.8, "n_sersic": 3.2, **SHAPE}),
    (MultiGaussian(smallest=0.1, number=6), {"outer_e1": -0.1, "outer_e2": 0.3, **SHAPE}),
    (MultiGaussian(number=5, outer_e1=None, outer_e2=None), SHAPE),
    (Shapelets(order=0), {"beta": 0.4, **PLACE}),
    (Shapelets(order=7), {"beta": 0.4, **PLACE}),
]


def surface_brightness(profiles, arguments, x, y):
    """Light of lenstronomy's profiles."""
    return LightModel(profiles).surface_brightness(x.ravel(), y.ravel(), arguments).reshape(x.shape)


def amplitudes(size):
    return np.random.default_rng(size).uniform(0.5, 2, size)


@pytest.mark.parametrize("kind", MASSES)
def test_deflections_equal_those_of_lenstronomy(kind):
    found = kind().deflection(jnp.asarray(X), jnp.asarray(Y), MASSES[kind])
    expected = LenstronomyLens([kind.lenstronomy]).alpha(X, Y, [MASSES[kind]])
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("component", "values"), LIGHTS)
def test_light_equals_that_of_lenstronomy(component, values):
    weights = amplitudes(component.size)
    columns = np.asarray(component.columns(jnp.asarray(X), jnp.asarray(Y), values))
    names, arguments = zip(*component.to_lenstronomy(values, weights), strict=True)
    expected = surface_brightness(list(names), list(arguments), X, Y)
    assert columns.shape == (component.size, *X.shape)
    # Within 0.3 arcsec, the softened radius of `Sersic` changes a cusp by more.
    outside = np.hypot(X - PLACE["center_x"], Y - PLACE["center_y"]) > 0.3
    difference = np.abs(np.tensordot(weights, columns, 1) - expected)
    assert difference[outside].max() < 1e-5 * np.abs(expected[outside]).max()


def test_shapelets_are_orthonormal_in_units_of_beta():
    step = 0.05
    axis = jnp.arange(-4, 4, step)
    columns = np.asarray(Shapelets(order=6).columns(*jnp.meshgrid(axis, axis), {"beta": 0.4, **PLACE}))
    columns = columns.reshape(28, -1).astype(np.float64)
    np.testing.assert_allclose(columns @ columns.T * (step / 0.4) ** 2, np.eye(28), atol=1e-5)


def test_gaussians_have_peak_one_and_their_widths():
    component = MultiGaussian(smallest=0.1, largest=1.0, number=3, outer_e1=None, outer_e2=None)
    points = jnp.asarray([[0.0, 0.1, 10**-0.5, 1.0]])
    round_ = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
    columns = np.asarray(component.columns(points, jnp.zeros_like(points), round_))[:, 0]
    np.testing.assert_allclose(columns[:, 0], 1, atol=1e-6)
    np.testing.assert_allclose(columns[[0, 1, 2], [1, 2, 3]], np.exp(-0.5), rtol=1e-5)


def test_light_and_gradients_are_finite_at_the_center():
    for component, values in LIGHTS:

        def brightest(values, component=component):
            point = jnp.full((1, 1), values["center_x"]), jnp.full((1, 1), values["center_y"])
            return component.columns(*point, values).sum()

        value, slope = jax.value_and_grad(brightest)(
            {name: jnp.float32(each) for name, each in values.items()}
        )
        assert np.isfinite([value, *slope.values()]).all(), component


@pytest.fixture
def model():
    """SIE and shear, a galaxy with a fixed center, and two components of the source."""
    center = Parameter.fixed(0.1)
    return LensModel(
        mass=(SIE(e1=Parameter.fitted((0.0, 0.2), (-0.5, 0.5), prior=(0.1, 0.3))), Shear()),
        lens_light=(Sersic(center_x=center, center_y=center),),
        source=(Shapelets(order=2), MultiGaussian(number=3, outer_e1=None, outer_e2=None)),
        sky=0,
        priors=(Prior((("mass.0.e1", 1.0), ("lens_light.0.e1", -0.8)), 0.0, 0.1),),
    )


def test_parameters_are_named_by_group_number_and_field(model):
    expected = [f"mass.0.{name}" for name in ("theta_E", "e1", "e2", "center_x", "center_y")]
    expected += ["mass.1.gamma1", "mass.1.gamma2"]
    expected += [f"lens_light.0.{n}" for n in ("center_x", "center_y", "e1", "e2", "R_sersic", "n_sersic")]
    expected += [f"source.0.{name}" for name in ("beta", "center_x", "center_y")]
    expected += [f"source.1.{name}" for name in ("e1", "e2", "center_x", "center_y")]
    assert list(model.parameters) == expected
    fixed = {"lens_light.0.center_x", "lens_light.0.center_y"}
    assert list(model.fitted) == [name for name in expected if name not in fixed]


def test_values_start_and_bounds_follow_the_fitted_parameters(model):
    free = np.linspace(0.01, 0.4, len(model.fitted))
    values = model.values(jnp.asarray(free, jnp.float32))
    np.testing.assert_allclose([values[name] for name in model.fitted], free, rtol=1e-6)
    assert values["lens_light.0.center_x"] == 0.1
    low, high = model.bounds
    where = model.fitted.index("mass.0.e1")
    assert (low[where], high[where]) == (-0.5, 0.5)
    start = model.start({"mass.0.theta_E": 99.0, "source.0.beta": 0.07})
    assert start[where] == pytest.approx(0.1)  # the middle of the starting range
    assert start[model.fitted.index("mass.0.theta_E")] == 6.0  # the largest allowed value
    assert start[model.fitted.index("source.0.beta")] == 0.07


def test_amplitudes_are_ordered_light_sky_source(model):
    assert list(model.amplitudes.items()) == [("lens_light", 1), ("sky", 1), ("source", 9)]
    assert model.nonnegative.tolist() == [True, False] + 6 * [False] + 3 * [True]
    assert dataclasses.replace(model, sky=1).amplitudes["sky"] == 3


def test_priors_of_parameters_precede_combined_ones(model):
    assert model.all_priors == (Prior((("mass.0.e1", 1.0),), 0.1, 0.3), *model.priors)


def test_lensed_source_equals_that_of_lenstronomy(model):
    values = model.values(jnp.asarray(model.start({"mass.0.e1": 0.2, "mass.1.gamma1": 0.05})))
    weights = amplitudes(11)
    parts = model.to_lenstronomy(values, weights)
    lens = LenstronomyLens(parts["lens_model_list"])
    beta = lens.ray_shooting(X, Y, parts["kwargs_lens"])
    columns = model.source_columns(jnp.asarray(X), jnp.asarray(Y), values)
    expected = surface_brightness(parts["source_light_model_list"], parts["kwargs_source"], *beta)
    found = np.tensordot(weights[2:], np.asarray(columns), 1)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert parts["lens_light_model_list"] == ["SERSIC_ELLIPSE"]
    assert parts["kwargs_lens_light"][0]["amp"] == weights[0]


def test_default_model_ties_mass_to_light():
    tied = {tuple(name for name, _ in prior.terms) for prior in modeling.GALAXY.priors}
    assert tied == {
        (f"mass.0.{name}", f"lens_light.0.{name}") for name in ("center_x", "center_y", "e1", "e2")
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Parameter.fixed(np.nan), "fixed parameter is nan"),
        (lambda: Parameter.fitted((0, 2), (0, 1)), r"start=\(0, 2\) .* not within bounds=\(0, 1\)"),
        (lambda: Parameter.fitted((0, 1), (0, 1), prior=(0, 0)), "prior is 0; it must be positive"),
        (lambda: Prior((), 0.0, -1.0), "prior is -1.0; it must be positive"),
        (lambda: LensModel(mass=(Sersic(),), source=(Sersic(),)), r"Sersic\(.* is not a component for mass"),
        (lambda: LensModel(lens_light=(SIE(),)), r"SIE\(.* is not a component for lens_light"),
        (lambda: LensModel(mass=(SIE(),), source=(Shear(),)), r"Shear\(.* is not a component for source"),
        (lambda: LensModel(mass=(SIE(),)), "needs mass and source, or neither"),
        (
            lambda: LensModel(mass=(Shear(), SIE()), source=(Sersic(),)),
            "first mass component is Shear; it must be the main lens: SIS, SIE or EPL",
        ),
        (lambda: LensModel(mass=(PointMass(),), source=(Sersic(),)), "first mass component is PointMass"),
        (
            lambda: LensModel(mass=(SIS(theta_E=1.2),), source=(Sersic(),)),
            r"theta_E of SIS is 1.2; expected a Parameter, such as Parameter.fixed\(1.0\)",
        ),
        (lambda: LensModel(lens_light=(MultiGaussian(outer_e1=0.1),)), "outer_e1 of MultiGaussian is 0.1;"),
        (lambda: LensModel(sky=2), "sky is 2; expected 0"),
        (
            lambda: LensModel(lens_light=(Shapelets(),), priors=(Prior((("mass.0.e1", 1.0),), 0.0, 1.0),)),
            "names mass.0.e1; the parameters are lens_light.0.beta, ",
        ),
        (lambda: MultiGaussian(smallest=0.0), "16 widths from 0.0 to 4.0 arcsec"),
        (lambda: MultiGaussian(number=1), "1 widths .* at least 2"),
        (lambda: MultiGaussian(outer_e1=None), "both outer_e1 and outer_e2"),
        (lambda: Shapelets(order=31), "order of Shapelets is 31; expected 0 to 30"),
    ],
)
def test_invalid_models_are_rejected_with_the_reason(make, message):
    with pytest.raises(UserError, match=message):
        make()
