"""The folder of one run: its config, its metrics, and where the rest of it lies.

config.json      the config of the run
metrics.jsonl    one line an epoch
events.out.*     the same for TensorBoard
checkpoints/     the newest epoch and the best one
calibration.json the temperature of the best epoch's probabilities
report/          final metrics: a page, index.html, and figures

Where a config asks for several seeds, the folder has its config.json, in report/seeds.json the figures of
all seeds, and in seed_0/, seed_1/ ... a run like any other for each.
"""

import contextlib
import copy
import json
from collections.abc import Iterator
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
    """Makes `workdir` the folder of a run with this config, or finds that it is already.

    Args:
      workdir: a new or empty folder, or that of an earlier run with the same config.
      config: the whole config of the run.

    Raises:
      UserError: the folder is of a run with another config, or holds other things.
    """
    if (workdir / CONFIG).exists():
        check_same_config(workdir, config)
        return
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(
            f"{workdir} exists and is not the folder of a run (it has no {CONFIG}); name another folder "
            "with --workdir"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / CONFIG, config.to_json(indent=2, sort_keys=False) + "\n")


def check_same_config(workdir: Path, config: ConfigDict) -> None:
    """Refuses a config that is not that of the run in `workdir`.

    Raises:
      UserError: there is no run, or its config is another; the message names the fields.
    """
    there, here = flatten(read_config(workdir).to_dict()), flatten(config.to_dict())
    # Fields that only an earlier version of lensjax had do not matter.
    differences = [
        f"{name} is {there[name]!r} there and {here[name]!r} here"
        for name in sorted(here)
        if there[name] != here[name]
    ]
    if differences:
        raise UserError(
            f"{workdir} is of a run with another config: {'; '.join(differences)}; name another "
            "folder with --workdir, or give the config that it was made with"
        )


def read_config(workdir: Path) -> ConfigDict:
    """The config of the run in `workdir`.

    Raises:
      UserError: there is no run, or its config cannot be read.
    """
    path = workdir / CONFIG
    if not path.is_file():
        raise UserError(
            f"{workdir} is not the folder of a run: it has no {CONFIG}; train one first"
        )
    config = default_config()
    try:
        with config.unlocked():
            config.update(json.loads(path.read_text()))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path} cannot be read as a config: {error}") from None
    return config


def runs_of(workdir: Path, config: ConfigDict) -> dict[Path, ConfigDict]:
    """The folders of the runs that a config asks for, each with its own config of one seed.

    Args:
      workdir: the folder of all.
      config: the whole config.
    """
    if config.seeds == 1:
        return {workdir: config}
    found = {}
    for seed in range(config.seed, config.seed + config.seeds):
        one = copy.deepcopy(config)
        one.update({"seed": seed, "seeds": 1, "seeds_at_once": 0})
        found[workdir / f"seed_{seed}"] = one
    return found


def check_is_one(workdir: Path, config: ConfigDict) -> None:
    """Refuses a folder of several runs where one is needed.

    Raises:
      UserError: the config asks for several seeds.
    """
    if config.seeds > 1:
        folders = ", ".join(map(str, runs_of(workdir, config)))
        raise UserError(f"{workdir} holds {config.seeds} runs; name one of them: {folders}")


def describe(workdir: Path) -> str:
    """What lies where in the folder of a finished run, for the terminal."""
    contents = {
        REPORT + "/": "index.html, final metrics, and figures as PNG and PDF",
        METRICS: "metrics of every epoch",
        CHECKPOINTS + "/": "the best epoch and the newest",
        "calibration.json": "the temperature of the best epoch's probabilities",
        "comparison/": "this run beside others",
        CONFIG: "the config of the run",
    }
    there = {name: what for name, what in contents.items() if (workdir / name).exists()}
    lines = [f"  {name:<18}{what}" for name, what in there.items()]
    if (config := read_config(workdir)).seeds > 1:
        first, *_, last = (folder.name for folder in runs_of(workdir, config))
        lines = [
            f"  {f'{first}/ ... {last}/':<26}a run each, like any other",
            f"  {f'{REPORT}/seeds.json':<26}the figures of all, and how they scatter",
            f"  {CONFIG:<26}the config of all",
        ]
    return "\n".join([f"{workdir}/", *lines, f"  tensorboard --logdir {workdir}"])


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps a second process from training in the same folder at the same time.

    Raises:
      UserError: another process is at work there.
    """
    lock = FileLock(workdir / ".lock")
    try:
        with lock.acquire(blocking=False):
            yield
    except Timeout:
        raise UserError(
            f"{workdir} is in use by another process; wait for it or name another"
        ) from None


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
