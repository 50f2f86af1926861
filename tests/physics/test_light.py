"""Light profiles compared with lenstronomy, NumPy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import lens_profiles
from scipy.integrate import trapezoid

from lensjax import physics


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(("axis_ratio", "angle"), [(0.4, 0.3), (0.9, -1.2), (1.0, 0.0)])
def test_elliptical_radius_matches_rotated_ellipse(axis_ratio, angle):
    x, y = np.random.default_rng(0).uniform(-2, 2, (2, 100))
    u = np.cos(angle) * x + np.sin(angle) * y
    v = -np.sin(angle) * x + np.cos(angle) * y
    expected = np.sqrt(axis_ratio * u**2 + v**2 / axis_ratio)
    e1, e2 = physics.ellipticity(axis_ratio, angle)
    found = physics.elliptical_radius(jnp.asarray(x), jnp.asarray(y), e1, e2)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("axis_ratio", [0.4, 0.05, 0.005])
def test_elliptical_radius_is_accurate_in_float32(axis_ratio):
    distance = np.linspace(0.01, 2, 200)
    e1, e2 = (np.float32(part) for part in physics.ellipticity(axis_ratio, 0.0))
    square = float(e1) ** 2 + float(e2) ** 2
    expected = distance * (1 - float(e1)) / np.sqrt(1 - square)
    x = jnp.asarray(distance, jnp.float32)
    found = physics.elliptical_radius(x, jnp.zeros_like(x), jnp.asarray(e1), jnp.asarray(e2))
    np.testing.assert_allclose(found, expected, rtol=1e-6 / axis_ratio**0.5)


def test_sersic_matches_lenstronomy():
    light_model = pytest.importorskip("lenstronomy.LightModel.light_model", exc_type=ImportError)
    oracle = light_model.LightModel(["SERSIC_ELLIPSE"])
    generator = np.random.default_rng(1)
    for _ in range(200):
        x, y = generator.uniform(-2, 2, (2, 5))
        e1, e2 = generator.uniform(-0.3, 0.3, 2)
        shape = {"R_sersic": generator.uniform(0.2, 1.5), "n_sersic": generator.uniform(0.5, 5)}
        rest = {"amp": generator.uniform(1, 100), "e1": e1, "e2": e2}
        rest |= {"center_x": generator.uniform(-0.5, 0.5), "center_y": generator.uniform(-0.5, 0.5)}
        expected = oracle.surface_brightness(x, y, [shape | rest])
        found = physics.sersic(jnp.asarray(x), jnp.asarray(y), **shape, **rest)
        np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("n_sersic", [1.0, 1.5, 4.0])
def test_half_light_radius_contains_half_the_light(n_sersic):
    """Quadrature in the logarithm of the radius; the approximate b_n changes the fraction by at most 2e-3."""
    radius = np.logspace(-6, 4, 20_001) * 0.7
    x, y = jnp.asarray(radius), jnp.zeros(20_001)
    brightness = physics.sersic(x, y, 3.0, R_sersic=0.7, n_sersic=n_sersic)
    light = np.asarray(brightness) * radius**2
    within = trapezoid(np.where(radius <= 0.7, light, 0)) / trapezoid(light)
    assert within == pytest.approx(0.5, abs=2.5e-3)


@pytest.mark.parametrize(("e1", "e2"), [(0.2, -0.1), (0.0, 0.0)], ids=["ellipse", "circle"])
def test_sersic_gradients_match_finite_differences(e1, e2):
    """Includes the circle, whose position angle is undefined."""
    x, y = (jnp.asarray(axis) for axis in np.random.default_rng(2).uniform(-1, 1, (2, 30)))
    names = ("amp", "R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y")
    values = jnp.asarray([2.0, 0.6, 1.5, e1, e2, 0.05, -0.1])

    @jax.jit
    def total(values):
        return jnp.sum(physics.sersic(x, y, **dict(zip(names, values, strict=True))))

    for index, found in enumerate(jax.grad(total)(values)):
        nudge = 1e-6 * (jnp.arange(len(names)) == index)
        expected = (total(values + nudge) - total(values - nudge)) / 2e-6
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=names[index])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("n_sersic", [0.5, 1.0, 1.5, 4.0])
def test_sersic_is_finite_at_the_center(dtype, n_sersic):
    zero = jnp.zeros((), dtype)
    value, gradients = jax.value_and_grad(
        lambda x, y, e1, n: physics.sersic(x, y, 1.0, R_sersic=0.5, n_sersic=n, e1=e1), (0, 1, 2, 3)
    )(zero, zero, zero, jnp.asarray(n_sersic, dtype))
    assert np.isfinite(value)
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize(
    ("profile", "function"),
    [("sersic", physics.sersic), ("round_sersic", physics.sersic), ("gaussian", physics.gaussian_light)],
)
def test_light_profiles_match_golden_file(profile, function):
    names = lens_profiles.tool["columns"](lens_profiles.LIGHT[profile][1], profile)

    def one(row):
        return function(**dict(zip(names, row, strict=True)))

    with np.load(lens_profiles.GOLDEN / "light.npz") as golden:
        found = jax.jit(jax.vmap(one))(golden[profile])
        np.testing.assert_allclose(found, golden[f"{profile}_truth"][:, 0], rtol=1e-8)


def test_sampled_light_interpolates_and_is_dark_outside():
    image = jnp.asarray(np.random.default_rng(3).uniform(1, 2, (4, 6)))
    y, x = jnp.meshgrid(0.1 * (jnp.arange(4) - 1.5), 0.1 * (jnp.arange(6) - 2.5), indexing="ij")
    options = {"pixel_scale": 0.1, "center_x": 0.3, "center_y": -0.2}
    found = physics.sampled_light(x + 0.3, y - 0.2, image, **options)
    np.testing.assert_allclose(found, image, rtol=1e-12)
    middle = physics.sampled_light(x[:, :-1] + 0.35, y[:, :-1] - 0.2, image, **options)
    np.testing.assert_allclose(middle, (image[:, :-1] + image[:, 1:]) / 2, rtol=1e-12)
    outside = jnp.asarray([-1e4, 0.9, 1e4])
    found = physics.sampled_light(outside, outside, image, pixel_scale=0.1)
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_gaussian_light_is_finite_at_any_distance(sigma):
    far = jnp.asarray([0.0, 1e-3, 1e4], jnp.float32)
    found = jax.vmap(
        jax.value_and_grad(lambda x, s: physics.gaussian_light(x, x, 1.0, sigma=s), (0, 1)), (0, None)
    )(far, jnp.float32(sigma))
    assert all(np.isfinite(each).all() for each in jax.tree.leaves(found))


def test_sampled_light_gradients_match_finite_differences():
    generator = np.random.default_rng(4)
    image, weights = generator.normal(size=(5, 4)), generator.normal(size=12)
    x, y = generator.uniform(-0.3, 0.3, (2, 12))  # some beyond the outermost pixels

    def oracle(image, x, y, center_x, center_y):
        column, row = (x - center_x) / 0.1 + 1.5, (y - center_y) / 0.1 + 2
        padded = np.pad(image, 3)
        i, j = np.floor(row).astype(int), np.floor(column).astype(int)
        up, right = row - i, column - j
        low = padded[i + 3, j + 3] * (1 - right) + padded[i + 3, j + 4] * right
        high = padded[i + 4, j + 3] * (1 - right) + padded[i + 4, j + 4] * right
        return np.sum(weights * (low * (1 - up) + high * up))

    def total(image, x, y, center_x, center_y):
        options = {"pixel_scale": 0.1, "center_x": center_x, "center_y": center_y}
        return jnp.sum(weights * physics.sampled_light(x, y, image, **options))

    arguments = [image, x, y, np.array(0.013), np.array(-0.02)]
    found = jax.jit(jax.grad(total, range(5)))(*map(jnp.asarray, arguments))
    for which, gradient in enumerate(found):
        for index in np.ndindex(arguments[which].shape):
            moved = [[each.copy() for each in arguments] for _ in range(2)]
            moved[0][which][index] += 1e-6
            moved[1][which][index] -= 1e-6
            slope = (oracle(*moved[0]) - oracle(*moved[1])) / 2e-6
            np.testing.assert_allclose(gradient[index], slope, rtol=1e-6, atol=1e-7)
