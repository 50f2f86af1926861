"""Verdict on whether a fit can be trusted: good, doubtful or failed, with the reasons."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

VerdictName = Literal["good", "doubtful", "failed"]

DETECTION = 5.0  # standard deviations: the lensed source against no source
SPREAD = 0.04  # relative difference of the Einstein radii of flexible models of the source
POSITIVE_SPREAD = 0.1  # relative difference from the Einstein radius of the first, positive source
FAILED_SPREAD = 0.15  # as `SPREAD`, beyond which a fit has failed
CLOSE_COST = 1.05  # cost of a second solution relative to that of the best
DIFFERENT_RADIUS = 0.03  # relative difference of the Einstein radii of two different solutions
LARGE_SHEAR = 0.25
RESIDUAL = 2.5  # mean squared residual in the arcs, relative to the blank sky
# Variance of the blank sky relative to the noise map; 0.5 is common in resampled images.
SKY_VARIANCE = (0.1, 4.0)
SOURCE_BORDER = 0.1  # brightness at the border of the source's grid, relative to the peak


class Evidence(NamedTuple):
    """The evidence on which a verdict is based.

    Attributes:
      detection: significance of the lensed source, standard deviations.
      theta_E: Einstein radius of the result, arcsec.
      radii: Einstein radii for other flexible sources and another strength of the priors, arcsec.
      positive_radius: Einstein radius for the first, positive source, arcsec.
      others: Einstein radius (arcsec) and cost relative to the best, of other solutions.
      psf_width: full width at half maximum of the point-spread function, arcsec.
      at_bound: names of parameters at a bound.
      shear: modulus of the external shear.
      arc_residual: mean squared residual in the arcs, relative to the blank sky.
      source_offset: distance of the source from the lens in Einstein radii.
      cut_off: fraction of the arcs' annulus that is outside of the image or masked.
      sky_variance: variance of the blank sky relative to that of the noise map.
      simpler_source: True if the source of the model could not be fitted, and a simpler one was used.
      source_border: brightness at the border of the source's grid, relative to the peak.
    """

    detection: float
    theta_E: float
    radii: Sequence[float]
    positive_radius: float
    others: Sequence[tuple[float, float]]
    psf_width: float
    at_bound: Sequence[str]
    shear: float
    arc_residual: float
    source_offset: float
    cut_off: float
    sky_variance: float = 1.0
    simpler_source: bool = False
    source_border: float = 0.0


class Verdict(NamedTuple):
    """Verdict on a fit.

    Attributes:
      name: "good", "doubtful" or "failed".
      reasons: why it is not good; empty for a good fit.
    """

    name: VerdictName
    reasons: tuple[str, ...]


def judge(evidence: Evidence) -> Verdict:
    """Judges a fit.

    Args:
      evidence: the quantities to check.

    Returns:
      The verdict; reasons for a failure precede reasons for doubt.
    """
    failed: list[str] = []
    doubtful: list[str] = []
    if not evidence.detection > DETECTION:
        failed.append(f"no lensed source was found ({evidence.detection:.1f} standard deviations)")
    if evidence.theta_E < evidence.psf_width / 2:
        failed.append(
            f"theta_E ({evidence.theta_E:.3g} arcsec) is less than half the width of the point-spread "
            f"function ({evidence.psf_width:.3g} arcsec)"
        )
    spread = max((abs(radius / evidence.theta_E - 1) for radius in evidence.radii), default=0.0)
    if spread > SPREAD:
        (failed if spread > FAILED_SPREAD else doubtful).append(
            f"theta_E differs by {100 * spread:.0f} % between models of the source or strengths of the priors"
        )
    change = abs(evidence.positive_radius / evidence.theta_E - 1)
    if change > POSITIVE_SPREAD:
        doubtful.append(f"theta_E differs by {100 * change:.0f} % from that for a positive source")
    close = [
        radius
        for radius, cost in evidence.others
        if cost < CLOSE_COST and abs(radius / evidence.theta_E - 1) > DIFFERENT_RADIUS
    ]
    if close:
        doubtful.append(f"another solution, theta_E = {close[0]:.3g} arcsec, fits almost as well")
    if evidence.at_bound:
        doubtful.append(f"parameters at a bound: {', '.join(evidence.at_bound)}")
    if evidence.shear > LARGE_SHEAR:
        doubtful.append(f"the external shear is {evidence.shear:.2f}")
    if evidence.arc_residual > RESIDUAL:
        doubtful.append(
            f"the residual of the arcs has {evidence.arc_residual:.1f} times the variance of the blank sky"
        )
    if evidence.source_offset > 1.0:
        doubtful.append("the source is farther from the lens than one Einstein radius: a single image")
    if evidence.cut_off > 0.3:
        doubtful.append(f"{100 * evidence.cut_off:.0f} % of the arcs' annulus is masked or outside the image")
    low, high = SKY_VARIANCE
    if not low < evidence.sky_variance < high:
        doubtful.append(
            f"the blank sky has {evidence.sky_variance:.3g} times the variance of the noise map; check "
            "its unit, and that it contains standard deviations"
        )
    if evidence.simpler_source:
        doubtful.append("the source of the model could not be fitted; the result is for a simpler source")
    if evidence.source_border > SOURCE_BORDER:
        doubtful.append("the source reaches the border of its grid")
    if failed:
        return Verdict("failed", (*failed, *doubtful))
    return Verdict("doubtful" if doubtful else "good", tuple(doubtful))
