"""Configs, images and metrics of runs that take a second to train."""

import json

import numpy as np

from lensjax.config import default_config
from lensjax.data.images import ImageSet
from lensjax.workdir import METRICS

SIZE = 32
TIMES = ("seconds", "images_per_second")


class Killed(BaseException):
    """Simulates a killed process."""


def tiny_config(**overrides):
    """Config for `TRAIN` and `VALIDATION`, with some fields changed."""
    config = default_config()
    config.data.image_size = SIZE
    config.model.width = 4
    config.model.stage_sizes = (1, 1)
    config.batch_size = 8
    config.eval_batch_size = 8
    config.num_epochs = 3
    config.optimizer.learning_rate = 1e-2
    config.update_from_flattened_dict(overrides)
    return config


def image_set(num_images, seed):
    """Noise images with a bright bar whose position depends on the class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_images, dtype=np.int32) % 3
    pixels = generator.poisson(20, (num_images, SIZE, SIZE))
    for index, label in enumerate(labels):
        pixels[index, 8 + 6 * label] += 20
    return ImageSet(
        pixels.astype(np.uint16),
        pixels.max((1, 2)).astype(np.float32),
        labels,
        tuple(f"{index}.npy" for index in range(num_images)),
    )


TRAIN, VALIDATION = image_set(44, 0), image_set(21, 1)


def drop_times(records):
    """Epoch records without their times."""
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def metrics_without_times(workdir):
    """Records in the metrics.jsonl of a run, without times."""
    return drop_times(map(json.loads, (workdir / METRICS).read_text().splitlines()))
