"""Rendering and its gradients, compared with NumPy, lenstronomy and finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import numpy_lens
from scipy import signal

from lensjax import simulation
from lensjax.errors import UserError
from lensjax.simulation.blur import convolve, convolve_by_matmul, gaussian_kernel

COMMON_TEST = simulation.preset("common_test")


def scene(substructure, seed=5):
    return simulation.draw_scene(jax.random.key(seed), COMMON_TEST, substructure)


def on_host(drawn):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), drawn)


@pytest.mark.parametrize("substructure", simulation.CLASSES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.float64, 1e-12)])
def test_expected_counts_match_numpy(substructure, dtype, tolerance):
    drawn = scene(substructure)
    expected = numpy_lens.render(on_host(drawn), COMMON_TEST)
    with jax.enable_x64(dtype == jnp.float64):
        typed = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), on_host(drawn))
        found = np.asarray(simulation.expected_counts(typed, COMMON_TEST))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * expected.max())


@pytest.mark.parametrize("name", ["common_test", "varied", "model_1", "model_2", "model_3"])
def test_expected_counts_match_lenstronomy(name):
    """The images agree up to the edge, in float32; less well at the cusps of profiles with large indices."""
    tolerance = 5e-5 if name == "varied" else 2e-6
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model", exc_type=ImportError)
    light_model = pytest.importorskip("lenstronomy.LightModel.light_model", exc_type=ImportError)
    preset = simulation.preset(name)
    instrument = preset.instrument
    keys = jax.random.split(jax.random.key(7), 3)
    scenes = jax.vmap(simulation.draw_scene, (0, None, 0))(keys, preset, jnp.arange(3))
    images = jax.jit(jax.vmap(lambda scene: simulation.expected_counts(scene, preset)))(scenes)
    sub, margin = instrument.subpixels, instrument.psf_size // 2
    field = instrument.image_size + 2 * margin
    axis = (np.arange(field * sub) - (field * sub - 1) / 2) * instrument.pixel_scale / sub
    rays = [grid.ravel() for grid in np.meshgrid(axis, axis)]
    offset = np.arange(-margin, margin + 1) * instrument.pixel_scale
    for label in range(3):
        drawn = on_host(jax.tree.map(lambda leaf, row=label: leaf[row], scenes))
        masses = drawn.masses[drawn.masses[:, 0] > 0]
        lens = lens_model.LensModel(["EPL", "SHEAR"] + ["POINT_MASS"] * len(masses))
        ellipse = {"gamma": 2.0, "e1": drawn.lens_e1, "e2": drawn.lens_e2}
        parameters = [
            {"theta_E": drawn.theta_E, **ellipse, "center_x": 0, "center_y": 0},
            {"gamma1": drawn.gamma1, "gamma2": drawn.gamma2},
        ]
        parameters += [{"theta_E": row[0], "center_x": row[1], "center_y": row[2]} for row in masses]
        x, y = rays[0] - drawn.center_x, rays[1] - drawn.center_y
        profile = light_model.LightModel(["SERSIC_ELLIPSE"])
        source = {
            **{"amp": drawn.source_amp, "R_sersic": drawn.R_sersic, "n_sersic": drawn.n_sersic},
            **{"e1": drawn.source_e1, "e2": drawn.source_e2},
            **{"center_x": drawn.source_x, "center_y": drawn.source_y},
        }
        galaxy = {
            **{"amp": drawn.light_amp, "R_sersic": drawn.light_R_sersic, "n_sersic": drawn.light_n_sersic},
            **{"e1": drawn.lens_e1, "e2": drawn.lens_e2, "center_x": 0, "center_y": 0},
        }
        light = profile.surface_brightness(*lens.ray_shooting(x, y, parameters), [source])
        light = light + profile.surface_brightness(x, y, [galaxy])
        kernel = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * drawn.psf_sigma**2))
        binned = light.reshape(field, sub, field, sub).mean((1, 3))
        blurred = signal.convolve2d(binned, kernel / kernel.sum(), mode="valid")
        expected = blurred + drawn.sky
        np.testing.assert_allclose(images[label], expected, rtol=0, atol=tolerance * expected.max())


def test_ray_through_the_center_represents_its_surroundings():
    """With an odd number of rays, one is at the singular center, whose deflection is 0 by convention."""
    drawn = dataclasses.replace(scene("no"), gamma1=jnp.float32(0.1))

    def image(subpixels):
        sharp = dataclasses.replace(
            COMMON_TEST.instrument, image_size=5, subpixels=subpixels, psf_sigma=0.0, psf_size=1, sky=0.0
        )
        preset = dataclasses.replace(COMMON_TEST, instrument=sharp)
        return jax.jit(lambda scene: simulation.expected_counts(scene, preset))(drawn)

    truth = image(16)
    np.testing.assert_allclose(image(1)[2, 2], truth[2, 2], rtol=0.01)
    undeflected = simulation.render.brightness(drawn, COMMON_TEST, jnp.zeros(1), jnp.zeros(1))
    assert undeflected[0] > 2 * truth[2, 2]


def test_psf_of_width_zero_does_not_blur():
    instrument = dataclasses.replace(COMMON_TEST.instrument, image_size=20, psf_sigma=0.0)
    found, expected = (
        simulation.expected_counts(
            scene("no"),
            dataclasses.replace(COMMON_TEST, instrument=dataclasses.replace(instrument, psf_size=size)),
        )
        for size in (11, 1)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.max() > 20


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("image_size", 0),
        ("image_size", (40, 60)),
        ("image_size", 2.5),
        ("subpixels", 0),
        ("psf_size", 0),
        ("psf_size", 4),
        ("psf_sigma", -0.1),
        ("psf_sigma", np.nan),
        ("pixel_scale", 0.0),
        ("sky", -1.0),
    ],
)
def test_invalid_instrument_raises_an_error(setting, value):
    with pytest.raises(UserError, match=f"^{setting} is .*; expected"):
        dataclasses.replace(COMMON_TEST.instrument, **{setting: value})


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [
        ("source", "amp", np.inf),
        ("source", "R_sersic", 0.0),
        ("source", "n_sersic", 0.1),
        ("source", "axis_ratio", (0.0, 1.0)),
        ("source", "offset", "round"),
        (None, "shear", (0.3, 0.1)),
        (None, "theta_E", (1.2, -0.1)),
        (None, "lens_e1", 1.0),
    ],
)
def test_invalid_prior_raises_an_error(part, setting, value):
    owner = COMMON_TEST if part is None else getattr(COMMON_TEST, part)
    with pytest.raises(UserError, match=r" is .*; expected"):
        dataclasses.replace(owner, **{setting: value})


def test_blur_conserves_flux_and_variance():
    image = np.zeros((51, 51), np.float32)
    image[25, 25] = 1
    blurred = np.asarray(convolve(jnp.asarray(image), gaussian_kernel(1.735, 11)), np.float64)
    offset = np.arange(41) - 20
    assert blurred.sum() == pytest.approx(1, abs=1e-6)
    products = convolve_by_matmul(jnp.asarray(image), gaussian_kernel(1.735, 11))
    np.testing.assert_allclose(products, blurred, atol=1e-7)
    variance = (blurred.sum(0) * offset**2).sum()
    kernel = np.exp(-0.5 * (np.arange(-5, 6) / 1.735) ** 2)
    assert variance == pytest.approx((kernel * np.arange(-5, 6) ** 2).sum() / kernel.sum(), rel=1e-5)
    np.testing.assert_allclose(blurred, blurred.T, atol=1e-8)


def test_image_is_center_of_larger_image():
    """Light from outside the image is blurred into it."""
    larger = dataclasses.replace(COMMON_TEST.instrument, image_size=170)
    drawn = dataclasses.replace(scene("no"), gamma1=jnp.float32(0.3), theta_E=jnp.float32(1.6))
    whole = simulation.expected_counts(drawn, dataclasses.replace(COMMON_TEST, instrument=larger))
    found = simulation.expected_counts(drawn, COMMON_TEST)
    np.testing.assert_allclose(found, whole[10:-10, 10:-10], rtol=1e-5)


def test_gradients_match_finite_differences():
    small = dataclasses.replace(
        COMMON_TEST, instrument=dataclasses.replace(COMMON_TEST.instrument, image_size=30)
    )
    with jax.enable_x64(True):
        drawn = jax.tree.map(jnp.asarray, on_host(scene("sphere")))
        drawn = dataclasses.replace(drawn, label=jnp.zeros((), jnp.int32), masses=drawn.masses[:3])
        weights = jnp.asarray(np.random.default_rng(0).normal(size=(30, 30)))

        def total(moved):
            return jnp.sum(weights * simulation.expected_counts(moved, small))

        gradient = jax.jit(jax.grad(total, allow_int=True))(drawn)
        compiled = jax.jit(total)
        for field in dataclasses.fields(drawn):
            if field.name == "label":
                continue
            value = getattr(drawn, field.name)
            for index in np.ndindex(value.shape):
                nudge = jnp.zeros_like(value).at[index].set(1e-6)
                up, down = (
                    compiled(dataclasses.replace(drawn, **{field.name: value + sign * nudge}))
                    for sign in (1, -1)
                )
                np.testing.assert_allclose(
                    getattr(gradient, field.name)[index],
                    (up - down) / 2e-6,
                    rtol=1e-4,
                    atol=1e-3,
                    err_msg=f"{field.name}{index}",
                )


def test_gradient_of_round_lens_needs_no_more_terms():
    """The series of a flatter lens has more terms."""
    small = dataclasses.replace(COMMON_TEST.instrument, image_size=20)
    drawn = dataclasses.replace(scene("no"), lens_e1=jnp.float32(1e-8))

    def total(e1, flattest):
        preset = dataclasses.replace(COMMON_TEST, instrument=small, lens_e1=flattest)
        counts = simulation.expected_counts(dataclasses.replace(drawn, lens_e1=e1), preset)
        return jnp.sum(counts[:9] ** 2)

    found, expected = (jax.grad(total)(drawn.lens_e1, flattest) for flattest in (1e-8, 0.3))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
