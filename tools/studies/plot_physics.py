"""Draws the figures of docs/physics.md: deflection, critical curves, time delays, source reconstruction."""

import functools
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from lensjax import physics
from lensjax.cli import runner
from lensjax.cli.flags import Flag, parse_flags, switch, usage
from lensjax.errors import UserError
from lensjax.runtime.progress import log

# Okabe and Ito's color-blind-safe palette.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
THETA_E, GAMMA1, GAMMA2 = 1.2, 0.12, -0.06
BETA = (0.09, 0.05)  # position of the source, arcsec
Z_LENS, Z_SOURCE = 0.5, 1.5
HALF = 2.2  # half the side of the image plane in the figures, arcsec


def deflection(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Deflection of an isothermal sphere with external shear."""
    sphere = physics.sis_deflection(x, y, THETA_E)
    shear = physics.external_shear_deflection(x, y, GAMMA1, GAMMA2)
    return sphere[0] + shear[0], sphere[1] + shear[1]


def potential(x: jax.Array, y: jax.Array) -> jax.Array:
    """Potential of the same lens."""
    sphere = physics.sis_potential(x, y, THETA_E)
    return sphere + physics.external_shear_potential(x, y, GAMMA1, GAMMA2)


def light(x: jax.Array, y: jax.Array) -> jax.Array:
    """A source with two components."""
    galaxy: dict[str, float] = {"R_sersic": 0.25, "n_sersic": 1.0, "e1": 0.15, "e2": 0.1}
    clump: dict[str, float] = {"R_sersic": 0.08, "n_sersic": 1.0}
    return physics.sersic(x, y, 1.0, **galaxy, center_x=BETA[0], center_y=BETA[1]) + physics.sersic(
        x, y, 1.5, **clump, center_x=-0.25, center_y=-0.2
    )


@functools.cache
def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions and magnifications of the images of the source."""
    found = jax.jit(lambda: physics.image_positions(deflection, *BETA))()
    mask = np.asarray(found.mask)
    x, y, magnification = (np.asarray(part)[mask] for part in (found.x, found.y, found.magnification))
    return x, y, magnification


def deflection_figure() -> Figure:
    """Deflection as arrows, on a map of its magnitude."""
    figure = Figure(figsize=(5.6, 4.7), layout="constrained")
    axes = figure.subplots()
    x, y = physics.pixel_grid(300, 2 * HALF / 300)
    magnitude = np.hypot(*deflection(x, y))
    picture = axes.imshow(magnitude, origin="lower", extent=_extent(), cmap="cividis")
    x, y = physics.pixel_grid(16, 2 * HALF / 16)
    to_scale: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 6}
    axes.quiver(x, y, *deflection(x, y), color="white", width=0.004, **to_scale)
    for curve in physics.critical_curves(deflection, *physics.pixel_grid(120, 2 * HALF / 120)):
        axes.plot(*curve.T, color=RED, linewidth=1.5)
    figure.colorbar(picture, label="magnitude of the deflection (arcsec)")
    _label(axes, "Deflection (arrows at 1/6 scale) and critical curve")
    return figure


def caustics_figure() -> Figure:
    """Critical curves with the images of a source, and caustics with the source."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.18, 1))
    grid = physics.pixel_grid(240, 2 * HALF / 240)
    size = jnp.abs(physics.magnification(deflection, *grid))
    picture = left.imshow(size, origin="lower", extent=_extent(), cmap="Greys", norm=LogNorm(0.1, 100))
    curves = physics.critical_curves(deflection, *grid)
    for curve in curves:
        left.plot(*curve.T, color=RED, linewidth=1.5, label="critical curve")
    x, y, magnification = images()
    for sign, color, name in ((1, BLUE, "minimum"), (-1, ORANGE, "saddle point")):
        of_sign = np.sign(magnification) == sign
        style: dict[str, Any] = {"s": 12 * abs(magnification[of_sign]), "edgecolor": "white"}
        left.scatter(x[of_sign], y[of_sign], color=color, label=name, zorder=3, **style)
    for image_x, image_y, value in zip(x, y, magnification, strict=True):
        place: dict[str, Any] = {"xytext": (8, 8), "textcoords": "offset points", "fontsize": 9}
        box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        left.annotate(f"{value:+.1f}", (image_x, image_y), bbox=box, **place)
    left.legend(loc="lower left", fontsize=8, markerscale=0.6)
    figure.colorbar(picture, ax=left, label="absolute magnification")
    _label(left, "Image plane")
    for caustic in physics.caustics(deflection, curves):
        right.plot(*caustic.T, color=RED, linewidth=1.5, label="caustic")
    angle = jnp.linspace(0, 2 * jnp.pi, 400)
    cut = physics.ray_shooting(deflection, 1e-3 * jnp.cos(angle), 1e-3 * jnp.sin(angle))
    right.plot(*cut, color="0.5", linestyle="--", linewidth=1.2, label="cut")
    right.scatter(*BETA, marker="*", s=90, color=GREEN, zorder=3, label="source")
    gray: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": "0.35"}
    right.text(-1.12, 1.12, "1 image", **gray)
    right.text(-0.62, 0.62, "2 images", **gray)
    line = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.8}
    right.annotate("4 images", (0.03, -0.08), xytext=(0.5, -0.55), arrowprops=line, **gray)
    right.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5))
    right.legend(loc="lower left", fontsize=8)
    _label(right, "Source plane", "beta")
    return figure


def time_delay_figure() -> Figure:
    """Arrival time over the image plane, with contours through the saddle points."""
    figure = Figure(figsize=(5.6, 4.7), layout="constrained")
    axes = figure.subplots()
    x, y = physics.pixel_grid(400, 2 * HALF / 400)
    images_x, images_y, magnification = images()

    def delay(x: jax.Array, y: jax.Array) -> np.ndarray:
        return np.asarray(physics.time_delay(potential, x, y, *BETA, Z_LENS, Z_SOURCE))

    at_images = delay(jnp.asarray(images_x), jnp.asarray(images_y))
    first = at_images.min()
    surface = delay(x, y) - first
    top = 90.0
    picture = axes.imshow(surface, origin="lower", extent=_extent(), cmap="cividis", vmin=0, vmax=top)
    axes.contour(x, y, surface, np.arange(0, top, 10), colors="white", linewidths=0.4)
    saddles = np.sort(at_images[magnification < 0] - first)
    axes.contour(x, y, surface, saddles, colors=ORANGE, linewidths=1.3)
    for image_x, image_y, value, sign in zip(
        images_x, images_y, at_images - first, np.sign(magnification), strict=True
    ):
        color = BLUE if sign > 0 else ORANGE
        axes.scatter(image_x, image_y, color=color, edgecolor="white", s=50, zorder=3)
        place: dict[str, Any] = {"xytext": (9, 7), "textcoords": "offset points", "fontsize": 9}
        box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
        axes.annotate(f"{value:.1f} d", (image_x, image_y), bbox=box, **place)
    figure.colorbar(picture, label="arrival after the first image (days)", extend="max")
    _label(axes, f"Arrival time, lens at z = {Z_LENS}, source at z = {Z_SOURCE}")
    return figure


def source_figure() -> Figure:
    """An image, two reconstructions of its source, and the residuals after lensing them again."""
    figure = Figure(figsize=(10.4, 6.2), layout="constrained")
    axes = figure.subplots(2, 3)
    scale, size, source = 2 * HALF / 88, 88, {"source_size": 40, "source_scale": 0.04}
    x, y = physics.pixel_grid(size, scale)
    image = physics.lensed_image(light, deflection, x, y)
    truth = light(*physics.pixel_grid(40, 0.04))
    brightest = float(truth.max())
    style: dict[str, Any] = {"origin": "lower", "cmap": "inferno", "vmin": 0, "vmax": brightest}
    axes[0, 0].imshow(image, extent=_extent(), **style)
    _label(axes[0, 0], "Image")
    picture = axes[1, 0].imshow(truth, extent=_extent(0.8), **style)
    _label(axes[1, 0], "True source", "beta")
    for column, (method, name) in enumerate(
        (("fixed_point", "fixed point"), ("cloud_in_cell", "cloud-in-cell"))
    ):
        found = physics.source_image(image, deflection, scale, method=method, **source)  # type: ignore[arg-type]
        axes[1, 1 + column].imshow(found, extent=_extent(0.8), **style)
        _label(axes[1, 1 + column], f"Source by {name}", "beta")
        again = physics.lensed_image(found, deflection, x, y, source_scale=0.04)
        percent = 100 * (image - again) / brightest
        residual = axes[0, 1 + column].imshow(
            percent, origin="lower", extent=_extent(), cmap="RdBu_r", vmin=-10, vmax=10
        )
        _label(axes[0, 1 + column], f"Residual after relensing ({name})")
    figure.colorbar(residual, ax=list(axes[0]), label="residual (% of the source's peak)", extend="both")
    figure.colorbar(picture, ax=list(axes[1]), label="surface brightness of image and sources")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "physics_deflection.png": deflection_figure,
    "physics_caustics.png": caustics_figure,
    "physics_time_delay.png": time_delay_figure,
    "physics_source.png": source_figure,
}


FLAGS = {
    "output": Flag("FOLDER", "Folder of the figures; created if it does not exist."),
    "overwrite": switch("Replace existing figures."),
}
USAGE = usage(
    "Draws the figures of docs/physics.md: deflection, critical curves, time delays, source reconstruction.",
    ["python tools/studies/plot_physics.py --output FOLDER"],
    FLAGS,
    f"Writes {', '.join(FIGURES)}.",
)


def main(arguments: Sequence[str]) -> None:
    """Draws the figures into the folder given by the command-line arguments.

    Raises:
      UserError: if the command is invalid or the folder cannot be written.
    """
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments, required=("output",)))
    folder = Path(values.output).expanduser()
    existing = [str(folder / name) for name in FIGURES if (folder / name).exists()]
    if existing and not values.overwrite:
        raise UserError(f"already exists: {', '.join(existing)}; choose another --output, or add --overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, draw in FIGURES.items():
            draw().savefig(folder / name, dpi=110)
            log.info("wrote %s", folder / name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}; choose another folder") from error


def _extent(half: float = HALF) -> tuple[float, float, float, float]:
    return (-half, half, -half, half)


def _label(axes: Axes, title: str, angle: str = "theta") -> None:
    axes.set(title=title, xlabel=rf"$\{angle}_x$ (arcsec)", ylabel=rf"$\{angle}_y$ (arcsec)", aspect="equal")
    axes.title.set_fontsize(10)


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="plot_physics"))
