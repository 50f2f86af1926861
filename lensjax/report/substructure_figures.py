"""Figures of a search for a dark perturber: likelihood and sensitivity at each position."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from lensjax.modeling.frame import pixel_positions
from lensjax.report.lens_figures import LINE, LensView, brightness, extent, panel, used_pixels
from lensjax.report.panels import Picture, encode_png, to_rgb
from lensjax.substructure.perturber import CANDIDATE, PerturberSearch

_ARCS = 2.0  # standard deviations of the noise; contour of the arcs


def substructure_views(search: PerturberSearch) -> Iterator[LensView]:
    """Creates the figures of a search; save each one within `plots.paper_style`.

    Args:
      search: the result.

    Yields:
      Each figure with its title and caption.
    """
    found, fit, values = search.map, search.fit, search.values
    half = float(found.x[1] - found.x[0]) / 2
    sides = (found.x[0] - half, found.x[-1] + half, found.y[0] - half, found.y[-1] + half)
    ratio = np.where(found.inside, found.likelihood_ratio.max(2), np.nan)
    limits = Normalize(0, max(float(np.nanmax(ratio)), CANDIDATE))
    figure, axes = panel(sides, ratio, limits, "viridis", "log likelihood ratio")
    _draw_arcs(axes, search)
    axes.plot(values["x"], values["y"], marker="+", color="white", markersize=9)
    yield LensView(
        "Evidence for a perturber",
        "Logarithm of the likelihood ratio of a perturber, with the best mass at each position, to no "
        "perturber, with the lens, the light and the source re-optimized to first order. Lines: the arcs. "
        f"Cross: the best position. The largest value exceeds {CANDIDATE:g} in 10 % of simulated lenses "
        "without a perturber.",
        figure,
    )
    smallest = found.sensitivity(CANDIDATE)
    limits = Normalize(found.log10_mass[0], found.log10_mass[-1])
    figure, axes = panel(
        sides, np.where(np.isfinite(smallest), smallest, np.nan), limits, "magma_r", "log10 mass"
    )
    _draw_arcs(axes, search)
    yield LensView(
        "Sensitivity",
        "Smallest mass, in solar masses, that would be found with a probability of about one half at each "
        "position. Gray: none up to the largest mass of the scale. Lines: the arcs.",
        figure,
    )
    arcs = used_pixels(fit, fit.image - fit.sky - fit.lens_light)
    figure, axes = panel(
        extent(fit), arcs, brightness(fit, arcs, fit.lensed_source), "magma", "brightness (unit of the image)"
    )
    axes.plot(values["x"], values["y"], marker="+", color=LINE, markersize=9)
    yield LensView("Arcs", "Data minus foreground light. Cross: the best position.", figure)
    figure, axes = panel(
        extent(fit), used_pixels(fit, fit.residual), Normalize(-5, 5), "RdBu_r", "(data - model) / noise"
    )
    axes.plot(values["x"], values["y"], marker="+", color="black", markersize=9)
    yield LensView(
        "Standardized residual", "Data minus model without a perturber, in standard deviations.", figure
    )


def substructure_thumbnail(search: PerturberSearch) -> bytes:
    """Draws the arcs, the map of the likelihood ratio and the sensitivity side by side as a small picture.

    Args:
      search: the result.

    Returns:
      A PNG file.
    """
    found, fit = search.map, search.fit
    right, up = pixel_positions(fit.frame)
    columns = np.abs(found.x[:, None] - right[0]).argmin(0)
    rows = np.abs(found.y[:, None] - up[:, 0]).argmin(0)
    place = np.ix_(rows, columns)
    arcs = used_pixels(fit, fit.image - fit.sky - fit.lens_light)
    shown = np.ma.filled(brightness(fit, arcs, fit.lensed_source)(arcs), np.nan)
    ratio = np.where(found.inside, found.likelihood_ratio.max(2), np.nan)
    ratio /= max(float(np.nanmax(ratio)), CANDIDATE)
    low, high = found.log10_mass[0], found.log10_mass[-1]
    smallest = found.sensitivity(CANDIDATE)
    smallest = np.where(np.isfinite(smallest), (smallest - low) / (high - low), np.nan)
    parts = [(shown, "magma"), (ratio[place], "viridis"), (smallest[place], "magma_r")]
    colors = [to_rgb(Picture(pixels, "", "", colormap)) / 255 for pixels, colormap in parts]
    return encode_png(Picture(np.concatenate(colors, axis=1), "", ""))


def _draw_arcs(axes: Axes, search: PerturberSearch) -> None:
    """Draws contours of the arcs."""
    fit = search.fit
    significance = np.where(np.isfinite(fit.noise), fit.lensed_source / fit.noise, 0)
    if significance.max() > _ARCS:
        x, y = pixel_positions(fit.frame)
        axes.contour(x, y, significance, [_ARCS], colors=[LINE], linewidths=0.8)
