#!/usr/bin/env python3
"""Trains the same few steps on different numbers of devices and prints how far the results are apart.

    python tools/compare_devices.py --config configs/pinn.py --devices 1,2,4 --config.model.width=16

On a CPU the devices are made up as needed. Needs no work folder and writes none. Config flags are those
of lensjax.main.
"""

import functools
import os
import sys

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "config of the run", lock_config=True)
_DEVICES = flags.DEFINE_list("devices", ["1", "2", "4"], "numbers of devices to compare")
_STEPS = flags.DEFINE_integer("steps", 10, "steps to train", lower_bound=1)


def main(argv: list[str]) -> None:
    """Prints one line for each number of devices."""
    del argv
    numbers = [int(number) for number in _DEVICES.value]
    # XLA's CPU client takes its threads from NPROC and waits for ever with fewer of them than devices.
    os.environ.setdefault("NPROC", str(4 * max(numbers)))

    import jax
    import numpy as np

    jax.config.update("jax_num_cpu_devices", max(numbers))

    from lensjax import models
    from lensjax.config import check
    from lensjax.data.batches import batches, epoch_order
    from lensjax.data.images import ImageSet
    from lensjax.data.preparation import prepare, prepared_size
    from lensjax.data.source import load_splits
    from lensjax.training import optimizer
    from lensjax.training.losses import term_names
    from lensjax.training.parallel import (
        AXIS,
        check_batch_size,
        parallel_train_step,
        replicated,
    )
    from lensjax.training.state import initial_state
    from lensjax.training.step import train_step

    config = _CONFIG.value
    check(config)
    config.data.num_train = min(config.data.num_train, _STEPS.value * config.batch_size)
    images = load_splits(config.data).train
    if not isinstance(images, ImageSet):
        raise app.UsageError("compares on a fixed set of images, not on simulated:...?fresh")
    order = epoch_order(config.seed, 0, len(images))
    model = models.build(config, axis_name=AXIS)
    adamw = optimizer.build(config.optimizer, _STEPS.value)
    size = prepared_size(config.data.image_size, config.preparation.crop)
    start = jax.device_get(
        initial_state(
            model,
            adamw,
            jax.random.key(config.seed),
            image_size=size,
            terms=term_names(config.model.name),
        )
    )
    results = {}
    for number in numbers:
        check_batch_size("batch_size", config.batch_size, number)
        devices = jax.devices()[:number]
        step = parallel_train_step(
            functools.partial(
                train_step,
                model=model,
                optimizer=adamw,
                prepare=functools.partial(prepare, **config.preparation),
                max_rotation=config.augmentation.max_rotation,
                physics_weight=config.loss.physics_weight,
                axis_name=AXIS,
            ),
            devices,
        )
        state, key = replicated((start, jax.random.key(config.seed + 1)), devices)
        losses = []
        for batch in list(batches(images, order, config.batch_size))[: _STEPS.value]:
            state, metrics = step(state, batch, key)
            losses.append(float(metrics["loss"]))
        results[number] = (
            np.asarray(losses),
            jax.device_get({"parameters": state.params, "running statistics": state.batch_stats}),
        )
        reference_losses, reference = results[numbers[0]]
        apart = {"losses": np.abs(results[number][0] - reference_losses).max()} | {
            name: max(
                (
                    np.abs(one - other).max()
                    for one, other in zip(
                        jax.tree.leaves(tree), jax.tree.leaves(reference[name]), strict=True
                    )
                ),
                default=0.0,
            )
            for name, tree in results[number][1].items()
        }
        figures = ", ".join(f"{name} {value:.1e}" for name, value in apart.items())
        print(
            f"{number} {devices[0].platform} against {numbers[0]}, {len(losses)} steps: {figures}"
        )


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    sys.exit(app.run(main))
