"""Scenes: distributions of their parameters, classes and keys."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lensjax import physics, simulation
from lensjax.data import images
from lensjax.errors import UserError
from lensjax.simulation.render import deflection

COMMON_TEST = simulation.preset("common_test")
NUMBER = 3_000


@functools.cache
def scenes(substructure):
    keys = jax.random.split(jax.random.key(simulation.CLASSES.index(substructure)), NUMBER)
    draw = jax.jit(jax.vmap(lambda key: simulation.draw_scene(key, COMMON_TEST, substructure)))
    return jax.tree.map(np.asarray, draw(keys))


def assert_distributed(values, distribution):
    """Kolmogorov-Smirnov test with a false-alarm probability of 1e-4."""
    assert stats.kstest(values, distribution.cdf).pvalue > 1e-4


def uniform(low, high):
    return stats.uniform(low, high - low)


@pytest.mark.parametrize("substructure", simulation.CLASSES)
def test_lens_and_source_follow_priors_in_every_class(substructure):
    drawn = scenes(substructure)
    assert (drawn.label == simulation.CLASSES.index(substructure)).all()
    assert_distributed(drawn.theta_E, stats.norm(1.27, 0.1675))
    assert_distributed(np.hypot(drawn.gamma1, drawn.gamma2), uniform(0, 0.3))
    assert_distributed(np.hypot(drawn.source_x, drawn.source_y), uniform(0, 0.5))
    ellipticity = np.hypot(drawn.source_e1, drawn.source_e2)
    assert_distributed((1 - ellipticity) / (1 + ellipticity), uniform(0.4, 1))
    direction = np.arctan2(drawn.source_y, drawn.source_x)
    assert_distributed(direction, uniform(-np.pi, np.pi))


def test_varied_scenes_follow_their_distributions():
    preset = simulation.preset("varied")
    keys = jax.random.split(jax.random.key(3), NUMBER)
    drawn = jax.jit(jax.vmap(lambda key: simulation.draw_scene(key, preset, "no")))(keys)
    drawn = jax.tree.map(np.asarray, drawn)
    assert_distributed(np.log10(drawn.source_amp / 100), uniform(-0.3, 0.3))
    assert_distributed(np.log10(drawn.sky), uniform(0.5, 3))
    assert_distributed(drawn.R_sersic, uniform(0.2, 0.7))
    assert_distributed(drawn.n_sersic, uniform(0.5, 4))
    ellipticity = np.hypot(drawn.lens_e1, drawn.lens_e2)
    assert_distributed((1 - ellipticity) / (1 + ellipticity), uniform(0.6, 1))
    assert_distributed(np.arctan2(drawn.lens_e2, drawn.lens_e1), uniform(-np.pi, np.pi))
    assert_distributed(np.hypot(drawn.center_x, drawn.center_y), uniform(0, 0.15))
    assert_distributed(drawn.psf_sigma, uniform(0.035, 0.11))
    bright = drawn.light_amp > 0
    assert stats.binomtest(int(bright.sum()), NUMBER, 0.5).pvalue > 1e-4
    assert_distributed(np.log10(drawn.light_amp[bright] / 100), uniform(-1.5, 0))
    assert_distributed(drawn.light_R_sersic, uniform(0.2, 0.6))
    assert_distributed(drawn.light_n_sersic, uniform(1, 4))


def test_shear_and_source_are_nearly_horizontal():
    drawn = scenes("no")
    limit = np.rad2deg(0.5 * np.deg2rad(2 * 2 * np.pi))
    for one, two in ((drawn.gamma1, drawn.gamma2), (drawn.source_e1, drawn.source_e2)):
        assert_distributed(np.rad2deg(0.5 * np.arctan2(two, one)), uniform(-limit, 0))


def test_smooth_scenes_have_no_masses():
    assert (scenes("no").masses == 0).all()


def test_subhalos_follow_mass_and_distance_priors():
    masses = scenes("sphere").masses
    assert masses.shape == (NUMBER, 25, 3)
    assert_distributed(np.hypot(masses[..., 1], masses[..., 2])[:, 0], uniform(0.25, 2))
    solar = 1e12 * (masses[:, 0, 0].astype(np.float64) / 1.28149) ** 2
    assert_distributed(solar**0.1, uniform(1e6**0.1, 1e10**0.1))
    assert np.abs(np.corrcoef(solar, masses[:, 1, 0])[0, 1]) < 0.1


def test_vortex_is_straight_line_of_equal_masses():
    drawn = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), scenes("vort"))
    masses = drawn.masses
    np.testing.assert_array_equal(masses[..., 0], np.repeat(masses[:, :1, 0], 25, axis=1))
    assert_distributed(25 * (masses[:, 0, 0] / drawn.theta_E) ** 2, uniform(0.03, 0.055))
    ends = masses[:, -1, 1:] - masses[:, 0, 1:]
    assert_distributed(np.hypot(*ends.T), uniform(1, 4))
    steps = np.diff(masses[..., 1:], axis=1)
    np.testing.assert_allclose(steps, np.broadcast_to(ends[:, None] / 24, steps.shape), atol=1e-6)
    for axis in (1, 2):
        assert_distributed(masses[..., axis].mean(1), stats.norm(0, 0.5))


def test_axion_vortex_length_scales_inversely_with_axion_mass():
    preset = simulation.preset("model_1")
    keys = jax.random.split(jax.random.key(0), NUMBER)
    draw = jax.jit(jax.vmap(lambda key: simulation.draw_scene(key, preset, "vort")))
    drawn = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), draw(keys))
    assert_distributed(np.log10(drawn.axion_mass), uniform(-24, -22))
    ends = drawn.masses[:, -1, 1:] - drawn.masses[:, 0, 1:]
    np.testing.assert_allclose(np.hypot(*ends.T), 0.06 * 1e-22 / drawn.axion_mass, rtol=1e-5)
    np.testing.assert_allclose(drawn.masses[..., 1:].mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(100 * 1e12 * (drawn.masses[..., 0] / 1.28149) ** 2, 3e10, rtol=1e-5)
    assert_distributed(np.log10(drawn.exposure), uniform(3, 3.5))
    for offset in (drawn.source_x, drawn.source_y):
        assert_distributed(offset, uniform(-0.35, 0.35))
    np.testing.assert_allclose(drawn.source_e1, -0.1, rtol=1e-5)
    np.testing.assert_allclose(drawn.source_e2, 0.1, rtol=1e-5)
    assert (scenes("vort").axion_mass == 0).all()


def test_deeplensesim_deflection_scale_is_ratio_of_distances():
    """Sources at redshift 1 instead of 2.5, behind a lens at 0.5, in the cosmology of pyHalo."""
    with jax.enable_x64(True):
        (_, near, to_near), (_, far, to_far) = (
            physics.lensing_distances(0.5, redshift, Om0=0.309) for redshift in (1.0, 2.5)
        )
        scale = float(to_near / near / (to_far / far))
    assert pytest.approx(scale, rel=1e-8) == simulation.DEEPLENSESIM_DEFLECTION_SCALE


@pytest.mark.parametrize("substructure", simulation.CLASSES)
@pytest.mark.parametrize(("name", "survey"), [("model_2", "euclid_like"), ("model_3", "hubble_like")])
def test_deflections_of_models_2_and_3_are_rescaled(name, survey, substructure):
    scaled, whole = (
        simulation.draw_scene(jax.random.key(5), simulation.preset(preset), substructure)
        for preset in (name, survey)
    )
    scale = simulation.DEEPLENSESIM_DEFLECTION_SCALE
    np.testing.assert_allclose(scaled.theta_E, scale * whole.theta_E, rtol=1e-6)
    np.testing.assert_allclose(scaled.gamma1, scale * whole.gamma1, rtol=1e-6)
    np.testing.assert_allclose(scaled.masses[:, 0] ** 2, scale * whole.masses[:, 0] ** 2, rtol=1e-5)
    np.testing.assert_array_equal(scaled.masses[:, 1:], whole.masses[:, 1:])
    np.testing.assert_array_equal(
        (scaled.source_x, scaled.source_y, scaled.lens_e1, scaled.axion_mass),
        (whole.source_x, whole.source_y, whole.lens_e1, whole.axion_mass),
    )


@pytest.mark.filterwarnings("ignore:Cosmology is provided")
def test_rescaled_deflection_matches_multi_plane_lenstronomy():
    """lenstronomy's deflection with DeepLenseSim's own parameters and source redshifts."""
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model", exc_type=ImportError)
    cosmology = pytest.importorskip("astropy.cosmology", exc_type=ImportError)
    survey, model = simulation.preset("euclid_like"), simulation.preset("model_2")
    key = jax.random.key(8)
    own, scaled = (
        jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), simulation.draw_scene(key, preset, "sphere"))
        for preset in (survey, model)
    )
    masses = own.masses[own.masses[:, 0] > 0]
    names = ["SIE", "SHEAR"] + ["POINT_MASS"] * len(masses)
    lens = lens_model.LensModel(
        names,
        lens_redshift_list=[0.5] * len(names),
        z_source=1.0,
        z_source_convention=2.5,
        multi_plane=True,
        cosmo=cosmology.FlatLambdaCDM(H0=67.4, Om0=0.309),
    )
    parameters = [
        {"theta_E": own.theta_E, "e1": own.lens_e1, "e2": own.lens_e2},
        {"gamma1": own.gamma1, "gamma2": own.gamma2},
    ]
    parameters += [{"theta_E": row[0], "center_x": row[1], "center_y": row[2]} for row in masses]
    x, y = np.random.default_rng(0).uniform(-3, 3, (2, 500))
    expected = np.subtract((x, y), lens.ray_shooting(x, y, parameters))
    with jax.enable_x64(True):
        found = deflection(jax.tree.map(jnp.asarray, scaled), model, jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_scene_depends_only_on_key():
    one, same, other = (
        simulation.draw_scene(jax.random.key(seed), COMMON_TEST, "sphere") for seed in (3, 3, 4)
    )
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert one.theta_E != other.theta_E


def test_modified_preset_changes_scene():
    wide = dataclasses.replace(COMMON_TEST, theta_E=(2.0, 0.0), shear=(0.0, 0.0))
    scene = simulation.draw_scene(jax.random.key(0), wide, "no")
    assert scene.theta_E == 2.0
    assert scene.gamma1 == scene.gamma2 == 0


@pytest.mark.parametrize("substructure", simulation.CLASSES)
def test_class_name_and_index_array_give_same_scene(substructure):
    key, index = jax.random.key(6), jnp.int32(simulation.CLASSES.index(substructure))
    by_name, by_index = (simulation.draw_scene(key, COMMON_TEST, given) for given in (substructure, index))
    jax.tree.map(np.testing.assert_array_equal, by_name, by_index)


@pytest.mark.parametrize("unknown", ["vortex", 2])
def test_unknown_class_raises_an_error(unknown):
    with pytest.raises(UserError, match=r"substructure is .*; expected one of 'no', 'sphere', 'vort'"):
        simulation.draw_scene(jax.random.key(0), COMMON_TEST, unknown)


def test_classes_match_data_package():
    assert simulation.CLASSES == images.CLASSES


def test_unknown_preset_error_suggests_nearest_name():
    with pytest.raises(UserError, match=r"unknown simulation preset 'comon_test'.*mean common_test"):
        simulation.preset("comon_test")
