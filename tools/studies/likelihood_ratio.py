"""Classifies images as smooth, with point masses, or with a vortex, from physics alone."""

import itertools
import os
import platform
import sys
import time
import types
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# OpenBLAS threads only slow down the few small matrix decompositions per image.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy.special import softmax

from lensjax import fitting, simulation
from lensjax.cli import runner
from lensjax.cli.flags import Flag, choice, integer, parse_flags, random_seed, usage
from lensjax.data.images import CLASSES, DISPLAY_NAMES
from lensjax.data.reference_layout import read_class_folders
from lensjax.data.residuals import counts_per_unit
from lensjax.errors import UserError
from lensjax.evaluation.calibration import fit_temperature
from lensjax.evaluation.reliability import reliability_diagram
from lensjax.evaluation.scores import resample_weights, weighted_auc
from lensjax.runtime.progress import log, progress_bar
from lensjax.simulation.images import Split

BATCH_SIZE = 16
PRESET = "common_test"


FLAGS = {
    "images": integer("Number of common_test images per class; 1,000 if not given.", 1_000, 2),
    "seed": random_seed("of the simulation"),
    "split": choice(
        "SPLIT",
        "Split of the simulated images: test (default) or validation.",
        ["validation", "test"],
        "test",
    ),
    "published": Flag(
        "FOLDER",
        "Published images: no/, sphere/ and vort/ with .npy files; $LENSJAX_PUBLISHED_SAMPLES if not given.",
        default=os.environ.get("LENSJAX_PUBLISHED_SAMPLES"),
    ),
    "figure": Flag(
        "FILE",
        "Plot an image of each class, its residual with the best line, and the map of masses with the true "
        "ones as circles.",
    ),
    "output": Flag("FILE", "Write labels and log evidence ratios of all simulated images (.npz)."),
}
USAGE = usage(
    "Classifies images as smooth, with point masses, or with a vortex, from physics alone.",
    ["python tools/studies/likelihood_ratio.py"],
    FLAGS,
    "A smooth lens is fitted to each image, and the evidence for the three classes is compared, with the "
    "priors from which the images are simulated. Nothing is trained. docs/physics_only.md describes the "
    "method.",
    "Intervals contain the central 95 % of 1,000 bootstrap samples; AUC is one-vs-rest.",
)


def main(arguments: Sequence[str]) -> None:
    """Prints the tables.

    Raises:
      UserError: if a flag is invalid, or an output already exists.
    """
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    for name in (values.figure, values.output):
        if name and Path(name).exists():
            raise UserError(f"{name} already exists; move it or choose another file")
    report_simulated(values.images, values.seed, values.split, values.output, values.figure)
    if values.published:
        report_published(Path(values.published).expanduser())


def report_simulated(number: int, seed: int, split: Split, output: str | None, figure: str | None) -> None:
    """Classifies simulated images and prints AUC, accuracy, calibration and speed."""
    found = simulation.simulate_split(PRESET, seed=seed, split=split, num_images=len(CLASSES) * number)
    images = (found.pixels / found.scale[:, None, None]).astype(np.float32)[..., None]
    fit, evidence, seconds = fit_and_compare(images, found.scale)
    ratios, labels = np.asarray(evidence.log_ratios, np.float64), np.asarray(found.labels)
    if output:
        np.savez(output, labels=labels, log_ratios=ratios)
    log.info("%d simulated %s images of %s, nothing trained", len(labels), split, PRESET)
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
        log.info("  %-8s classified as %s", name, dict(zip(CLASSES, given.tolist(), strict=True)))
    log.info("log evidence of the true class relative to the best other class, percentiles")
    log.info("  %-8s %9s %9s %9s %9s", "", "0", "1", "10", "50")
    for label, name in enumerate(CLASSES):
        rows = ratios[labels == label]
        margin = rows[:, label] - np.delete(rows, label, axis=1).max(1)
        log.info("  %-8s %9.1f %9.1f %9.1f %9.1f", name, *np.percentile(margin, [0, 1, 10, 50]))
    report_calibration(labels, evidence)
    log.info(
        "%.2f images/s including the fit, on %d %s core(s), load %.1f",
        *(len(labels) / seconds, os.cpu_count() or 1, platform.machine(), os.getloadavg()[0]),
    )
    if figure:
        plot(figure, images, found, fit, evidence)


def report_calibration(labels: np.ndarray, evidence: fitting.Evidence) -> None:
    """Prints log loss and reliability of the probabilities, and the temperature with the lowest log loss."""
    ratios = np.asarray(evidence.log_ratios, np.float64)
    probabilities = np.asarray(evidence.probabilities(), np.float64)
    for name, values in (("without temperature", softmax(ratios, axis=1)), ("calibrated", probabilities)):
        true = values[np.arange(len(labels)), labels]
        log.info(
            "%s: log loss %.5f, expected calibration error %.5f, mean probability of the best class %.4f",
            *(name, -np.log(np.maximum(true, 1e-300)).mean(), reliability_diagram(labels, values).ece),
            values.max(1).mean(),
        )
    best, right = probabilities.max(1), probabilities.argmax(1) == labels
    for low, high in itertools.pairwise((0, 0.9, 0.99, 0.999, 1.1)):
        rows = (best >= low) & (best < high)
        if rows.any():
            log.info(
                "  probability %.3f to %.3f: %d images, %d wrong, %.2f expected",
                *(low, min(high, 1), rows.sum(), (rows & ~right).sum(), (1 - best[rows]).sum()),
            )
    log.info("best temperature: %.3f", fit_temperature(labels, softmax(ratios, axis=1)))


def report_published(folder: Path) -> None:
    """Prints the log evidence ratios of published images."""
    published = read_class_folders(folder, simulation.preset(PRESET).instrument.image_size)
    _, evidence, _ = fit_and_compare(published.images(), counts_per_unit(published))
    right = evidence.log_ratios.argmax(1) == published.labels
    log.info("%d published images, %d classified correctly", len(published), right.sum())
    log.info(
        "  %-8s %-11s %-30s chi-square per pixel: smooth, with masses, with line",
        *("truth", "probability", "log evidence ratios"),
    )
    for row, label in enumerate(published.labels):
        ratios = " ".join(f"{value:9.1f}" for value in evidence.log_ratios[row])
        pixels = evidence.pixels[row]
        chi_squares = (
            evidence.smooth_chi_square[row],
            evidence.masses_chi_square[row],
            evidence.line_chi_square[row],
        )
        probability = evidence.probabilities()[row, label]
        log.info(
            "  %-8s %11.4f %s %8.3f %8.3f %8.3f",
            *(CLASSES[label], probability, ratios, *np.divide(chi_squares, pixels)),
        )


def fit_and_compare(images: np.ndarray, scale: np.ndarray) -> tuple[fitting.LensFit, fitting.Evidence, float]:
    """Lens fits, evidence, and the time of both without compilation, seconds."""
    substructure_prior = simulation.preset(PRESET).substructure
    noise = fitting.photon_noise(scale.astype(np.float32))
    first = slice(0, min(BATCH_SIZE, len(images)))
    fitting.fit_in_batches(images[first], noise=jax.tree.map(lambda leaf: leaf[first], noise))
    with progress_bar(len(images), "fit") as bar:
        start = time.perf_counter()
        fit = fitting.fit_in_batches(images, noise=noise, report=bar.update)
    seconds = time.perf_counter() - start

    def compare(first: int) -> fitting.Evidence:
        # The last batch is padded, to avoid a second compilation.
        rows = np.minimum(np.arange(first, first + BATCH_SIZE), len(images) - 1)
        fits = jax.tree.map(lambda leaf: leaf[rows], fit)
        part = fitting.class_evidence(images[rows], fits, substructure_prior)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(images) - first], part)

    compare(0)
    # On a CPU, the compiled program compares one image at a time on one core.
    number = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
    parts = []
    with progress_bar(len(images), "compare") as bar, ThreadPoolExecutor(number) as pool:
        start = time.perf_counter()
        for part in pool.map(compare, range(0, len(images), BATCH_SIZE)):
            parts.append(part)
            bar.update(len(part.pixels))
        seconds += time.perf_counter() - start
    return fit, jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), seconds


def aucs(labels: np.ndarray, ratios: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One-vs-rest AUC of each class and their mean `[rows of weights, 4]`.

    Images are ranked by log odds, because probabilities of 0 and 1 would tie.
    """
    found = []
    for label in range(len(CLASSES)):
        odds = ratios[:, label] - np.logaddexp(*np.delete(ratios, label, axis=1).T)
        found.append(weighted_auc(labels == label, odds, weights))
    return np.stack([*found, np.mean(found, axis=0)], axis=1)


def plot(
    file: str,
    images: np.ndarray,
    found: simulation.SimulatedImages,
    fit: fitting.LensFit,
    evidence: fitting.Evidence,
) -> None:
    """Plots the first image of each class, its residual with the best line, and its map of masses."""
    figure = Figure(figsize=(8.4, 8.0), layout="constrained")
    axes = figure.subplots(len(CLASSES), 3)
    side = fitting.COMMON_TEST.pixel_scale * images.shape[1] / 2
    extent = (-side, side, -side, side)
    nodes = fitting.mass_nodes(simulation.preset(PRESET).substructure)
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
            "log evidence: masses {:.0f}, line {:.0f}".format(*evidence.log_ratios[index, 1:]), fontsize=8
        )
        shown = row[2].scatter(*nodes.T, c=1e3 * evidence.masses[index], s=13, marker="s", vmin=-1, vmax=4)
        theta_E, x, y = found.scenes.masses[index].T
        row[2].scatter(x, y, s=9e3 * theta_E**2, facecolors="none", edgecolors="white", lw=0.8)
        figure.colorbar(shown, ax=row[2], shrink=0.8)
        row[2].set_aspect("equal")
        for axis in row:
            axis.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
    axes[0, 0].set_title("image", fontsize=8)
    axes[0, 2].set_title("masses, 0.001 arcsec$^2$", fontsize=8)
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="likelihood_ratio"))
