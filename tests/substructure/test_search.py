"""Search for a perturber in a small lens rendered by lenstronomy, compared with refits and pure noise."""

import dataclasses
import json
import types

import numpy as np
import pytest
from helpers.fitted_lens import HALO, LOG10_MASS, POSITION, fit_data, fitted_lens, observation
from helpers.small_lens import observe
from scipy import stats

from lensjax.errors import UserError
from lensjax.modeling import PixelGrid
from lensjax.modeling.verdict import Verdict
from lensjax.substructure import (
    Halo,
    Nuisances,
    PerturberMap,
    PerturberSearch,
    find_perturber,
    linearize,
    map_perturbers,
    refit_with,
    refit_without,
)
from lensjax.substructure.perturber import DETECTED
from lensjax.substructure.refit import Refit
from lensjax.substructure.scan import make_renderer, measure_responses

KNOWN_PSF = Nuisances(extra_order=1, psf_width=0.0)


@pytest.fixture(scope="module")
def lens():
    """The observation with a perturber, and its fit."""
    return fitted_lens()


def test_injected_perturber_is_found_with_its_mass(lens):
    search = find_perturber(*lens, HALO, nuisances=KNOWN_PSF, step=0.15)
    assert search.verdict == "detected"
    values = search.values
    for axis, true in zip("xy", POSITION, strict=True):
        assert abs(values[axis] - true) < 4 * values[f"{axis}_error"]
        assert 0 < values[f"{axis}_error"] < 0.1
    assert abs(values["log10_mass"] - LOG10_MASS) < 4 * values["log10_mass_error"]
    assert 0 < values["log10_mass_error"] < 0.3
    x, y, mass, _ = search.map.best
    assert np.hypot(x - POSITION[0], y - POSITION[1]) < 0.15
    assert mass == pytest.approx(LOG10_MASS, abs=0.35)
    assert search.map.log_evidence > 10


@pytest.fixture(scope="module", params=[False, True], ids=["smooth", "perturbed"])
def linearized(request):
    """First-order model, renderer and refit without a perturber of a lens, and the perturbers to test."""
    lens = fitted_lens(perturbed=request.param)
    linear = linearize(*lens, KNOWN_PSF)
    found = [(*POSITION, LOG10_MASS), (*POSITION, 9.0)]
    everywhere = [(*POSITION, 9.0), (-0.8, 0.7, 9.0), (-0.8, 0.7, 10.0), (0.2, -1.2, 10.0)]
    perturbers = found if request.param else everywhere
    return linear, make_renderer(linear, HALO, lens[1]), refit_without(linear), perturbers


def test_first_order_map_agrees_with_complete_refits(linearized):
    linear, renderer, without, perturbers = linearized
    for x, y, log10_mass in perturbers:
        parameters = renderer.parameters(np.array([x]), np.array([y]), np.array([10**log10_mass]))
        found = measure_responses(renderer, parameters)
        variance = float(found.variance[0])
        first_order = float((found.gain - found.square / 2)[0]) / variance
        complete = refit_with(linear, without, HALO, x, y, log10_mass, variance=variance, free=False)
        assert first_order == pytest.approx(complete.likelihood_ratio, rel=0.2, abs=2.0)
        assert (complete.x, complete.y, complete.log10_mass) == pytest.approx((x, y, log10_mass), abs=1e-5)


def test_variance_of_noise_gain_is_the_information():
    scores = []
    for seed in range(12):
        data = observe(seed + 10)
        found, _ = map_perturbers(
            observation(data), fit_data(data), HALO, nuisances=KNOWN_PSF, log10_masses=(8, 8.5), step=0.5
        )
        searched = found.information[..., 0] > 0
        scores.append(found.gain[searched][:, 0] / np.sqrt(found.information[searched][:, 0]))
    scores = np.concatenate(scores)
    assert scores.size > 150
    assert np.std(scores) == pytest.approx(1, abs=0.15)
    assert abs(np.mean(scores)) < 0.25
    assert stats.kstest(scores, "norm").pvalue > 1e-4


def synthetic_map(information_at_1e9=8.0):
    """A map whose information is proportional to the squared mass, 0 in one column."""
    mass = np.arange(8, 10.51, 0.1)
    information = np.full((3, 4, mass.size), information_at_1e9) * 10 ** (2 * (mass - 9))
    information[:, 0] = 0
    inside = np.ones((3, 4), bool)
    inside[0, 3] = False
    axes = np.arange(4) * 0.1, np.arange(3) * 0.1
    return PerturberMap(HALO, *axes, inside, mass, np.zeros_like(information), information, 1.0, 1.0)


def test_sensitivity_is_where_information_is_twice_the_threshold():
    found = synthetic_map()
    smallest = found.sensitivity(4.0)
    np.testing.assert_allclose(smallest[:, 1:3], 9.0, atol=1e-6)
    assert np.isinf(smallest[:, 0]).all()
    assert np.isnan(smallest[0, 3])
    np.testing.assert_allclose(found.sensitivity(0.004)[:, 1:3], 7.5, atol=1e-6)  # below the smallest mass
    assert found.sensitive_fraction(9.01, 4.0) == pytest.approx(8 / 11)
    assert found.sensitive_fraction(8.99, 4.0) == 0


def test_evidence_averages_the_likelihood_ratio():
    found = synthetic_map()
    gain = np.zeros_like(found.gain)
    gain[1, 2, 10] = found.information[1, 2, 10] / 2 + 20
    found = dataclasses.replace(found, gain=gain)
    assert found.best == pytest.approx((0.2, 0.1, 9.0, 20.0))
    assert found.log_evidence == pytest.approx(20 - np.log(11 * 26), abs=1e-3)
    assert found.posterior["log10_mass"] == pytest.approx((9.0, 0.0), abs=1e-3)


def test_unusable_input_is_rejected(lens):
    seen, fit = lens
    failed = dataclasses.replace(fit, verdict=Verdict("failed", ("no lensed source was found",)))
    with pytest.raises(UserError, match="no lensed source"):
        map_perturbers(seen, failed, HALO)
    grid = dataclasses.replace(fit, model=dataclasses.replace(fit.model, source=(PixelGrid(),)))
    with pytest.raises(UserError, match="use Shapelets"):
        map_perturbers(seen, grid, HALO)
    side = min(fit.frame.rows, fit.frame.columns) * fit.frame.pixel_scale
    for step in (0, np.nan, np.inf):
        with pytest.raises(UserError, match=f"step is {step}; expected a positive number"):
            map_perturbers(seen, fit, HALO, step=step)
    with pytest.raises(UserError, match=f"step is .*; expected at most {side / 2:g} arcsec"):
        map_perturbers(seen, fit, HALO, step=0.501 * side)
    for masses in ((9.0,), (9.0, 8.0), (9.0, 9.05), (9.0, np.nan)):
        with pytest.raises(UserError, match=r"log10_masses is \(9.0,.* expected at least two, in ascending"):
            map_perturbers(seen, fit, HALO, log10_masses=masses)
    with pytest.raises(UserError, match=r"refits is 1\.5; expected a whole number of at least 0"):
        find_perturber(seen, fit, HALO, refits=1.5)
    with pytest.raises(UserError, match="0 < z_lens < z_source"):
        Halo(0.8, 0.3)
    with pytest.raises(UserError, match="pseudo_jaffe, nfw, point_mass"):
        Halo(0.3, 0.8, "sis")


@pytest.mark.parametrize(
    ("reasons", "y", "misfit", "log10_mass", "expected"),
    [
        ((), 1.0, 1.1, 9.5, "detected"),
        (("parameters at a bound",), 1.0, 1.1, 9.5, "candidate"),
        ((), 0.3, 1.1, 9.5, "candidate"),
        ((), 1.0, 1.3, 9.5, "candidate"),
        ((), 1.0, 1.1, 10.5, "candidate"),
    ],
    ids=["clear", "doubtful fit", "central", "misfit", "largest mass"],
)
def test_perturber_with_reason_for_doubt_is_candidate(reasons, y, misfit, log10_mass, expected):
    verdict = Verdict("doubtful" if reasons else "good", reasons)
    fitted = types.SimpleNamespace(verdict=verdict, einstein_radius=1.2, parameters={})
    found = types.SimpleNamespace(
        best=(0.0, y, log10_mass, 2 * DETECTED),
        misfit=misfit,
        log10_mass=np.array([8.5, 10.5]),
        posterior=dict.fromkeys(("x", "y", "log10_mass"), (0.0, 0.1)),
    )
    assert PerturberSearch(fitted, found, ()).verdict == expected


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_json_has_null_for_nan_and_infinity(value):
    fitted = types.SimpleNamespace(verdict=Verdict("good", ()), einstein_radius=1.2, parameters={})
    refit = Refit(0.0, 1.0, 9.0, (value, 0.1, value), value, {})
    search = PerturberSearch(fitted, synthetic_map(), (refit,))
    found = json.loads(search.to_json(), parse_constant=pytest.fail)
    assert found["x_error"] is None
    assert found["y_error"] == 0.1
    assert found["refits"][0]["errors"] == [None, 0.1, None]
    assert found["refits"][0]["likelihood_ratio"] is None
