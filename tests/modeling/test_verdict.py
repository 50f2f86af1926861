"""Verdicts: each reason, and which ones make a fit fail."""

import pytest

from lensjax.modeling.verdict import Evidence, judge

GOOD = Evidence(
    detection=30.0,
    theta_E=1.2,
    radii=[1.19, 1.21],
    positive_radius=1.15,
    others=[(0.9, 1.5), (1.21, 1.01)],
    psf_width=0.1,
    at_bound=[],
    shear=0.05,
    arc_residual=1.1,
    source_offset=0.2,
    cut_off=0.0,
)


def test_good_evidence_gives_a_good_verdict():
    assert judge(GOOD) == ("good", ())


@pytest.mark.parametrize(
    ("change", "good", "verdict", "reason"),
    [
        ({"detection": 4.9}, {"detection": 5.1}, "failed", "no lensed source was found (4.9 standard"),
        ({"detection": float("nan")}, {}, "failed", "no lensed source was found (nan"),
        (
            {"psf_width": 2.5},
            {"psf_width": 2.3},
            "failed",
            "theta_E (1.2 arcsec) is less than half the width",
        ),
        ({"radii": [1.2, 1.4]}, {"radii": [1.16, 1.24]}, "failed", "theta_E differs by 17 % between models"),
        ({"radii": [1.14, 1.2]}, {}, "doubtful", "theta_E differs by 5 % between models of the source"),
        (
            {"positive_radius": 1.4},
            {"positive_radius": 1.1},
            "doubtful",
            "17 % from that for a positive source",
        ),
        ({"others": [(0.9, 1.04)]}, {}, "doubtful", "another solution, theta_E = 0.9 arcsec, fits almost"),
        (
            {"at_bound": ["mass.0.e1", "source.0.beta"]},
            {},
            "doubtful",
            "parameters at a bound: mass.0.e1, source.0.beta",
        ),
        (
            {"sky_variance": 20.0},
            {"sky_variance": 0.46},
            "doubtful",
            "has 20 times the variance of the noise",
        ),
        ({"sky_variance": 1e-6}, {"sky_variance": 3.0}, "doubtful", "has 1e-06 times the variance"),
        ({"simpler_source": True}, {}, "doubtful", "the result is for a simpler source"),
        ({"shear": 0.26}, {"shear": 0.24}, "doubtful", "the external shear is 0.26"),
        ({"arc_residual": 2.6}, {"arc_residual": 2.4}, "doubtful", "the residual of the arcs has 2.6 times"),
        ({"source_offset": 1.1}, {"source_offset": 0.9}, "doubtful", "a single image"),
        ({"cut_off": 0.4}, {"cut_off": 0.2}, "doubtful", "40 % of the arcs' annulus is masked"),
        (
            {"source_border": 0.3},
            {"source_border": 0.05},
            "doubtful",
            "the source reaches the border of its grid",
        ),
    ],
)
def test_each_reason_changes_the_verdict(change, good, verdict, reason):
    found = judge(GOOD._replace(**change))
    assert found.name == verdict
    assert len(found.reasons) == 1
    assert reason in found.reasons[0]
    assert judge(GOOD._replace(**good)).name == "good"


def test_failures_precede_doubts():
    found = judge(GOOD._replace(detection=1.0, shear=0.4, cut_off=0.9))
    assert found.name == "failed"
    assert [reason.split()[0] for reason in found.reasons] == ["no", "the", "90"]
