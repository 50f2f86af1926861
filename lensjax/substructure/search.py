"""Search for one dark perturber in a fitted lens: evidence at each position, and sensitivity."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.interpolate import PchipInterpolator
from scipy.special import logsumexp

from lensjax.errors import UserError
from lensjax.modeling.arguments import positive_length
from lensjax.modeling.frame import pixel_positions
from lensjax.modeling.observation import Observation
from lensjax.modeling.result import LensModelFit
from lensjax.substructure.halos import Halo
from lensjax.substructure.nuisances import USUAL, LinearModel, Nuisances, linearize
from lensjax.substructure.scan import make_renderer, measure_responses

LOG10_MASSES = (8.0, 8.5, 9.0, 9.5, 10.0, 10.5)
_FINE_STEP = 0.1  # dex, between the masses of the results
_ARCS = 1.0  # standard deviations of the noise; pixels with more light of the source are part of the arcs


@dataclasses.dataclass(frozen=True, eq=False)
class PerturberMap:
    """Likelihood of one perturber as a function of its position and mass.

    For a perturber of mass m at a position, the logarithm of the likelihood ratio to no perturber is
    gain - information / 2, with all parameters of the lens, the light and the source re-optimized to first
    order. Noise alone gives a gain of mean 0 and variance `information`; a perturber gives a mean of
    `information`.

    Attributes:
      halo: kind of perturber.
      x: positions of the columns, arcsec, at least three in equal steps [columns].
      y: positions of the rows, arcsec, at least three in the same steps [rows].
      inside: True for positions within the used part of the image [rows, columns]. Those farther than
        `reach` from the arcs are not searched; their gain and information are 0.
      log10_mass: log10 of the masses in solar masses, at least two in equal steps [masses].
      gain: [rows, columns, masses]; 0 outside.
      information: [rows, columns, masses]; 0 outside.
      misfit: variance of the residual of the arcs relative to the noise, at least 1, by which gain and
        information have been divided.
      variance: variance of the noise in the direction of a perturber's change of the image, relative to that
        of the noise map and without the misfit; the median of all positions and masses.
    """

    halo: Halo
    x: np.ndarray
    y: np.ndarray
    inside: np.ndarray
    log10_mass: np.ndarray
    gain: np.ndarray
    information: np.ndarray
    misfit: float
    variance: float

    @property
    def likelihood_ratio(self) -> np.ndarray:
        """Logarithm of the likelihood ratio [rows, columns, masses]."""
        return self.gain - self.information / 2

    @property
    def best(self) -> tuple[float, float, float, float]:
        """X and y (arcsec), log10 of the mass and logarithm of the likelihood ratio of the best perturber."""
        ratio = np.where(self.inside[..., None], self.likelihood_ratio, -np.inf)
        row, column, mass = np.unravel_index(np.argmax(ratio), ratio.shape)
        return (
            float(self.x[column]),
            float(self.y[row]),
            float(self.log10_mass[mass]),
            float(ratio[row, column, mass]),
        )

    @property
    def log_evidence(self) -> float:
        """Logarithm of the Bayes factor of a perturber, with a flat prior on position and log10 mass."""
        inside = self.likelihood_ratio[self.inside]
        return float(logsumexp(inside) - np.log(inside.size))

    @property
    def posterior(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of x, y (arcsec) and log10_mass, given that there is a perturber."""
        ratio = np.where(self.inside[..., None], self.likelihood_ratio, -np.inf)
        weight = np.exp(ratio - ratio.max())
        weight /= weight.sum()
        y, x, mass = np.meshgrid(self.y, self.x, self.log10_mass, indexing="ij")
        result = {}
        for name, values in (("x", x), ("y", y), ("log10_mass", mass)):
            mean = float(np.sum(weight * values))
            result[name] = mean, float(np.sqrt(np.sum(weight * (values - mean) ** 2)))
        return result

    def sensitivity(self, threshold: float) -> np.ndarray:
        """Log10 of the mass whose expected logarithm of the likelihood ratio reaches a threshold.

        A perturber of this mass is found with a probability of about one half.

        Args:
          threshold: logarithm of the likelihood ratio.

        Returns:
          Log10 of solar masses [rows, columns]; infinite if the largest mass is not detectable, NaN outside.
          Masses below the smallest one are extrapolated with an information proportional to the squared mass.
        """
        reached = self.information / 2 >= threshold
        first = np.argmax(reached, axis=2)
        rows, columns = np.indices(first.shape)
        log = np.log10(np.maximum(self.information, 1e-30))
        after, before = log[rows, columns, first], log[rows, columns, np.maximum(first - 1, 0)]
        step = self.log10_mass[1] - self.log10_mass[0]
        slope = np.where(first > 0, (after - before) / step, 2.0)
        mass = self.log10_mass[first] - (after - np.log10(2 * threshold)) / np.maximum(slope, 0.1)
        mass = np.where(reached.any(2), mass, np.inf)
        return np.where(self.inside, mass, np.nan)

    def sensitive_fraction(self, log10_mass: float, threshold: float) -> float:
        """Fraction of the used area in which a mass is detectable, see `sensitivity`."""
        return float(np.mean(self.sensitivity(threshold)[self.inside] <= log10_mass))


def map_perturbers(
    observation: Observation,
    fit: LensModelFit,
    halo: Halo,
    *,
    nuisances: Nuisances = USUAL,
    log10_masses: tuple[float, ...] = LOG10_MASSES,
    step: float = 0.1,
    reach: float = 0.6,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> tuple[PerturberMap, LinearModel]:
    """Computes the likelihood of one perturber at each position.

    Args:
      observation: the observation.
      fit: its fit.
      halo: kind of perturber.
      nuisances: effects that are fitted together with the perturber.
      log10_masses: masses that are rendered, log10 of solar masses, at least two in ascending order.
      step: distance between neighboring positions, arcsec; at most half the side of the fitted image.
      reach: positions farther from the arcs are not searched, arcsec.
      progress: called with the number of finished renderings and their total number.

    Returns:
      The map, and the first-order model of the fit.

    Raises:
      UserError: if the fit failed or has no arcs that exceed the noise, its source is on a grid of pixels, or
        an argument is invalid.
    """
    if fit.verdict.name == "failed":
        raise UserError(
            f"the fit of the lens failed ({'; '.join(fit.verdict.reasons)}); there is no arc to search"
        )
    step = positive_length("step", step)
    half = min(fit.frame.rows, fit.frame.columns) * fit.frame.pixel_scale / 2
    if step > half:
        raise UserError(f"step is {step:g}; expected at most {half:g} arcsec, half the side of the fit")
    rendered = np.array(log10_masses, np.float64)
    if rendered.size < 2 or not (np.diff(rendered) > 0).all() or np.ptp(rendered) < 0.99 * _FINE_STEP:
        expected = f"at least two, in ascending order, the largest at least {_FINE_STEP} above the smallest"
        raise UserError(f"log10_masses is {log10_masses}; expected {expected}")
    linear = linearize(observation, fit, nuisances)
    renderer = make_renderer(linear, halo, fit)
    x, y, inside, near = _positions(fit, step, reach)
    if not near.any():
        raise UserError("the fit has no arcs that exceed the noise; there is nothing to search")
    rows, columns = np.nonzero(near)
    number = len(rows)
    masses = np.tile(10**rendered, number)
    perturbers = renderer.parameters(
        np.repeat(x[columns], rendered.size), np.repeat(y[rows], rendered.size), masses
    )
    finished = 0

    def count(part: int) -> None:
        nonlocal finished
        finished += part
        progress(finished, len(perturbers))

    found = measure_responses(renderer, perturbers, count)
    gain, information = ((each / found.variance).reshape(number, -1) for each in (found.gain, found.square))
    mass = np.arange(rendered[0], rendered[-1] + _FINE_STEP / 2, _FINE_STEP)
    # Deflections are about proportional to the mass, so that these ratios vary slowly.
    linear_gain = PchipInterpolator(rendered, gain / 10**rendered, axis=1)(mass)
    square = PchipInterpolator(rendered, np.log(information / 10 ** (2 * rendered)), axis=1)(mass)
    gain, information = linear_gain * 10**mass, np.exp(square) * 10 ** (2 * mass)
    best = np.unravel_index(np.argmax(gain - information / 2), gain.shape)
    improvement = max(0.0, float((gain - information / 2)[best]))
    misfit = _misfit(fit, linear, 2 * improvement * linear.correlation.scatter**2)
    gains, informations = (np.zeros((*inside.shape, mass.size)) for _ in range(2))
    gains[near], informations[near] = gain / misfit, information / misfit
    variance = float(np.median(found.variance))
    return PerturberMap(halo, x, y, inside, mass, gains, informations, misfit, variance), linear


def _positions(
    fit: LensModelFit, step: float, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Axes of a grid of positions on the frame, and True for those on used pixels and for those near arcs."""
    frame, axes = fit.frame, []
    for length, center in ((fit.frame.columns, frame.center_x), (frame.rows, frame.center_y)):
        half = int(length * frame.pixel_scale / 2 / step)
        axes.append(center + step * np.arange(-half, half + 1))
    x, y = axes
    right, up = pixel_positions(frame)
    column = np.abs(x[:, None] - right[0]).argmin(1)
    row = np.abs(y[:, None] - up[:, 0]).argmin(1)
    place = np.ix_(row, column)
    used = np.isfinite(fit.noise)
    arcs, inside = used & (fit.lensed_source > _ARCS * fit.noise), used[place]
    if not arcs.any():
        return x, y, inside, np.zeros_like(inside)
    distance = ndimage.distance_transform_edt(~arcs)
    return x, y, inside, inside & (distance[place] * frame.pixel_scale <= reach)


def _misfit(fit: LensModelFit, linear: LinearModel, improvement: float) -> float:
    """Variance of the residual of the arcs relative to the noise after the best perturber; at least 1."""
    arcs = (np.isfinite(fit.noise) & (fit.lensed_source > _ARCS * fit.noise)).ravel()
    if not arcs.any():
        return 1.0
    pixels = np.flatnonzero(arcs)
    freedom = pixels.size - np.sum(linear.basis[pixels] ** 2)
    square = np.sum(linear.residual[pixels] ** 2) - improvement
    return max(1.0, float(square / max(freedom, 1.0)) / linear.correlation.scatter**2)
