"""The command `lensjax verify`: checks runs, model files and the cache for damage. It changes nothing."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from lensjax import weights, workdir
from lensjax.cli.flags import Flag, parse_flags, usage
from lensjax.data.image_record import read_record
from lensjax.errors import UserError
from lensjax.evaluation.calibration import read_temperature
from lensjax.prediction.domain import read_domain
from lensjax.prediction.trained_model import MODEL_SUFFIX
from lensjax.runtime import user_cache
from lensjax.runtime.paths import user_path
from lensjax.runtime.progress import log
from lensjax.training import checkpoint_files as files
from lensjax.training.history import best_epoch, read_history

FLAGS: dict[str, Flag] = {}
EXAMPLES = ("lensjax verify runs/lens_fit-quick", "lensjax verify")
USAGE = usage(
    "Checks runs, model files and cache folders for damage, and changes nothing. Without a path, it checks "
    "the simulated images and lens fits in the user's cache.",
    EXAMPLES,
    FLAGS,
    codes="Exit codes: 0 no damage; 1 damage; 2 invalid command or path.",
)
AGAIN = "restore it from a copy, or delete {} and train again"


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something to report about a file or folder.

    Attributes:
      path: the file or folder.
      text: what was found, and what to do.
      damaged: whether something is damaged; otherwise the finding is harmless.
    """

    path: Path
    text: str
    damaged: bool = True


def main(arguments: Sequence[str]) -> int:
    """Runs the command verify."""
    paths = [user_path(word) for word in arguments if not word.startswith("-")]
    parse_flags(FLAGS, [word for word in arguments if word.startswith("-")])
    damaged = False
    cache = user_cache.folder("")
    for path in paths or [cache]:
        findings = list(check(path) if paths else check_cache(cache))
        for finding in findings:
            log.info("%s: %s", finding.path, finding.text)
        bad = sum(finding.damaged for finding in findings)
        log.info("%s: %s", path, f"{bad} damaged" if bad else "no damage")
        damaged |= bad > 0
    return int(damaged)


def check(path: Path) -> Iterator[Finding]:
    """Yields the findings about a run, a model file or a cache folder.

    Raises:
      UserError: if it does not exist or is none of them, or a run is in use.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path")
    if path.suffix == MODEL_SUFFIX and path.is_file():
        yield from check_model_file(path)
    elif (path / workdir.CONFIG).exists() or (path / workdir.CHECKPOINTS).is_dir():
        with workdir.lock(path) if (path / workdir.LOCK).exists() else contextlib.nullcontext():
            yield from check_run(path)
    elif path.name in user_cache.KINDS or any(
        (path / name).is_dir() for name in (*user_cache.KINDS, user_cache.COMPILED)
    ):
        yield from check_cache(path)
    else:
        raise UserError(f"{path} is not the folder of a run, a model file or a cache folder; check the path")


def check_run(folder: Path) -> Iterator[Finding]:
    """Yields the findings about a run, or about the runs of several seeds."""
    try:
        config = workdir.read_config(folder)
    except UserError as error:
        yield Finding(folder / workdir.CONFIG, f"{error}; write it again with the config of the run")
        config = None
    for path in sorted(folder.iterdir()):
        if not path.is_file() and not path.is_dir():  # reading a pipe would block
            yield Finding(path, "is a broken link or not a regular file; delete it")
    for path in sorted(folder.glob("*.tmp")):
        yield Finding(path, "left by a killed process; harmless, can be deleted", damaged=False)
    if config is not None and config.seeds > 1:
        for each in workdir.list_runs(folder, config):
            if each.is_dir():
                yield from check_run(each)
            else:
                yield Finding(each, "not trained yet", damaged=False)
    else:
        yield from check_checkpoints(folder)
    yield from _check_results(folder)


def check_checkpoints(folder: Path) -> Iterator[Finding]:
    """Yields the findings about the checkpoints of a run and its metrics file."""
    checkpoints = folder / workdir.CHECKPOINTS
    for path in (*files.leftovers(checkpoints), *sorted(checkpoints.glob("*.damaged*"))):
        yield Finding(path, "not used; can be deleted", damaged=False)
    complete: set[int] = set()
    newest = files.Progress()
    for step in files.list_steps(checkpoints):
        checkpoint = checkpoints / str(step)
        try:
            progress, digests = files.read_progress(checkpoint)
            for item in files.ARRAY_ITEMS:
                files.read_arrays(checkpoint, item, digests)
        except files.DamagedError as error:
            yield Finding(checkpoint, f"damaged ({error}); {AGAIN.format(checkpoints)}")
            continue
        if not digests:
            yield Finding(checkpoint, "has no checksums (earlier version of lensjax)", damaged=False)
        newest = progress
        if progress.steps_in_epoch == 0:
            complete.add(progress.epoch)
    history = newest.history
    if history and (best := best_epoch(history)) not in complete:
        yield Finding(
            checkpoints, f"no intact checkpoint of the best epoch, {best}; {AGAIN.format(checkpoints)}"
        )
    path = folder / workdir.METRICS
    records = read_history(path)
    # A killed process can leave the record of an epoch without its checkpoint, or the reverse.
    both = min(len(history), len(records))
    if records[:both] != history[:both] or abs(len(records) - len(history)) > 1:
        yield Finding(
            path,
            f"has {len(records)} readable epochs that do not agree with the {len(history)} of the newest "
            "intact checkpoint; the training command writes it again",
        )


def check_model_file(path: Path) -> Iterator[Finding]:
    """Yields the findings about a model file."""
    try:
        weights.load(path)
    except UserError as error:
        yield Finding(path, f"damaged ({error}); export the run again")


def check_cache(folder: Path) -> Iterator[Finding]:
    """Yields the findings about the simulated images and lens fits in a cache folder, which may be empty."""
    kinds = [path for kind in user_cache.KINDS if (path := folder / kind).is_dir()]
    for kind in kinds or [folder]:
        for file in sorted(kind.glob("*.npz")):
            try:
                user_cache.read(file)
            except Exception as error:  # see user_cache.load
                reason = str(error) or type(error).__name__
                yield Finding(file, f"damaged ({reason}); it is recomputed when needed, and can be deleted")
        for file in user_cache.leftovers(kind):
            yield Finding(file, "left by a killed process; harmless, can be deleted", damaged=False)


def _check_results(folder: Path) -> Iterator[Finding]:
    """Yields the findings about the calibration, the domain, the image record and the reports of a run."""
    for read in (
        lambda: read_temperature(folder, 0),
        lambda: read_domain(folder, 0),
        lambda: read_record(folder),
    ):
        try:
            read()
        except UserError as error:
            yield Finding(folder, str(error))
    for file in sorted((folder / workdir.REPORT).rglob("*.json")):
        try:
            if not file.is_file():
                raise ValueError("not a regular file")
            json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            yield Finding(file, f"damaged ({error}); lensjax evaluate writes it again")
