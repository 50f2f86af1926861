"""Figures of a fitted lens: data, model, residual, components of the light, source plane and mass."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lensjax import physics
from lensjax.modeling.frame import pixel_positions
from lensjax.modeling.result import LensModelFit
from lensjax.report.panels import Picture, encode_png, to_rgb
from lensjax.report.plots import RUN_COLORS

SIDE = 3.1  # inches
LINE = RUN_COLORS[4]  # light blue, visible on gray and on magma
_BRIGHTNESS = "brightness (unit of the image)"
_GRID = 161  # approximate number of points along the longer side of a computed map
_TICK_DISTANCE = 0.11  # smallest distance between two ticks, fraction of the color bar
_RESIDUAL = 5.0  # standard deviations at the ends of the color scale
_NOISE_STEPS = 3.0  # half width of the linear part of the brightness scale, standard deviations

Extent = tuple[float, float, float, float]  # left, right, bottom and top, arcsec


class LensView(NamedTuple):
    """A figure of a fitted lens.

    Attributes:
      title: title of the figure.
      caption: what it shows, as plain text.
      figure: the figure.
    """

    title: str
    caption: str
    figure: Figure


def lens_views(fitted: LensModelFit) -> Iterator[LensView]:
    """Creates the figures of a fitted lens; save each one within `plots.paper_style`.

    Args:
      fitted: the fit.

    Yields:
      Each figure with its title and caption.
    """
    yield from _image_views(fitted)
    x, y = _fine_grid(fitted)
    curves = physics.critical_curves(fitted.deflection, x, y)
    yield _source_view(fitted, physics.caustics(fitted.deflection, curves))
    data = used_pixels(fitted, fitted.image - fitted.sky)
    norm = brightness(fitted, data, data)
    figure, axes = panel(extent(fitted), data, norm, "gray", _BRIGHTNESS)
    axes.set_facecolor("white")  # unused pixels are white, because gray is a brightness in this figure
    for curve in curves:
        axes.plot(*curve.T, color=LINE, linewidth=1.2)
    yield LensView(
        "Critical curves",
        "Data minus sky. Lines: critical curves, where images merge and the magnification diverges.",
        figure,
    )
    kappa = np.asarray(physics.convergence(fitted.deflection, x, y))
    limits = LogNorm(*np.clip(np.quantile(kappa, (0.02, 0.995)), 1e-3, 1e3))
    figure, axes = panel(extent(fitted), kappa, limits, "viridis", "convergence")
    yield LensView("Convergence", "Surface mass density in units of the critical surface density.", figure)


def thumbnail(fitted: LensModelFit) -> bytes:
    """Draws data, model and residual side by side as a small picture.

    Args:
      fitted: the fit.

    Returns:
      A PNG file.
    """
    data = used_pixels(fitted, fitted.image - fitted.sky)
    norm = brightness(fitted, data, data)
    residual = used_pixels(fitted, fitted.residual) / (2 * _RESIDUAL) + 0.5
    shown, model = (np.ma.filled(norm(each), np.nan) for each in (data, fitted.model_image - fitted.sky))
    parts = [(shown, "magma"), (model, "magma"), (residual, "RdBu_r")]
    colors = [to_rgb(Picture(pixels, "", "", colormap)) / 255 for pixels, colormap in parts]
    return encode_png(Picture(np.concatenate(colors, axis=1), "", ""))


def _image_views(fitted: LensModelFit) -> Iterator[LensView]:
    """Views of the observed image and the components of the model."""
    data = used_pixels(fitted, fitted.image - fitted.sky)
    norm = brightness(fitted, data, data)
    arcs = used_pixels(fitted, fitted.image - fitted.sky - fitted.lens_light)
    arcs_norm = brightness(fitted, arcs, fitted.lensed_source)
    unused = " Gray pixels are not used." if np.isnan(data).any() else ""
    yield LensView(
        "Data", f"Image minus sky.{unused}", panel(extent(fitted), data, norm, "magma", _BRIGHTNESS)[0]
    )
    yield LensView(
        "Model",
        "Foreground light and lensed source, blurred like the image.",
        panel(extent(fitted), fitted.model_image - fitted.sky, norm, "magma", _BRIGHTNESS)[0],
    )
    limits = Normalize(-_RESIDUAL, _RESIDUAL)
    residual = panel(
        extent(fitted), used_pixels(fitted, fitted.residual), limits, "RdBu_r", "(data - model) / noise"
    )[0]
    yield LensView(
        "Standardized residual",
        "Data minus model in standard deviations, which include the error of the foreground light.",
        residual,
    )
    yield LensView(
        "Data minus foreground light",
        "The arcs, on the scale of the lensed source.",
        panel(extent(fitted), arcs, arcs_norm, "magma", _BRIGHTNESS)[0],
    )
    yield LensView(
        "Lensed source",
        "Model of the arcs alone, blurred like the image.",
        panel(extent(fitted), fitted.lensed_source, arcs_norm, "magma", _BRIGHTNESS)[0],
    )


def _source_view(fitted: LensModelFit, caustics: list[np.ndarray]) -> LensView:
    """The light of the source without lensing, with caustics."""
    center = np.array([fitted.parameters[f"source.0.center_{axis}"] for axis in "xy"])
    reach = max((np.abs(curve - center).max() for curve in caustics), default=0.0)
    half = float(np.clip(1.1 * reach, 0.5 * fitted.einstein_radius, 1.5 * fitted.einstein_radius))
    offsets = np.linspace(-half, half, _GRID)
    x, y = np.meshgrid(center[0] + offsets, center[1] + offsets)
    light = fitted.source(x, y)
    limits = Normalize(min(float(light.min()), 0.0), max(float(light.max()), 1e-30))
    extent = (x.min(), x.max(), y.min(), y.max())
    figure, axes = panel(extent, light, limits, "magma", _BRIGHTNESS)
    for curve in caustics:
        axes.plot(*curve.T, color=LINE, linewidth=1.2)
    axes.set(xlabel="source x (arcsec)", ylabel="source y (arcsec)")
    return LensView(
        "Source",
        "Reconstruction in the source plane, neither lensed nor blurred. Lines: caustics. Negative values "
        "are noise, or structure that the model cannot describe.",
        figure,
    )


def panel(
    extent: Extent, pixels: np.ndarray, norm: Normalize, colormap: str, label: str
) -> tuple[Figure, Axes]:
    """Draws an image with coordinates and a color bar, at the same position in all figures.

    Args:
      extent: its extent, arcsec.
      pixels: its values [rows, columns].
      norm, colormap: scale and colors.
      label: label of the color bar.
    """
    width, height = SIDE, 0.82 * SIDE
    figure = Figure(figsize=(width, height))
    side, left, bottom = 0.61 * width, 0.17 * width, 0.14 * width
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height), facecolor="0.5")
    picture = axes.imshow(
        pixels, origin="lower", extent=extent, norm=norm, cmap=colormap, interpolation="nearest"
    )
    axes.set(xlim=extent[:2], ylim=extent[2:], xlabel="x (arcsec)", ylabel="y (arcsec)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.spines[:].set_visible(True)
    bar = figure.colorbar(picture, cax=axes.inset_axes((1.03, 0, 0.045, 1)), label=label)
    if type(norm) is not Normalize:
        ticks = _ticks(norm)
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks], minor=False)
        bar.minorticks_off()
    return figure, axes


def extent(fitted: LensModelFit) -> Extent:
    """Left, right, bottom and top of the fitted pixels, arcsec."""
    frame = fitted.frame
    half_x, half_y = (frame.pixel_scale * number / 2 for number in (frame.columns, frame.rows))
    x, y = frame.center_x, frame.center_y
    return x - half_x, x + half_x, y - half_y, y + half_y


def _ticks(norm: Normalize) -> list[float]:
    """Round values that are not too close to each other on the color bar."""
    low, high = float(norm.vmin or 0), float(norm.vmax or 1)
    decades = range(math.floor(math.log10(high)) - 4, math.ceil(math.log10(high)) + 1)
    candidates = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    chosen: list[float] = []
    for value in [0.0, *sorted(candidates, reverse=True)]:
        if low <= value <= high:
            position = float(norm(value))
            if all(abs(position - float(norm(other))) > _TICK_DISTANCE for other in chosen):
                chosen.append(value)
    return sorted(chosen)


def used_pixels(fitted: LensModelFit, pixels: np.ndarray) -> np.ndarray:
    """The pixels, with NaN in those that the fit did not use."""
    return np.where(np.isfinite(fitted.noise), pixels, np.nan)


def brightness(fitted: LensModelFit, dark: np.ndarray, bright: np.ndarray) -> Normalize:
    """Scale from the dark pixels of one image to the bright ones of another, linear near 0."""
    noise = float(np.median(fitted.noise[np.isfinite(fitted.noise)]))
    low, high = float(np.nanquantile(dark, 0.01)), float(np.nanquantile(bright, 0.999))
    return AsinhNorm(_NOISE_STEPS * noise, vmin=low, vmax=max(high, low + 5 * noise))


def _fine_grid(fitted: LensModelFit) -> tuple[Array, Array]:
    """Positions on the frame, several per pixel if it has few pixels, arcsec."""
    frame = fitted.frame
    subpixels = max(1, round(_GRID / max(frame.rows, frame.columns)))
    x, y = pixel_positions(frame, 0, subpixels)
    return jnp.asarray(x), jnp.asarray(y)
