"""Batch fits of models with lens light: amplitudes, derivatives and recovered parameters."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.lenses import FITTED
from oracles.numpy_lens import render
from scipy.optimize import lsq_linear

from lensjax import fitting, physics
from lensjax.errors import UserError
from lensjax.fitting import EPL, SIE, LensModel, Parameter, Sersic, Shear
from lensjax.fitting.implicit import attach_image_derivative
from lensjax.simulation.presets import COMMON_TEST

SIZE = 90
PRESET = dataclasses.replace(
    COMMON_TEST, instrument=dataclasses.replace(COMMON_TEST.instrument, image_size=SIZE)
)
CENTER, ELLIPTICITY = Parameter.fitted((-0.05, 0.05), (-0.3, 0.3)), Parameter.fitted((-0.2, 0.2), (-0.6, 0.6))
LIGHT = Sersic(
    center_x=CENTER,
    center_y=CENTER,
    e1=ELLIPTICITY,
    e2=ELLIPTICITY,
    R_sersic=Parameter.fitted((0.2, 1.0), (0.02, 5.0)),
    n_sersic=Parameter.fitted((1.0, 4.0), (0.3, 8.0)),
)


def with_light(*components):
    lens = dataclasses.replace(fitting.COMMON_TEST.lens, lens_light=components)
    return dataclasses.replace(fitting.COMMON_TEST, lens=lens)


def problems(number, seed):
    """Columns, images and weights whose best amplitudes include zeros."""
    rng = np.random.default_rng(seed)
    columns = rng.uniform(size=(number, 3, 40)) ** 2
    columns[::7, 1] = columns[::7, 0]  # equal columns
    amplitudes = rng.normal(size=(number, 3, 1))
    images = (amplitudes * columns).sum(1) + 0.1 * rng.normal(size=(number, 40)) - 2
    return columns, images, rng.uniform(size=(number, 40)) * (rng.uniform(size=(number, 40)) > 0.1)


def test_amplitudes_agree_with_bounded_least_squares():
    columns, images, weights = problems(60, seed=0)
    found = jax.jit(jax.vmap(fitting.solve_linear))(
        *(part.astype(np.float32) for part in problems(60, seed=0))
    )
    assert (found[:, :-1] == 0).any()
    assert (found[:, :-1] > 0).any()
    for linear, column, image, weight in zip(found, columns, images, weights, strict=True):
        matrix = np.concatenate([column, np.ones((1, 40))]).T * np.sqrt(weight)[:, None]
        target, bounds = image * np.sqrt(weight), ([0, 0, 0, -np.inf], np.inf)
        best = lsq_linear(matrix, target, bounds, tol=1e-12)
        residual = target - matrix @ np.asarray(linear, np.float64)
        # Equal columns have no unique amplitudes.
        np.testing.assert_allclose(residual @ residual, 2 * best.cost, rtol=1e-4)
        assert (linear[:-1] >= 0).all()


def test_fit_recovers_lens_and_its_light_within_uncertainties():
    rng = np.random.default_rng(7)
    lens = {"theta_E": 1.2, "gamma1": 0.08, "gamma2": -0.03}
    lens |= {"source_x": 0.12, "source_y": 0.08, "source_e1": 0.15, "source_e2": -0.05}
    shape = {"center_x": 0.02, "center_y": -0.01, "e1": 0.1, "e2": -0.08}
    lights = [
        {"amp": 150.0, "R_sersic": 0.6, "n_sersic": 3.0, **shape},
        {"amp": 400.0, "R_sersic": 0.3, "n_sersic": 1.5, **shape},
        {"amp": 0.0, "R_sersic": 0.3, "n_sersic": 1.5, **shape},
    ]
    scene = types.SimpleNamespace(masses=[], **lens)
    units = np.array([1.0, 1e-25, 1.0], np.float32)
    counts = np.stack([rng.poisson(render(scene, PRESET, [light])) for light in lights]).astype(np.float32)
    model = with_light(dataclasses.replace(LIGHT, core=1e-8))
    images = (counts * units[:, None, None])[..., None]
    fit = fitting.fit_lens(images, model, noise=fitting.photon_noise(1 / units))
    assert np.asarray(fit.converged).all()
    np.testing.assert_allclose(fit.reduced_chi_square, 1, atol=0.06)
    truth = {fitted: lens[name] for name, fitted in FITTED.items()} | {"source.0.amp": 100.0}
    for row, light in enumerate(lights):
        expected = truth | {f"lens_light.0.{name}": value for name, value in light.items()}
        if row == 2:  # without lens light
            expected = truth
            assert fit.parameters["lens_light.0.amp"][2] < 1
        for name, value in expected.items():
            unit = units[row] if name.endswith("amp") else 1
            index = model.names.index(name)
            pull = (fit.parameters[name][row] - value * unit) / fit.standard_errors[row, index]
            assert abs(pull) < 4, (row, name, pull)


def test_light_at_bound_has_derivatives_of_fixed_light():
    zero, index = Parameter.fixed(0.0), Parameter.fixed(1.0)
    shape = {"center_x": zero, "center_y": zero, "e1": zero, "e2": zero, "n_sersic": index}
    radii = {"bound": Parameter.fitted((0.4, 0.6), (0.35, 1.0)), "fixed": Parameter.fixed(0.35)}
    image = jnp.asarray(np.random.default_rng(1).uniform(1, 2, (20, 20)), jnp.float32)
    changes = {}
    for name, radius in radii.items():
        small = {"pixel_scale": 0.3, "subpixels": 1, "psf_size": 3}
        model = dataclasses.replace(with_light(Sersic(R_sersic=radius, **shape)), **small)
        start = {each: sum(parameter.start) / 2 for each, parameter in model.lens.parameters.items()}
        free = model.lens.start(start | {"lens_light.0.R_sersic": 0.35})
        theta = jnp.asarray([*free, 1.0, 2.0, 0.1], jnp.float32)
        resolution = fitting.Resolution.native(model, image.shape)

        def optimum(image, model=model, theta=theta, resolution=resolution):
            noise = jnp.float32(0.1), jnp.float32(0.5)
            return attach_image_derivative(model, resolution, theta, image, jnp.ones_like(image), *noise)

        _, change = jax.jit(functools.partial(jax.jvp, optimum))((image,), (jnp.sin(9 * image),))
        changes[name] = dict(zip(model.names, np.asarray(change), strict=True))
    assert changes["bound"].pop("lens_light.0.R_sersic") == 0
    assert changes["bound"].keys() == changes["fixed"].keys()
    for name, change in changes["fixed"].items():
        assert changes["bound"][name] == pytest.approx(change, rel=1e-2), name


def test_jacobian_of_many_components_matches_finite_differences():
    far = Parameter.fitted((0.4, 0.5), (-1.0, 1.0))
    general = LensModel(
        mass=(
            EPL(center_x=CENTER, center_y=CENTER),
            Shear(),
            SIE(theta_E=Parameter.fitted((0.1, 0.3), (0.0, 1.0)), center_x=far, center_y=far),
        ),
        lens_light=(LIGHT, Sersic(center_x=far, center_y=far)),
        source=(Sersic(),),
        sky=0,
    )
    model = fitting.SmoothModel(lens=general, pixel_scale=0.2, psf_sigma=0.2, psf_size=3)
    with jax.enable_x64(True):
        resolution = fitting.Resolution.native(model, (12, 12))
        values = {name: sum(parameter.start) / 2 for name, parameter in general.parameters.items()}
        free = jnp.asarray(general.start(values)) + 0.01
        render_all = jax.jit(lambda free: fitting.render(model, resolution, free))
        columns, jacobian = jax.jit(lambda free: fitting.render_with_jacobian(model, resolution, free))(free)
        np.testing.assert_allclose(columns, render_all(free), rtol=1e-12)
        for index, derivative in enumerate(jacobian):
            step = 1e-6 * jnp.eye(len(free))[index]
            change = (render_all(free + step) - render_all(free - step)) / 2e-6
            column = model.amplitude_of[index]
            np.testing.assert_allclose(derivative, change[column], rtol=1e-5, atol=1e-7)
            others = np.delete(np.asarray(change), column, 0)
            np.testing.assert_array_equal(others, 0, err_msg=model.nonlinear[index])


def test_evidence_refuses_lens_light():
    prior = physics.SubstructurePrior(
        subhalos=physics.SubhaloPrior(10, (1e-4, 2e-2), 0.3, (0.3, 1.6)),
        vortex=physics.VortexPrior(12, (0.028, 0.063), (0.5, 1.8), 0.4),
    )
    with pytest.raises(UserError, match="subtract the lens light"):
        fitting.class_evidence(np.zeros((1, 30, 30, 1)), None, prior, with_light(LIGHT))
