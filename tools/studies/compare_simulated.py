"""Compares summary statistics of simulated and published images."""

import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lensjax import simulation
from lensjax.cli import runner
from lensjax.cli.flags import Flag, integer, parse_flags, usage
from lensjax.data.counts import recover_counts
from lensjax.data.npy import parse_image
from lensjax.errors import UserError
from lensjax.runtime.progress import log, progress_bar

TITLES = {
    "largest": "largest count N",
    "background_mean": "background above the minimum, counts",
    "background_variance": "background variance, counts$^2$",
    "mean": "mean pixel / largest pixel",
    "ring_radius": "mean radius of the light, arcsec",
    "elongation": "width of the light / height",
    "noise_slope": "slope of the variance over brightness",
    "correlation": "correlation of adjacent pixels",
}
CORNER = 20  # side of the squares in the corners in which the background is measured, pixels


def statistics(counts: Float[np.ndarray, "height width"], pixel_scale: float = 0.05) -> dict[str, float]:
    """Summary statistics of an image of counts above its minimum.

    Args:
      counts: integer counts with minimum 0.
      pixel_scale: side of a pixel, arcsec.

    Returns:
      The statistics in `TITLES`, by name.
    """
    image = counts.astype(np.float64)
    size = len(image)
    axis = (np.arange(size) - (size - 1) / 2) * pixel_scale
    x, y = np.meshgrid(axis, axis)
    ends = (slice(0, CORNER), slice(-CORNER, None))
    corners = [image[rows, columns] for rows in ends for columns in ends]
    background = np.concatenate([corner.ravel() for corner in corners])
    light = np.clip(image - 0.05 * np.max(image), 0, None)
    light /= light.sum()
    center_x, center_y = (light * x).sum(), (light * y).sum()
    width = np.sqrt((light * (x - center_x) ** 2).sum())
    height = np.sqrt((light * (y - center_y) ** 2).sum())
    # Slow variations cancel in the second difference; its variance is that of a pixel.
    parts = image[:-1, :-1], image[:-1, 1:], image[1:, :-1], image[1:, 1:]
    square = ((parts[0] - parts[1] - parts[2] + parts[3]) / 2).ravel() ** 2
    local = np.mean(parts, axis=0).ravel()
    faint = local < 0.5 * np.max(image)
    pairs = [
        (one - background.mean(), other - background.mean())
        for corner in corners
        for one, other in ((corner[1:], corner[:-1]), (corner[:, 1:], corner[:, :-1]))
    ]
    products = np.concatenate([(one * other).ravel() for one, other in pairs])
    return {
        "largest": np.max(image),
        "background_mean": background.mean(),
        "background_variance": background.var(),
        "mean": image.mean() / np.max(image),
        "ring_radius": (light * np.hypot(x - center_x, y - center_y)).sum(),
        "elongation": width / height,
        "noise_slope": np.polyfit(local[faint], square[faint], 1)[0],
        "correlation": products.mean() / background.var(),
    }


def simulated_statistics(preset: str, number: int, seed: int = 3) -> dict[str, np.ndarray]:
    """Statistics of simulated images of all classes, by name."""
    with progress_bar(number, "simulating") as bar:
        images = simulation.simulate_split(
            preset, seed=seed, split="test", num_images=number, report=bar.update
        )
    scale = simulation.preset(preset).instrument.pixel_scale
    return _columns([statistics(pixels, scale) for pixels in images.pixels])


def published_statistics(folder: Path, preset: str = "common_test") -> dict[str, np.ndarray]:
    """Statistics of the images in a folder, by name.

    Raises:
      UserError: if the folder has no images, or the pixels of an image are not integer counts.
    """
    instrument = simulation.preset(preset).instrument
    rows = []
    for file in sorted(folder.rglob("*.npy")):
        found = recover_counts(parse_image(file.read_bytes(), instrument.image_size))
        if found is None:
            raise UserError(f"{file}: pixels are not integer counts; remove the file")
        rows.append(statistics(found[0], instrument.pixel_scale))
    if not rows:
        raise UserError(f"{folder}: contains no .npy files; choose another --published")
    return _columns(rows)


def plot(file: Path, simulated: dict[str, np.ndarray], published: dict[str, np.ndarray] | None) -> None:
    """Plots a histogram of each statistic, with a mark for each published image."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(11, 5), layout="constrained")
    legend = f"; marks: {len(published['mean'])} published images" if published is not None else ""
    figure.suptitle(f"{len(simulated['mean']):,} simulated images{legend}", fontsize=10)
    for axis, (name, title) in zip(figure.subplots(2, 4).flat, TITLES.items(), strict=True):
        values = simulated[name]
        low, high = np.percentile(values, [0.1, 99.9])
        axis.hist(values, np.linspace(low, high, 40), color="#0072B2", alpha=0.6)
        if published is not None:
            top = axis.get_ylim()[1]
            marks = np.full(len(published[name]), 0.05 * top)
            axis.plot(published[name], marks, "|", color="#D55E00", markersize=14, markeredgewidth=1.6)
        axis.set_xlabel(title, fontsize=8)
        axis.set_yticks([])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=110)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: the figure cannot be written: {error}") from error


FLAGS = {
    "published": Flag(
        "FOLDER", "Folder of published images, .npy files at any depth; only simulated images if not given."
    ),
    "preset": Flag("NAME", "Simulation preset; common_test if not given.", default="common_test"),
    "number": integer("Number of simulated images; 1,000 if not given.", 1_000, 3),
    "figure": Flag("FILE", "Plot the distributions, with a mark for each published image."),
}
USAGE = usage(
    "Compares summary statistics of simulated and published images.",
    ["python tools/studies/compare_simulated.py --published FOLDER --figure FILE"],
    FLAGS,
    "Prints for each statistic the percentiles 0.1 and 99.9 of the simulated images, the range of the "
    "published images, and how many published images are between the smallest and largest value of the "
    "simulated ones.",
)


def main(arguments: Sequence[str]) -> None:
    """Prints the comparison, and plots it if requested.

    Raises:
      UserError: if the command or an image is invalid.
    """
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    published = None
    if values.published:
        published = published_statistics(Path(values.published).expanduser(), values.preset)
    simulated = simulated_statistics(values.preset, values.number)
    log.info("%-20s %22s %22s  within", "", "simulated, 0.1-99.9 %", "published")
    for name, array in simulated.items():
        low, high = np.percentile(array, [0.1, 99.9])
        line = f"{name:<20} {low:>10.4g} .. {high:<8.4g}"
        if published is not None:
            found = published[name]
            inside = int(((found >= array.min()) & (found <= array.max())).sum())
            line += f" {found.min():>10.4g} .. {found.max():<8.4g}  {inside} of {len(found)}"
        log.info("%s", line)
    if values.figure:
        plot(Path(values.figure).expanduser(), simulated, published)


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="compare_simulated"))
