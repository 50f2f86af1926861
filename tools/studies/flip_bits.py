"""Flips single bits in the files of a run and of the cache, and counts the changes that go unnoticed.

    python tools/studies/flip_bits.py --flips 500

Each trial flips one random bit of one random file of a small run (checkpoints, config, temperature) or of a
cache file, and reads it as prediction, training and the simulator do. A trial passes if the result is that of
the undamaged files, or if one line reports the damage. It fails if other values are used silently, or if
another exception is raised. The result is printed as a Markdown table and as JSON.
"""

import logging
import random
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import logging as absl_logging
from kill_runs import print_table

from lensjax import models, workdir
from lensjax.cli import runner
from lensjax.cli.console import hide_repeated_errors
from lensjax.cli.flags import Flag, integer, parse_flags, random_seed, usage
from lensjax.config import default_config
from lensjax.errors import UserError
from lensjax.evaluation.calibration import Calibration, read_temperature, write_calibration
from lensjax.runtime import user_cache
from lensjax.training import checkpoint_files as files
from lensjax.training.checkpoint_files import Progress
from lensjax.training.checkpoints import Checkpoints
from lensjax.training.state import TrainState, initial_state

SIZE = 32
TINY = {"data.image_size": SIZE, "model.width": 4, "model.name": "lens_fit_net", "model.num_blocks": 0}
SHAPES = {"pixels": (6, SIZE, SIZE), "scale": (6,)}
Read = Callable[[Path], Any]


FLAGS: dict[str, Flag] = {
    "flips": integer("Number of flips for each row of the table; 500 if not given.", 500, 1),
    "seed": random_seed("of the random positions"),
}
USAGE = usage(
    "Flips bits of checkpoints, configs, temperatures and cache files, and reads them.",
    ["python tools/studies/flip_bits.py --flips 100"],
    FLAGS,
)


def main(words: Sequence[str]) -> None:
    """Runs the study and prints its result."""
    arguments = types.SimpleNamespace(**parse_flags(FLAGS, words))
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.disable(logging.WARNING)
    hide_repeated_errors()
    with tempfile.TemporaryDirectory() as folder:
        print_table(flip_bits(Path(folder), arguments.flips, random.Random(arguments.seed)))


def flip_bits(folder: Path, number: int, generator: random.Random) -> list[dict[str, Any]]:
    """Flips bits in each kind of file.

    Args:
      folder: an empty folder.
      number: flips of each kind.
      generator: generator of the random positions.

    Returns:
      The rows of the table.
    """
    state = make_files(folder / "undamaged")
    kinds: dict[str, tuple[str, Read]] = {
        "a bit of a checkpoint, read for prediction": ("checkpoints", lambda run: read_best(run, state)),
        "a bit of a checkpoint, read for training": ("checkpoints", lambda run: read_newest(run, state)),
        "a bit of the config": (workdir.CONFIG, read_fields),
        "a bit of the temperature": ("calibration.json", lambda run: read_temperature(run, 2)),
        "a bit of a cache file": ("cache.npz", lambda run: user_cache.load(run / "cache.npz", SHAPES)),
    }
    rows = []
    for fault, (part, read) in kinds.items():
        expected = digest(read(folder / "undamaged"))
        outcomes = {"unchanged": 0, "noticed": 0}
        problems = []
        for _ in range(number):
            damaged = folder / "damaged"
            shutil.copytree(folder / "undamaged", damaged)
            position = flip_one(damaged / part, generator)
            try:
                found = read(damaged)
                if found is None or isinstance(found, Older):  # the cache, or an earlier intact checkpoint
                    outcomes["noticed"] += 1
                elif digest(found) == expected:
                    outcomes["unchanged"] += 1
                else:
                    problems.append(f"{position}: used silently")
            except UserError as error:
                outcomes["noticed"] += 1
                if "\n" in str(error):
                    problems.append(f"{position}: several lines")
            except Exception as error:
                problems.append(f"{position}: {type(error).__name__}: {error}")
            shutil.rmtree(damaged)
        row = {"fault": fault, "trials": number, "passed": number - len(problems)}
        rows.append(row | outcomes | {"problems": problems[:10]})
    return rows


class Older(tuple):
    """State and progress of a checkpoint before the newest one."""

    __slots__ = ()


def make_files(folder: Path) -> TrainState:
    """Writes a run of two and a half epochs, the second of which is the best, and a cache file."""
    config = default_config()
    config.update_from_flattened_dict(TINY)
    workdir.claim(folder, config)
    model = models.build(config)
    state = initial_state(model, optax.adam(1.0), jax.random.key(0), image_size=SIZE, terms=(), with_ema=True)
    history = [{"epoch": epoch, "validation_auc": auc} for epoch, auc in ((1, 0.7), (2, 0.9))]
    with Checkpoints(folder / workdir.CHECKPOINTS) as checkpoints:
        for step, steps_in_epoch in ((20, 0), (25, 5)):
            shifted = jax.tree.map(lambda leaf, step=step: leaf + step, state).replace(step=np.int32(step))
            checkpoints.save(shifted, Progress(2, steps_in_epoch, history))
    write_calibration(folder, Calibration(1.25, "validation", 100, 2))
    generator = np.random.default_rng(0)
    arrays = {name: generator.poisson(20, shape).astype(np.uint16) for name, shape in SHAPES.items()}
    user_cache.save(folder / "cache.npz", arrays)
    return state


def read_fields(run: Path) -> Any:
    """The config, without the source of the images, which users may change."""
    fields = workdir.read_config(run).to_dict()
    del fields["data"]["source"], fields["data"]["residence"]
    return fields


def read_best(run: Path, state: TrainState) -> Any:
    """The model that prediction uses, and its epoch."""
    with Checkpoints(run / workdir.CHECKPOINTS) as checkpoints:
        return checkpoints.restore_best(state.evaluation_variables)[:2]


def read_newest(run: Path, state: TrainState) -> Any:
    """The state that training resumes from, with its progress."""
    with Checkpoints(run / workdir.CHECKPOINTS) as checkpoints:
        restored = checkpoints.restore_newest(state)
    assert restored is not None
    found, progress = restored
    # The earlier checkpoint is intact, and a warning names the damaged one.
    renamed = list((run / workdir.CHECKPOINTS).glob("*.damaged"))
    kind = Older if renamed and int(found.step) == 20 and np.all(found.totals["count"] == 20) else tuple
    return kind((found, progress.epoch, progress.steps_in_epoch, str(progress.history)))


def digest(value: Any) -> str:
    """A hash of all values of a tree."""
    leaves = files.named_arrays(value)
    return files.array_digest({name: leaf for name, leaf in leaves.items() if leaf.dtype.kind != "U"}) + str(
        [leaf.item() for leaf in leaves.values() if leaf.dtype.kind == "U"]
    )


def flip_one(path: Path, generator: random.Random) -> str:
    """Flips one bit of a file, or of a file in a folder, chosen in proportion to the sizes."""
    paths = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    paths = [each for each in paths if each.stat().st_size]
    (chosen,) = generator.choices(paths, [each.stat().st_size for each in paths])
    content = bytearray(chosen.read_bytes())
    byte, bit = generator.randrange(len(content)), generator.randrange(8)
    content[byte] ^= 1 << bit
    chosen.write_bytes(content)
    return f"{chosen.name}, byte {byte}, bit {bit}"


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="flip_bits"))
