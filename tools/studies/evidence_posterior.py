"""Measures how well the evidence for a line determines the length and mass of vortices, without training."""

import os
import sys
import types
from collections.abc import Sequence

# OpenBLAS threads only slow down the few small matrix decompositions per image.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np
from likelihood_ratio import PRESET, fit_and_compare
from regression import LEVELS, line_length
from scipy import stats

from lensjax import simulation
from lensjax.cli import runner
from lensjax.cli.flags import integer, parse_flags, random_seed, usage
from lensjax.data.images import CLASSES
from lensjax.runtime.progress import log

FLAGS = {
    "images": integer("Number of vortices; 750 if not given.", 750, 10),
    "seed": random_seed("of the simulation"),
}
USAGE = usage(
    "Measures how well the evidence for a line determines the length and mass of vortices, without training.",
    ["python tools/studies/evidence_posterior.py --images 750"],
    FLAGS,
    "Images of common_test are fitted with a smooth lens and a line of masses. The standard deviations are "
    "those of the joint fit (Laplace approximation). Images whose evidence is largest for another class are "
    "included.",
)


def main(arguments: Sequence[str]) -> None:
    """Prints the table."""
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    # Every third image is a vortex.
    number, label = len(CLASSES) * values.images, CLASSES.index("vort")
    scenes = simulation.draw_scenes(PRESET, seed=values.seed, split="test", num_images=number)
    found = simulation.simulate_split(PRESET, seed=values.seed, split="test", num_images=number)
    rows = np.flatnonzero(np.asarray(found.labels) == label)
    scenes = jax.tree.map(lambda leaf: leaf[rows], scenes)
    scale = found.scale[rows]
    images = (found.pixels[rows] / scale[:, None, None]).astype(np.float32)[..., None]
    _, evidence, seconds = fit_and_compare(images, scale)
    fraction, length = np.asarray(evidence.line)[:, :2].T
    fraction_error, length_error = np.asarray(evidence.line_errors)[:, :2].T
    true_fraction = (scenes.masses[..., 0] ** 2).sum(-1) / scenes.theta_E**2
    fraction_error = fraction_error / fraction / np.log(10)
    chosen = np.asarray(evidence.log_ratios).argmax(1) == label
    log.info("%d vortices, %d recognized, %.2f images/s", len(rows), chosen.sum(), len(rows) / seconds)
    log.info(
        "| quantity | mean absolute error | median error | %s |", " | ".join(f"in {x:.0%}" for x in LEVELS)
    )
    log.info("|---|---|---|---|---|")
    for name, truth, estimate, error in (
        ("vortex length, arcsec", line_length(scenes), length, length_error),
        ("log10 vortex mass / lens mass", np.log10(true_fraction), np.log10(fraction), fraction_error),
    ):
        deviation = np.abs(estimate - truth)
        inside = (np.mean(deviation < stats.norm.ppf((1 + level) / 2) * error) for level in LEVELS)
        log.info(
            "| %s | %.3f | %.4f | %s |",
            *(name, deviation.mean(), np.median(deviation), " | ".join(f"{each:.3f}" for each in inside)),
        )


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="evidence_posterior"))
