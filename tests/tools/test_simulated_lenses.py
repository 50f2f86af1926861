"""tools/studies/simulated_lenses.py: noise, brightness and geometry of the simulated lenses."""

import pathlib
import runpy

import numpy as np
import pytest

TOOL = runpy.run_path(str(pathlib.Path(__file__).parents[2] / "tools" / "studies" / "simulated_lenses.py"))


def test_noise_has_the_correlation_of_drizzled_images():
    noise = TOOL["correlated_noise"](np.random.default_rng(0), (600, 600))
    assert noise.var() == pytest.approx(1, abs=0.01)
    assert (noise[1:] * noise[:-1]).mean() == pytest.approx(TOOL["NEIGHBORS"], abs=0.01)
    assert (noise[:, 1:] * noise[:, :-1]).mean() == pytest.approx(TOOL["NEIGHBORS"], abs=0.01)
    assert abs((noise[3:] * noise[:-3]).mean()) < 0.01


def test_point_spread_function_has_the_stated_width():
    profile = TOOL["moffat"](121)
    assert profile.sum() == pytest.approx(1)
    middle = profile[60] / profile.max()
    width = 2 * np.interp(-0.5, -middle[60:], np.arange(61)) * TOOL["SCALE"] / TOOL["FINE"]
    assert width == pytest.approx(TOOL["PSF_FWHM"], rel=0.02)


@pytest.mark.parametrize("main_lens", ["SIE", "EPL"])
def test_galaxy_and_ring_are_where_the_truth_says(main_lens):
    truth = {"mass.0.theta_E": 1.2, "mass.0.gamma": 2.1, "mass.0.e1": 0.0, "mass.0.e2": 0.0}
    truth |= {"mass.0.center_x": 0.3, "mass.0.center_y": -0.2, "mass.1.gamma1": 0.0, "mass.1.gamma2": 0.0}
    if main_lens == "SIE":
        del truth["mass.0.gamma"]
    round_ = {"e1": 0.0, "e2": 0.0, "center_x": 0.3, "center_y": -0.2, "n_sersic": 1.0}
    light, ring = TOOL["render"](
        main_lens, truth, [{"amp": 1.0, "R_sersic": 0.5, **round_}], [{"amp": 1.0, "R_sersic": 0.1, **round_}]
    )
    y, x = (np.mgrid[:120, :120] - 59.5) * TOOL["SCALE"]
    assert (light * x).sum() / light.sum() == pytest.approx(0.3, abs=0.01)
    assert (light * y).sum() / light.sum() == pytest.approx(-0.2, abs=0.01)
    radius = np.hypot(x - 0.3, y + 0.2)
    assert abs(radius[ring > 0.9 * ring.max()] - 1.2).max() < 0.1


def test_observation_is_reproducible_and_has_its_brightness():
    truth = TOOL["draw_mass"](np.random.default_rng(1), "SIE")
    first, again = (TOOL["observe"](np.random.default_rng(2), truth, "SIE") for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    assert 95 < (first.image / first.noise).max() < 220
    corner = first.image[:10, :10] / first.noise[:10, :10]
    assert np.diff(corner).std() == pytest.approx(
        TOOL["SCATTER"] * np.sqrt(2 * (1 - TOOL["NEIGHBORS"])), rel=0.2
    )
