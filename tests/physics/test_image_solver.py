"""The image solver compared with closed forms, finite differences and lenstronomy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from oracles import sheared_sphere

from lensjax import physics


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def solve(values, **options):
    """Images behind a sheared sphere; values: theta_E, gamma1, gamma2, beta_x, beta_y."""
    theta_E, gamma1, gamma2, beta_x, beta_y = values

    def deflection(x, y):
        sphere = physics.sis_deflection(x, y, theta_E)
        shear = physics.external_shear_deflection(x, y, gamma1, gamma2)
        return sphere[0] + shear[0], sphere[1] + shear[1]

    return physics.image_positions(deflection, beta_x, beta_y, **options)


def random_lenses(number):
    generator = np.random.default_rng(0)
    theta_E, gamma, angle, beta, phi = generator.uniform(
        (0.9, 0.0, 0.0, 0.0, 0.0), (1.6, 0.3, np.pi, 1.9, 2 * np.pi), (number, 5)
    ).T
    return np.stack(
        [
            theta_E,
            gamma * np.cos(2 * angle),
            gamma * np.sin(2 * angle),
            beta * np.cos(phi),
            beta * np.sin(phi),
        ],
        axis=-1,
    )


@pytest.mark.parametrize(
    ("dtype", "number", "tolerance"), [(jnp.float64, 1000, 1e-9), (jnp.float32, 200, 1e-4)]
)
def test_images_of_sheared_spheres_match_polynomial_roots(dtype, number, tolerance):
    values = random_lenses(number).astype(dtype)
    options = {"search_window": 10.0, "cells": 60, "candidates": 24, "refinement": 8}
    many = jax.jit(lambda v: lax.map(lambda v: solve(v, **options), v, batch_size=100))
    found = jax.tree.map(np.asarray, many(jnp.asarray(values)))
    numbers = []
    for index, value in enumerate(values):
        expected = sheared_sphere.images(*value.astype(float))
        mask = found.mask[index]
        assert mask.sum() == len(expected), value
        numbers.append(len(expected))
        theta = np.stack([found.x[index], found.y[index]], axis=-1)[mask]
        distance = np.linalg.norm(theta[:, None] - expected[None], axis=-1)
        uncertain = tolerance * np.maximum(1, abs(found.magnification[index][mask]) / 10)
        assert (distance.min(axis=1) < uncertain).all(), value
        assert len(set(distance.argmin(axis=1))) == len(expected), value
        # The parities of minima and saddle points cancel, unless there is only one image.
        assert found.parity[index].sum() == (1 if len(expected) == 1 else 0)
    assert {1, 2, 4} == set(numbers)
    assert found.complete.all()


def test_window_contains_images_of_lens_of_any_size():
    @jax.jit
    @jax.vmap
    def images(theta_E, center_x):  # the window is around the origin
        deflection = functools.partial(physics.sis_deflection, theta_E=theta_E, center_x=center_x)
        return physics.image_positions(deflection, 0.55 * theta_E + center_x, 0.0)

    theta_E = np.array([1e-4, 0.3, 2.0, 30.0, 0.3, 30.0])
    center_x = np.array([0.0, 0.0, 0.0, 0.0, 1.5, 150.0])
    found = images(theta_E, center_x)
    np.testing.assert_array_equal(found.mask.sum(1), 2)
    np.testing.assert_allclose(found.x[:, 0], center_x + 1.55 * theta_E, rtol=1e-7)
    np.testing.assert_allclose(found.x[:, 1], center_x - 0.45 * theta_E, rtol=1e-7)
    assert found.complete.all()


@pytest.mark.parametrize(
    ("theta_E", "beta", "options"),
    [
        (2.0, 1.1, {"search_window": 6.0}),  # one of two images
        (5.0, 0.1, {"search_window": 6.0}),  # none
        (1.2, 0.3, {"max_images": 1}),
        (1.2, 0.3, {"candidates": 1}),
        (1.2, 0.0, {}),  # a ring
        (np.nan, 0.1, {}),
    ],
)
def test_missing_images_are_reported(theta_E, beta, options):
    deflection = functools.partial(physics.sis_deflection, theta_E=theta_E)
    found = jax.jit(lambda beta: physics.image_positions(deflection, beta, 0.0, **options))(beta)
    assert not found.complete


@pytest.mark.parametrize(
    "options",
    [{"cells": 1}, {"refinement": 1}, {"max_images": 0}, {"candidates": 0}, {"search_window": -1.0}],
)
def test_invalid_search_option_raises_an_error(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name} is -?[01].*; expected"):
        physics.image_positions(lambda x, y: (0 * x, 0 * y), 0.1, 0.0, **options)


def test_images_of_a_sphere_match_closed_form():
    found = jax.jit(solve)(jnp.asarray([1.2, 0.0, 0.0, 0.3, 0.4]))
    np.testing.assert_array_equal(found.mask, [True, True] + 6 * [False])
    np.testing.assert_allclose(found.x, [1.7 * 0.6, -0.7 * 0.6, *np.zeros(6)], rtol=1e-12)
    np.testing.assert_allclose(found.y, [1.7 * 0.8, -0.7 * 0.8, *np.zeros(6)], rtol=1e-12)
    expected = [1 / (1 - 1.2 / 1.7), 1 / (1 - 1.2 / 0.7), *np.zeros(6)]
    np.testing.assert_allclose(found.magnification, expected, rtol=1e-10)
    np.testing.assert_array_equal(found.parity, [1, -1, *np.zeros(6)])


@pytest.mark.parametrize("beta", [0.0, 0.05, 0.6])
def test_images_of_a_point_mass_match_closed_form(beta):
    """They are at (beta +- sqrt(beta^2 + 4 theta_E^2)) / 2, or on the Einstein ring if beta is 0."""

    @jax.jit
    def solve_behind_mass(beta):
        deflection = functools.partial(physics.point_mass_deflection, theta_E=1.1)
        return physics.image_positions(deflection, beta, 0.0)

    found = solve_behind_mass(beta)
    radius = np.hypot(found.x, found.y)[found.mask]
    if beta == 0:  # points of the ring fill the result
        np.testing.assert_allclose(radius, np.full(8, 1.1), rtol=1e-5)
        assert len(np.unique(found.x)) == 8
        assert not found.complete
        return
    root = np.sqrt(beta**2 + 4 * 1.1**2)
    np.testing.assert_allclose(found.x[found.mask], [(beta + root) / 2, (beta - root) / 2], rtol=1e-11)


def test_merging_images_are_found_close_to_a_fold():
    """Their separation scales as the square root of the source's distance from the fold."""
    theta_E, gamma1 = 1.2, 0.1
    phi = 0.5
    radius = theta_E * (1 - gamma1 * np.cos(2 * phi)) / (1 - gamma1**2)
    n = np.array([np.cos(phi), np.sin(phi)])
    fold = radius * n * [1 - gamma1, 1 + gamma1] - theta_E * n
    many = jax.jit(jax.vmap(lambda beta: solve((theta_E, gamma1, 0.0, beta[0], beta[1]))))
    closeness = np.array([1e-2, 1e-4, 1e-6, 1e-7])
    inside = many(jnp.asarray(fold * (1 - closeness[:, None])))
    np.testing.assert_array_equal(inside.mask.sum(axis=1), 4)
    outside = many(jnp.asarray(fold * (1 + closeness[:, None])))
    np.testing.assert_array_equal(outside.mask.sum(axis=1), 2)


def test_images_with_substructure_match_lenstronomy():
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model", exc_type=ImportError)
    solver = pytest.importorskip("lenstronomy.LensModel.Solver.lens_equation_solver")
    masses = jnp.asarray([[0.08, 1.05, 0.5], [0.05, -0.9, 0.6], [0.03, 0.1, -1.4]])

    def deflection(x, y):
        parts = [
            physics.sis_deflection(x, y, 1.2),
            physics.external_shear_deflection(x, y, 0.1, -0.05),
            physics.point_masses_deflection(x, y, masses),
        ]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    parameters = [{"theta_E": 1.2}, {"gamma1": 0.1, "gamma2": -0.05}]
    names = ("theta_E", "center_x", "center_y")
    parameters += [dict(zip(names, map(float, mass), strict=True)) for mass in masses]
    model = lens_model.LensModel(["SIS", "SHEAR"] + 3 * ["POINT_MASS"])
    options = {"max_images": 10, "min_magnification": 1e-2, "candidates": 128}
    found = jax.jit(lambda: physics.image_positions(deflection, 0.1, 0.06, **options))()
    x, y = solver.LensEquationSolver(model).image_position_from_source(
        0.1,
        0.06,
        parameters,
        min_distance=0.02,
        search_window=6,
        precision_limit=1e-12,
        num_iter_max=200,
        magnification_limit=1e-2,
    )
    expected = np.stack([x, y], axis=-1)
    theta = np.stack([found.x, found.y], axis=-1)[np.asarray(found.mask)]
    assert len(theta) >= len(expected) >= 4
    distance = np.linalg.norm(theta[:, None] - expected[None], axis=-1)
    assert distance.min(axis=0).max() < 1e-6
    # Images that lenstronomy's search misses must be images too.
    beta = physics.ray_shooting(deflection, *jnp.asarray(theta).T)
    number = len(theta)
    np.testing.assert_allclose(beta, [np.full(number, 0.1), np.full(number, 0.06)], atol=1e-10)


def test_derivatives_match_finite_differences():
    """First and second derivatives of positions and magnifications with respect to all parameters."""
    values = jnp.asarray([1.2, 0.08, -0.05, 0.03, 0.02])

    def observed(values):
        found = solve(values, cells=40, refinement=4, candidates=16, max_images=5)
        return jnp.stack([found.x, found.y, found.magnification])

    def total(values):
        return jnp.sin(jnp.arange(15) + observed(values).ravel()).sum()

    value = jax.jit(total)

    @jax.jit
    def gradient_and_change(values, direction):
        return jax.jvp(jax.grad(total), (values,), (direction,))

    direction = jnp.asarray([0.3, 1.0, -0.5, 0.7, 0.2])
    gradient, change = gradient_and_change(values, direction)
    for index in range(5):
        nudge = 1e-6 * (jnp.arange(5) == index)
        expected = (value(values + nudge) - value(values - nudge)) / 2e-6
        np.testing.assert_allclose(gradient[index], expected, rtol=1e-5, atol=1e-5)
    nudge = 1e-7 * direction
    expected = gradient_and_change(values + nudge, direction)[0]
    expected -= gradient_and_change(values - nudge, direction)[0]
    np.testing.assert_allclose(change, expected / 2e-7, rtol=1e-5)


@jax.jit
def images_of_mass_sheet(kappa, beta):
    """Images and the gradient of their sum, compiled once for all cases."""

    def total(kappa, beta):
        found = physics.image_positions(lambda x, y: (kappa * x, kappa * y), beta, 0.1)
        return sum(jnp.sum(part) for part in found[:4]), found

    return jax.value_and_grad(total, (0, 1), has_aux=True)(kappa, beta)


@pytest.mark.parametrize(
    ("kappa", "beta", "number"),
    [(0.0, 0.2, 1), (1.0, 0.2, 0), (0.5, 40.0, 1), (1.5, 0.2, 1)],
    ids=["no lens", "all rays focused", "distant source", "rays cross"],
)
def test_padding_and_its_gradients_are_finite(kappa, beta, number):
    (_, found), gradients = images_of_mass_sheet(jnp.asarray(kappa), jnp.asarray(beta))
    assert found.mask.sum() == number
    assert found.complete == (kappa != 1)
    if number:
        np.testing.assert_allclose(found.x[0], beta / (1 - kappa), rtol=1e-10)
    assert all(np.isfinite(part).all() for part in (*found, *gradients))
