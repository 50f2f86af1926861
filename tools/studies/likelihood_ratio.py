"""Tells images without substructure, with point masses and with a vortex apart by physics alone.

  python tools/studies/likelihood_ratio.py

A smooth lens is fitted to each image; then the evidences of the three are compared, with the priors
that the images are simulated from. Nothing is trained. docs/physics_only.md describes the method.

  --images N       simulated common_test images of each class (1,000 if not given)
  --seed N         seed of their simulation (0 if not given)
  --real FOLDER    real images too: no/, sphere/ and vort/ of .npy files; what the
                   environment variable LENSJAX_REAL_SAMPLES names if not given
  --figure FILE    draws an image of each class: residual with the best line, and the
                   map of masses with the true ones as circles
  --output FILE    writes labels and log evidences of all simulated images (.npz)

Intervals are the middle 95 % of 1,000 bootstrap samples; AUC is one-vs-rest.
Exit codes: 0 done; 2 something in the command is wrong.
"""

import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# A few small matrix decompositions an image: the library's threads would only wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np
from absl import flags
from matplotlib.figure import Figure
from scipy.special import softmax

from lensjax import fitting, physics, simulation
from lensjax.cli import runner
from lensjax.data.counts import recover_counts
from lensjax.data.images import CLASSES, DISPLAY_NAMES
from lensjax.errors import UserError
from lensjax.evaluation.scores import resample_weights, weighted_auc
from lensjax.runtime.progress import log, progress_bar
from lensjax.simulation.presets import VortexPrior

BATCH = 16
KIND = "common_test"


def main(arguments: Sequence[str]) -> None:
    """Prints the tables.

    Raises:
      UserError: a flag is wrong.
    """
    values = flags.FlagValues()
    flags.DEFINE_integer("images", 1_000, "", lower_bound=2, flag_values=values)
    flags.DEFINE_integer("seed", 0, "", lower_bound=0, flag_values=values)
    flags.DEFINE_string("real", os.environ.get("LENSJAX_REAL_SAMPLES"), "", flag_values=values)
    flags.DEFINE_string("figure", None, "", flag_values=values)
    flags.DEFINE_string("output", None, "", flag_values=values)
    runner.read_flags(values, arguments)
    for name in (values.figure, values.output):
        if name and Path(name).exists():
            raise UserError(f"{name} is there already; move it away or name another file")
    simulated(values.images, values.seed, values.output, values.figure)
    if values.real:
        real(Path(values.real).expanduser())


def prior(preset: simulation.Preset) -> fitting.SubstructurePrior:
    """The substructure that a preset draws, as squared Einstein radii."""
    line, masses = preset.vortex, preset.subhalos
    if not isinstance(line, VortexPrior):
        raise UserError("only lines whose total mass and length are uniform can be compared")

    def squared(limits: tuple[float, float]) -> tuple[float, float]:
        low, high = (
            float(
                physics.einstein_radius(
                    mass, preset.z_lens, preset.z_source, convention=preset.convention
                )
            )
            ** 2
            for mass in limits
        )
        return low, high

    return fitting.SubstructurePrior(
        masses=fitting.PointMasses(
            masses.number, squared(masses.mass), masses.exponent, masses.distance
        ),
        line=fitting.MassLine(
            line.number, squared(line.total_mass), line.length, line.center_sigma
        ),
    )


def simulated(number: int, seed: int, output: str | None, figure: str | None) -> None:
    """Compares evidences of simulated test images, and says how often they are right."""
    found = simulation.simulate_split(
        KIND, seed=seed, split="test", num_images=len(CLASSES) * number
    )
    images = (found.pixels / found.scale[:, None, None]).astype(np.float32)[..., None]
    fit, evidence, seconds = compared(images, found.scale)
    ratios, labels = np.asarray(evidence.log_ratios, np.float64), np.asarray(found.labels)
    if output:
        np.savez(output, labels=labels, log_ratios=ratios)
    log.info("%d simulated test images of %s, nothing trained", len(labels), KIND)
    log.info("  %-10s %s", "", "  ".join(f"{name:>22}" for name in (*CLASSES, "mean")))
    draws = aucs(labels, ratios, resample_weights(labels).astype(np.float64))
    areas = aucs(labels, ratios, np.ones((1, len(labels))))[0]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    cells = (f"{a:.4f} ({x:.4f}-{y:.4f})" for a, x, y in zip(areas, low, high, strict=True))
    log.info("  %-10s %s", "AUC", "  ".join(f"{cell:>22}" for cell in cells))
    right = ratios.argmax(1) == labels
    log.info("  accuracy %.4f, %d of %d wrong", right.mean(), (~right).sum(), len(right))
    for label, name in enumerate(CLASSES):
        given = np.bincount(ratios[labels == label].argmax(1), minlength=len(CLASSES))
        log.info("  %-8s taken for %s", name, dict(zip(CLASSES, given.tolist(), strict=True)))
    log.info("log evidence of the true class over the larger of the others, percentiles")
    log.info("  %-8s %9s %9s %9s %9s", "", "0", "1", "10", "50")
    for label, name in enumerate(CLASSES):
        rows = ratios[labels == label]
        lead = rows[:, label] - np.delete(rows, label, axis=1).max(1)
        log.info("  %-8s %9.1f %9.1f %9.1f %9.1f", name, *np.percentile(lead, [0, 1, 10, 50]))
    probabilities = softmax(ratios, axis=1)
    log.info(
        "calibration: mean probability of the class taken %.4f, share right %.4f, log loss %.4f",
        probabilities.max(1).mean(),
        right.mean(),
        -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-300)).mean(),
    )
    log.info(
        "%.2f images/s, the fit included, on %d %s core(s), load %.1f",
        *(len(labels) / seconds, os.cpu_count() or 1, platform.machine(), os.getloadavg()[0]),
    )
    if figure:
        draw(figure, images, found, fit, evidence)


def real(folder: Path) -> None:
    """Log evidences of real images."""
    files = [file for name in CLASSES for file in sorted((folder / name).glob("*.npy"))]
    if not files:
        raise UserError(f"{folder} has no .npy files in no/, sphere/ or vort/; name another --real")
    images = np.stack([np.load(file, allow_pickle=False).squeeze() for file in files])
    recovered = [recover_counts(image) for image in images]
    scale = np.array([np.nan if found is None else found[1] for found in recovered])
    _, evidence, _ = compared(images.astype(np.float32)[..., None], scale)
    labels = np.array([CLASSES.index(file.parent.name) for file in files])
    right = evidence.log_ratios.argmax(1) == labels
    log.info("%d real images, %d right", len(files), right.sum())
    log.info("  %-8s %-30s chi-square a pixel: smooth, with line", "truth", "log evidence ratios")
    for row, label in enumerate(labels):
        ratios = " ".join(f"{value:9.1f}" for value in evidence.log_ratios[row])
        pixels = evidence.pixels[row]
        chi_squares = evidence.smooth_chi_square[row], evidence.line_chi_square[row]
        log.info("  %-8s %s %8.3f %8.3f", CLASSES[label], ratios, *np.divide(chi_squares, pixels))


def compared(
    images: np.ndarray, scale: np.ndarray
) -> tuple[fitting.LensFit, fitting.Evidence, float]:
    """Fits, evidences, and the seconds that both took without compilation."""
    believed = prior(simulation.preset(KIND))
    noise = fitting.photon_noise(scale.astype(np.float32))
    first = slice(0, min(BATCH, len(images)))
    fitting.fit_in_batches(images[first], noise=jax.tree.map(lambda leaf: leaf[first], noise))
    parts: list[fitting.Evidence] = []
    with progress_bar(len(images), "fit") as bar:
        start = time.perf_counter()
        fit = fitting.fit_in_batches(images, noise=noise, report=bar.update)
    seconds = time.perf_counter() - start
    with progress_bar(len(images), "compare") as bar:
        for row in range(0, len(images), BATCH):
            # The last batch is filled up, so that no second shape is compiled.
            rows = np.minimum(np.arange(row, row + BATCH), len(images) - 1)
            some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], fit)
            if not parts:
                jax.block_until_ready(fitting.class_evidence(images[rows], some, believed))
            start = time.perf_counter()
            part = fitting.class_evidence(images[rows], some, believed)
            number = min(BATCH, len(images) - row)
            parts.append(jax.tree.map(lambda leaf, n=number: np.asarray(leaf)[:n], part))
            seconds += time.perf_counter() - start
            bar.update(number)
    return fit, jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), seconds


def aucs(labels: np.ndarray, ratios: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One-vs-rest AUC of each class and their mean, a row for each row of weights.

    Images are ranked by log odds, as probabilities of 0 and 1 would tie.
    """
    found = []
    for label in range(len(CLASSES)):
        odds = ratios[:, label] - np.logaddexp(*np.delete(ratios, label, axis=1).T)
        found.append(weighted_auc(labels == label, odds, weights))
    return np.stack([*found, np.mean(found, axis=0)], axis=1)


def draw(
    file: str,
    images: np.ndarray,
    found: simulation.SimulatedImages,
    fit: fitting.LensFit,
    evidence: fitting.Evidence,
) -> None:
    """The first image of each class: itself, the residual with the best line, the map of masses."""
    figure = Figure(figsize=(8.4, 8.0), layout="constrained")
    axes = figure.subplots(len(CLASSES), 3)
    side = fitting.COMMON_TEST.pixel_scale * images.shape[1] / 2
    extent = (-side, side, -side, side)
    nodes = fitting.mass_nodes(prior(simulation.preset(KIND)))
    for label, row in enumerate(axes):
        index = int(np.flatnonzero(found.labels == label)[0])
        row[0].imshow(images[index, ..., 0], origin="lower", extent=extent, cmap="magma")
        row[0].set_ylabel(f"{DISPLAY_NAMES[label]}\narcsec")
        residual = fit.residual[index, ..., 0]
        row[1].imshow(residual, origin="lower", extent=extent, cmap="RdBu_r", vmin=-5, vmax=5)
        _, length, angle, x, y = evidence.line[index]
        half = length / 2 * np.array([np.cos(angle), np.sin(angle)])
        row[1].plot([x - half[0], x + half[0]], [y - half[1], y + half[1]], "k-", lw=1.2)
        row[1].set_title(
            "log evidence: masses {:.0f}, line {:.0f}".format(*evidence.log_ratios[index, 1:]),
            fontsize=8,
        )
        shown = row[2].scatter(
            *nodes.T, c=1e3 * evidence.masses[index], s=13, marker="s", vmin=-1, vmax=4
        )
        theta_E, x, y = found.scenes.masses[index].T
        row[2].scatter(x, y, s=9e3 * theta_E**2, facecolors="none", edgecolors="white", lw=0.8)
        figure.colorbar(shown, ax=row[2], shrink=0.8)
        row[2].set_aspect("equal")
        for axis in row:
            axis.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
    axes[0, 0].set_title("image", fontsize=8)
    axes[0, 2].set_title("masses, 0.001 arcsec$^2$", fontsize=8)
    figure.savefig(file, dpi=100)


def run() -> int:
    """Runs the command and gives its exit code."""
    return runner.run(main, __doc__, name="likelihood_ratio")


if __name__ == "__main__":
    sys.exit(run())
