"""Search for one dark perturber in a fitted lens: verdict, position, mass and sensitivity."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from lensjax.json_text import encode_json
from lensjax.modeling.arguments import whole_number
from lensjax.modeling.observation import Observation
from lensjax.modeling.result import LensModelFit
from lensjax.substructure.halos import Halo
from lensjax.substructure.nuisances import USUAL, Nuisances
from lensjax.substructure.refit import Refit, refit_with, refit_without
from lensjax.substructure.search import PerturberMap, map_perturbers

# Logarithms of the likelihood ratio that the best of all positions and masses exceeds in 10 % and in 1 % of
# 250 simulated lenses without a perturber; measured by tools/studies/substructure.py.
CANDIDATE, DETECTED = 6.7, 13.5
VERDICTS = ("detected", "candidate", "none", "failed")
FRACTIONS = (8, 9, 10)  # log10 of the masses for which the sensitive fraction of the area is reported
_CENTRAL = 0.5  # Einstein radii
_MISFIT = 1.2  # the largest of the simulated lenses without a perturber
_SEPARATION = 0.3  # arcsec, between the positions of refits


@dataclasses.dataclass(frozen=True, eq=False)
class PerturberSearch:
    """Result of `find_perturber`.

    Attributes:
      fit: the fit of the lens without a perturber.
      map: likelihood of a perturber at each position, to first order.
      refits: complete refits from the best positions of the map, the best first.
    """

    fit: LensModelFit
    map: PerturberMap
    refits: tuple[Refit, ...]

    @property
    def likelihood_ratio(self) -> float:
        """Logarithm of the likelihood ratio: that of the map, or that of the best refit if it is smaller."""
        ratios = [self.map.best[3], *(each.likelihood_ratio for each in self.refits[:1])]
        return min(ratios)

    @property
    def verdict(self) -> str:
        """One of "detected", "candidate" and "none".

        Of 250 simulated lenses without a perturber, 1 % exceeded the threshold of the first, and 10 % that of
        the second. If there is a reason for doubt (`reasons`), a perturber is at most a candidate, because
        errors of the model can look like one, and the simulated lenses do not have them.
        """
        if self.likelihood_ratio > DETECTED and not self.reasons:
            return "detected"
        return "candidate" if self.likelihood_ratio > CANDIDATE else "none"

    @property
    def central(self) -> bool:
        """Whether the best position is within half an Einstein radius of the center of the lens."""
        x, y = (self.refits[0].x, self.refits[0].y) if self.refits else self.map.best[:2]
        center = [self.fit.parameters.get(f"mass.0.center_{axis}", 0.0) for axis in ("x", "y")]
        return math.hypot(x - center[0], y - center[1]) < _CENTRAL * self.fit.einstein_radius

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the answer may be wrong."""
        found = [f"the fit of the lens is doubtful: {reason}" for reason in self.fit.verdict.reasons]
        if self.map.misfit > _MISFIT:
            found.append(
                f"the variance of the residual of the arcs is {self.map.misfit:.2f} times that of the noise"
            )
        if self.central:
            found.append(
                "the best position is near the center of the lens, where errors of the main mass look similar"
            )
        largest = self.map.log10_mass[-1]
        if self.map.best[2] >= largest or self.values["log10_mass"] > largest:
            found.append("the best mass is at or above the largest mass of the map")
        return tuple(found)

    @property
    def values(self) -> dict[str, float]:
        """Position (arcsec) and log10 mass (solar masses) of the best perturber, with standard errors."""
        if self.refits:
            best = self.refits[0]
            values = {"x": best.x, "y": best.y, "log10_mass": best.log10_mass}
            errors = dict(zip(values, best.errors, strict=True))
        else:
            values = dict(zip(("x", "y", "log10_mass"), self.map.best[:3], strict=True))
            errors = {name: deviation for name, (_, deviation) in self.map.posterior.items()}
        return values | {f"{name}_error": error for name, error in errors.items()}

    def row(self) -> dict[str, Any]:
        """The result as one row of a table."""
        sensitivity = self.map.sensitivity(CANDIDATE)
        return {
            "verdict": self.verdict,
            "reasons": "; ".join(self.reasons),
            "likelihood_ratio": self.likelihood_ratio,
            "likelihood_ratio_first_order": self.map.best[3],
            "log_evidence": self.map.log_evidence,
            **self.values,
            "smallest_detectable_log10_mass": float(np.nanmin(sensitivity)),
            **{
                f"sensitive_fraction_1e{mass}": self.map.sensitive_fraction(mass, CANDIDATE)
                for mass in FRACTIONS
            },
            "profile": self.map.halo.profile,
            "z_lens": self.map.halo.z_lens,
            "z_source": self.map.halo.z_source,
            "misfit": self.map.misfit,
            "fit_verdict": self.fit.verdict.name,
            "theta_E": self.fit.einstein_radius,
        }

    def to_json(self) -> str:
        """The row and the refits as JSON; values that are not finite are null."""
        content = self.row() | {
            "refits": [
                {
                    "x": each.x,
                    "y": each.y,
                    "log10_mass": each.log10_mass,
                    "errors": list(each.errors),
                    "likelihood_ratio": each.likelihood_ratio,
                }
                for each in self.refits
            ]
        }
        return encode_json(content, indent=2)


def find_perturber(
    observation: Observation,
    fit: LensModelFit,
    halo: Halo,
    *,
    nuisances: Nuisances = USUAL,
    step: float = 0.1,
    refits: int = 1,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> PerturberSearch:
    """Searches for one dark perturber in a fitted lens.

    Args:
      observation: the observation.
      fit: its fit, see `lensjax.modeling.fit`.
      halo: kind of perturber, with the redshifts.
      nuisances: effects that are fitted together with the perturber.
      step: distance between neighboring positions of the map, arcsec; at most half the side of the fitted
        image.
      refits: number of positions from which all parameters are fitted, if the map has a candidate.
      progress: called with the number of finished renderings of the map and their total number.

    Returns:
      The result.

    Raises:
      UserError: if the fit failed or has no arcs that exceed the noise, its source is on a grid of pixels, an
        argument is invalid, or a refit is not finite.
    """
    refits = whole_number("refits", refits, 0)
    found, linear = map_perturbers(observation, fit, halo, nuisances=nuisances, step=step, progress=progress)
    starts = [each for each in _best_positions(found, refits) if each[3] > CANDIDATE]
    results = []
    if starts:
        without = refit_without(linear)
        variance = found.variance * found.misfit
        results = [
            refit_with(linear, without, halo, x, y, mass, variance=variance) for x, y, mass, _ in starts
        ]
    results.sort(key=lambda each: -each.likelihood_ratio)
    return PerturberSearch(fit, found, tuple(results))


def _best_positions(found: PerturberMap, number: int) -> list[tuple[float, float, float, float]]:
    """X, y, log10 of the mass and likelihood ratio of the best separate positions."""
    ratio = np.where(found.inside[..., None], found.likelihood_ratio, -np.inf)
    best, mass = ratio.max(2), found.log10_mass[ratio.argmax(2)]
    side = 2 * round(_SEPARATION / float(found.x[1] - found.x[0])) + 1
    peaks = (best == ndimage.maximum_filter(best, side)) & found.inside
    rows, columns = np.nonzero(peaks)
    order = np.argsort(-best[rows, columns])[:number]
    return [
        (float(found.x[c]), float(found.y[r]), float(mass[r, c]), float(best[r, c]))
        for r, c in zip(rows[order], columns[order], strict=True)
    ]
