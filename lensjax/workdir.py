"""The folder of a run, with its config, metrics, checkpoints and report.

config.json      the config of the run
metrics.jsonl    one line per epoch
events.out.*     the same metrics for TensorBoard
checkpoints/     the latest and the best epoch
calibration.json the temperature that calibrates the best epoch's probabilities
report/          final metrics and figures; start with index.html

If the config has several seeds, the folder contains config.json, the metrics of all seeds in
report/seeds.json, and a subfolder seed_0/, seed_1/, ... with the run of each seed.
"""

import contextlib
import copy
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from lensjax.config import default_config, flatten
from lensjax.errors import UserError

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
REPORT = "report"


def claim(workdir: Path, config: ConfigDict) -> None:
    """Creates the folder of a run, or checks that an existing run has the same config.

    Args:
      workdir: a new or empty folder, or the folder of an earlier run with the same config.
      config: the complete config of the run.

    Raises:
      UserError: if the folder belongs to a run with a different config, or contains other files.
    """
    if (workdir / CONFIG).exists():
        check_same_config(workdir, config)
        return
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(
            f"{workdir} exists and is not a run folder (no {CONFIG}); choose another folder with --workdir"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / CONFIG, config.to_json(indent=2, sort_keys=False) + "\n")


def check_same_config(workdir: Path, config: ConfigDict, *, ignored: Collection[str] = ()) -> None:
    """Checks that the run in `workdir` has the given config.

    Args:
      workdir: the folder of the run.
      config: the complete config.
      ignored: dotted names of fields that may differ.

    Raises:
      UserError: if there is no run, or its config is different. The message lists the differing fields.
    """
    existing, new = flatten(read_config(workdir).to_dict()), flatten(config.to_dict())
    # Fields that exist only in runs of earlier versions of lensjax are ignored.
    differences = [
        f"{name} = {existing[name]!r} in the existing run, {new[name]!r} in this command"
        for name in sorted(new)
        if existing[name] != new[name] and name not in ignored
    ]
    if differences:
        raise UserError(
            f"{workdir} was created with a different config: {'; '.join(differences)}; choose another "
            "folder with --workdir, or use the original config"
        )


def read_config(workdir: Path) -> ConfigDict:
    """Reads the config of the run in `workdir`.

    Raises:
      UserError: if there is no run, or its config cannot be read.
    """
    path = workdir / CONFIG
    if not path.is_file():
        raise UserError(
            f"{workdir} is not a run folder (no {CONFIG}); train a model first, or choose another --workdir"
        )
    return parse_config(path.read_text(), path)


def parse_config(text: str, source: Path) -> ConfigDict:
    """Parses the JSON text of a config.

    Args:
      text: the fields that differ from the defaults, or all fields.
      source: the file, for the error message.

    Raises:
      UserError: if it is not a valid config.
    """
    config = default_config()
    try:
        with config.unlocked():
            config.update(json.loads(text))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{source}: invalid config: {error}") from None
    return config


def list_runs(workdir: Path, config: ConfigDict) -> dict[Path, ConfigDict]:
    """Lists the runs of a config, one per seed.

    Args:
      workdir: the folder of all runs.
      config: the complete config.

    Returns:
      The single-seed config of each run, by the folder of the run.
    """
    if config.seeds == 1:
        return {workdir: config}
    found = {}
    for seed in range(config.seed, config.seed + config.seeds):
        one = copy.deepcopy(config)
        one.update({"seed": seed, "seeds": 1, "seeds_at_once": 0})
        found[workdir / f"seed_{seed}"] = one
    return found


def check_single_run(workdir: Path, config: ConfigDict) -> None:
    """Checks that a folder contains only one run.

    Raises:
      UserError: if the config has several seeds.
    """
    if config.seeds > 1:
        folders = ", ".join(map(str, list_runs(workdir, config)))
        raise UserError(f"{workdir} contains {config.seeds} runs; choose one of them: {folders}")


def describe(workdir: Path) -> str:
    """Describes the files of a finished run, for the terminal."""
    contents = {
        REPORT + "/": "index.html, final metrics, and figures as PNG and PDF",
        METRICS: "metrics of every epoch",
        CHECKPOINTS + "/": "the best and the latest epoch",
        "calibration.json": "the temperature that calibrates the best epoch's probabilities",
        "comparison/": "comparison of this run with others",
        CONFIG: "the config of the run",
    }
    existing = {name: text for name, text in contents.items() if (workdir / name).exists()}
    lines = [f"  {name:<18}{text}" for name, text in existing.items()]
    if (config := read_config(workdir)).seeds > 1:
        first, *_, last = (folder.name for folder in list_runs(workdir, config))
        lines = [
            f"  {f'{first}/ ... {last}/':<26}the run of each seed",
            f"  {f'{REPORT}/seeds.json':<26}the metrics of all seeds and their scatter",
            f"  {CONFIG:<26}the config of all runs",
        ]
    return "\n".join([f"{workdir}/", *lines, f"  tensorboard --logdir {workdir}"])


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Locks a folder, so that no other process trains in it at the same time.

    Raises:
      UserError: if another process uses the folder.
    """
    try:
        with FileLock(workdir / ".lock").acquire(blocking=False):
            yield
    except Timeout:
        raise UserError(
            f"{workdir} is in use by another process; wait for it or choose another folder"
        ) from None


def write_atomically(path: Path, text: str) -> None:
    """Writes a file atomically: after a crash it has either the old or the new content."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
