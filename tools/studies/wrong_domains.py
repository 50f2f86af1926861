"""Measures how often predictions for images unlike the training images are correct or marked."""

import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from where_it_breaks import CONDITIONS

import lensjax
from lensjax import simulation
from lensjax.cli import runner
from lensjax.cli.flags import Flag, integer, parse_flags, random_seed, usage
from lensjax.data.images import CLASSES
from lensjax.prediction.classifier import Classifier
from lensjax.runtime.progress import log

FLAGS = {
    "model": Flag("NAME", "Model of the package, folder of a run, or model file; common_test if not given."),
    "images": integer("Images per class and condition; 20 if not given.", 20, 1),
    "plain": integer("Unchanged images per class; 500 if not given.", 500, 1),
    "seed": random_seed("of the images"),
    "output": Flag("FILE", "Also write the counts as JSON."),
}
USAGE = usage(
    "Measures how often predictions for images unlike the training images are correct or marked.",
    ["python tools/studies/wrong_domains.py", "python tools/studies/wrong_domains.py --images 100"],
    FLAGS,
)
SIZE = 150


def main(arguments: Sequence[str]) -> None:
    """Prints the table."""
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    classifier = lensjax.load(values.model or "common_test")
    counts = {"unchanged": count(classifier, *simulate("common_test", values.plain, values.seed + 1))}
    images, labels = simulate("common_test", values.images, values.seed)
    generator = np.random.default_rng(values.seed)
    for name, change in CHANGES.items():
        counts[name] = count(classifier, change(images, generator), labels)
    for name, violate in CONDITIONS.items():
        if name != "as trained":
            violated = violate(3 * values.images, values.seed)
            counts[name] = count(classifier, violated.pixels.astype(np.float64), violated.labels)
    for name, draw in OTHERS.items():
        counts[name] = count(classifier, draw(3 * values.images, generator), None)
    log.info("%s", table(counts))
    if values.output:
        Path(values.output).write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")


def simulate(preset: str, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Test images `[3 number, height, width]`, in counts above the minimum, and their labels."""
    images = simulation.simulate_split(preset, seed=seed, split="test", num_images=3 * number)
    return images.pixels.astype(np.float64), images.labels


def count(classifier: Classifier, images: np.ndarray, labels: np.ndarray | None) -> dict[str, int]:
    """Numbers of images whose predictions are correct, missing, marked, or wrong and not marked."""
    predictions = classifier.predict(images, bad="mark")
    assert predictions.in_domain is not None
    none = np.array([bool(error) for error in predictions.errors])
    marked = ~none & ~predictions.in_domain
    correct = np.zeros(len(images), bool)
    if labels is not None:
        correct = ~none & (predictions.classes == np.array(CLASSES)[labels])
    return {
        "images": len(images),
        "correct": int(correct.sum()),
        "no_class": int(none.sum()),
        "marked": int(marked.sum()),
        "wrong_unmarked": int((~correct & ~none & ~marked).sum()),
    }


def table(counts: dict[str, dict[str, int]]) -> str:
    """Markdown table of the counts."""
    lines = [
        "| images | number | correct | no class | marked | wrong and not marked |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {name} | " + " | ".join(map(str, row.values())) + " |" for name, row in counts.items()]
    return "\n".join(lines)


def contrast(images: np.ndarray) -> np.ndarray:
    """Images scaled to [0, 1]."""
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    return (images - low) / (high - low)


def shift(pixels: int) -> Callable[..., np.ndarray]:
    """Function that moves the lens off-center."""
    return lambda images, _: np.roll(images, (pixels, -(pixels // 2)), (1, 2))


def set_pixel(row: int, column: int, factor: float) -> Callable[..., np.ndarray]:
    """Function that sets a pixel to a multiple of the maximum."""

    def change(images: np.ndarray, _: np.random.Generator) -> np.ndarray:
        changed = images.copy()
        changed[:, row, column] = factor * images.max((1, 2))
        return changed

    return change


def zero_border(images: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Images with ten pixels of zeros at each edge."""
    changed = np.zeros_like(images)
    changed[:, 10:-10, 10:-10] = images[:, 10:-10, 10:-10]
    return changed


def add_noise(share: float) -> Callable[..., np.ndarray]:
    """Function that adds white noise, relative to the maximum."""
    return lambda images, generator: contrast(images) + generator.normal(0, share, images.shape)


CHANGES: dict[str, Callable[..., np.ndarray]] = {
    "8 bits": lambda images, _: np.rint(255 * contrast(images)).astype(np.uint8),
    "16 bits": lambda images, _: np.rint(65535 * contrast(images)).astype(np.uint16),
    "12 bits, gain 2.5": lambda images, _: np.rint(2.5 * images).astype(np.int16),
    "lens 1 pixel off-center": shift(1),
    "lens 3 pixels off-center": shift(3),
    "lens 5 pixels off-center": shift(5),
    "hot pixel, 10 x maximum": set_pixel(3, 5, 10.0),
    "hot pixel, 1.5 x maximum": set_pixel(120, 40, 1.5),
    "dead pixel, -3 x maximum": set_pixel(40, 60, -3.0),
    "border of zeros": zero_border,
    "square-root stretch": lambda images, _: np.sqrt(contrast(images)),
    "log stretch": lambda images, _: np.log1p(100 * contrast(images)),
    "noise of 5 % of the maximum": add_noise(0.05),
    "noise of 20 % of the maximum": add_noise(0.2),
    "smoothed by one pixel": lambda images, _: ndimage.gaussian_filter(images, (0, 1, 1)),
    "negative": lambda images, _: -images,
}

_Y, _X = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
_R, _ANGLE = np.hypot(_X, _Y), np.arctan2(_Y, _X)


def photons(expected: Callable[[np.random.Generator], np.ndarray]) -> Callable[..., np.ndarray]:
    """Function that draws images with photon noise and a sky of 9 counts."""

    def draw(number: int, generator: np.random.Generator) -> np.ndarray:
        return np.stack([generator.poisson(expected(generator) + 9.0) for _ in range(number)])

    return draw


def star(generator: np.random.Generator) -> np.ndarray:
    """A star near the center."""
    x, y = generator.normal(0, 5, 2)
    return generator.uniform(200, 2000) * np.exp(-((_X - x) ** 2 + (_Y - y) ** 2) / (2 * 1.73**2))


def spiral(generator: np.random.Generator) -> np.ndarray:
    """A spiral galaxy."""
    phase, size = generator.uniform(0, 2 * np.pi), generator.uniform(8, 25)
    arms = 1 + 0.8 * np.cos(2 * _ANGLE - 4 * np.log(_R + 1) + phase)
    return generator.uniform(200, 900) * np.exp(-_R / size) * arms


def elliptical(generator: np.random.Generator) -> np.ndarray:
    """An elliptical galaxy."""
    radius = np.hypot(_X, _Y * generator.uniform(1, 1.6)) / generator.uniform(4, 15)
    return generator.uniform(300, 2000) * np.exp(-(radius**0.5))


def ring(generator: np.random.Generator) -> np.ndarray:
    """A circular ring of constant brightness."""
    return 600 * np.exp(-((_R - generator.uniform(20, 40)) ** 2) / 18)


def exposure_map(generator: np.random.Generator) -> np.ndarray:
    """Exposure time in steps along x, longer in one part."""
    steps = np.round(4 * np.clip((_X + generator.uniform(20, 80)) / 80, 0, 1))
    return generator.uniform(300, 700) * (steps + (_Y > 10) / 2)


OTHERS: dict[str, Callable[..., np.ndarray]] = {
    "blank field, normal noise": lambda number, generator: generator.normal(100, 10, (number, SIZE, SIZE)),
    "blank field, photons": photons(lambda _: np.zeros((SIZE, SIZE))),
    "star": photons(star),
    "spiral galaxy": photons(spiral),
    "elliptical galaxy": photons(elliptical),
    "ring": photons(ring),
    "point-spread function": lambda number, generator: np.stack(
        [np.exp(-(_R**2) / (2 * generator.uniform(1, 8) ** 2)) for _ in range(number)]
    ),
    "mask": lambda number, generator: (generator.random((number, SIZE, SIZE)) > 0.9).astype(np.uint8),
    "exposure map": lambda number, generator: np.stack([exposure_map(generator) for _ in range(number)]),
}


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="wrong_domains"))
