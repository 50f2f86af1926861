"""The folder of a run, with its config, metrics, checkpoints and report.

config.json      the config of the run
metrics.jsonl    one line per epoch
events.out.*     the same metrics for TensorBoard
checkpoints/     the two best epochs and the two newest checkpoints
calibration.json the temperature that calibrates the best epoch's probabilities
domain.safetensors the range of the validation images, for which predictions are reliable
images.json      checksums of the training and validation images, unless they are simulated
report/          final metrics and figures; start with index.html

If the config has several seeds, the folder contains config.json, the metrics of all seeds in
report/seeds.json, and a subfolder seed_0/, seed_1/, ... with the run of each seed.
"""

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from lensjax.config import EARLIER_FIELDS, check, complete_config, flatten
from lensjax.errors import UserError, naming
from lensjax.json_text import encode_json

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
REPORT = "report"
IMAGES = "images.json"
LOCK = ".lock"
_TEMPORARY = ".tmp"  # suffix of files that are being written
# Fields of the config that the checksum does not cover: the images can be moved.
_UNSEALED = ("data.source", "data.residence")
_LARGEST_CONFIG = 1_000_000  # bytes


def check_path(workdir: Path) -> None:
    """Checks that checkpoints can be written to and read from a folder of this name.

    TensorStore reads a backslash as a slash, and Orbax finds its files with a glob pattern, in which brackets
    are special characters.

    Raises:
      UserError: if the path contains a backslash, "[" or an unprintable character, or has the suffix of
        a model file.
    """
    path = str(workdir.absolute())
    if "\\" in path or "[" in path or not path.isprintable():
        raise UserError(
            f"{str(workdir)!a}: checkpoints cannot be stored in a path with backslashes, brackets or "
            "unprintable characters; choose another folder with --workdir"
        )
    if workdir.suffix == ".safetensors":
        raise UserError(
            f"{workdir}: names ending in .safetensors are reserved for model files; choose another --workdir"
        )


def claim(workdir: Path, config: ConfigDict) -> None:
    """Creates the folder of a run, or checks that an existing run has the same config.

    Args:
      workdir: a new or empty folder, or the folder of an earlier run with the same config. The config may
        differ if the earlier run has not started, see `is_started`; it is then replaced.
      config: the complete config of the run.

    Raises:
      UserError: if `check_path` rejects the path, the config is invalid, or the folder belongs to a run with
        a different or invalid config, contains other files, cannot be created, or is used by another process
        with a different config.
    """
    check(config)
    check_path(workdir)
    try:
        if (workdir / CONFIG).exists():
            if not is_started(workdir) and read_config(workdir).to_dict() != config.to_dict():
                with lock(workdir):
                    if not is_started(workdir):
                        (workdir / IMAGES).unlink(missing_ok=True)
                        _write_config(workdir, config)
            check_same_config(workdir, config)
            return
        # A process that was killed at this point may have left a folder without a config.
        own = {CONFIG + _TEMPORARY, LOCK}
        if workdir.exists() and (not workdir.is_dir() or {path.name for path in workdir.iterdir()} - own):
            raise UserError(
                f"{workdir} exists and is not a run folder (no {CONFIG}); choose another folder with "
                "--workdir"
            )
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{workdir} cannot be created: {error.strerror or error}") from None
    _write_config(workdir, config)


def _write_config(workdir: Path, config: ConfigDict) -> None:
    content = seal(json.loads(config.to_json(sort_keys=False)), _UNSEALED)
    write_atomically(workdir / CONFIG, encode_json(content, indent=2) + "\n")


def is_started(workdir: Path) -> bool:
    """Returns whether a run's folder contains anything that was trained, such as a checkpoint or metrics.

    Args:
      workdir: the folder of a run, or of the runs of several seeds.
    """
    own = {CONFIG, CONFIG + _TEMPORARY, IMAGES, IMAGES + _TEMPORARY, LOCK}
    for path in workdir.iterdir():
        is_run_part = path.name == CHECKPOINTS or path.name.startswith("seed_")
        if path.name not in own and not (is_run_part and path.is_dir() and not is_started(path)):
            return True
    return False


@contextlib.contextmanager
def hold(workdir: Path, config: ConfigDict) -> Iterator[None]:
    """Claims and locks the folder of a run.

    Args:
      workdir, config: see `claim`.

    Raises:
      UserError: see `claim` and `lock`.
    """
    claim(workdir, config)
    with lock(workdir):
        check_same_config(workdir, config)  # another process may have claimed it before it was locked
        yield


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
    differences = [
        f"{name} = {existing[name]!r} in the existing run, {new[name]!r} in this command"
        for name in sorted(new)
        if existing[name] != new[name] and name not in ignored
    ]
    if differences:
        advice = "choose another folder with --workdir, or use the original config"
        if len(differences) == 1 and differences[0].startswith("data.source "):
            advice = f"if the images were moved, link {existing['data.source']} to them and use that path"
        raise UserError(f"{workdir} was created with a different config: {'; '.join(differences)}; {advice}")


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
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise UserError(f"{path}: invalid config: larger than {_LARGEST_CONFIG:,} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: invalid config: it is not text") from None
    return parse_config(text, path)


def parse_config(text: str, source: Path) -> ConfigDict:
    """Parses the JSON text of a config.

    Args:
      text: the fields that differ from the defaults, or all fields.
      source: the file, for the error message.

    Returns:
      The complete config.

    Raises:
      UserError: if it is not a valid config.
    """
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        fields = flatten(_without_earlier_fields(unseal(content, _UNSEALED)))
        config = complete_config(fields)
        check(config)
    except RecursionError:
        raise UserError(f"{source}: invalid config: it is nested too deeply") from None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{source}: invalid config: {error}") from None
    return config


def _without_earlier_fields(content: dict[str, Any]) -> dict[str, Any]:
    """Removes the fields and values of earlier versions that have no effect on a trained model."""
    for group, name, value in EARLIER_FIELDS:
        fields = content.get(group)
        if isinstance(fields, dict) and name in fields and value in (None, fields[name]):
            del fields[name]
    return content


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
        CHECKPOINTS + "/": "the two best epochs and the two newest checkpoints",
        "calibration.json": "the temperature that calibrates the best epoch's probabilities",
        "domain.safetensors": "the range of the validation images",
        IMAGES: "checksums of the training and validation images",
        "comparison/": "comparison of this run with others",
        CONFIG: "the config of the run",
    }
    existing = {name: text for name, text in contents.items() if (workdir / name).exists()}
    lines = [f"  {name:<20}{text}" for name, text in existing.items()]
    if (config := read_config(workdir)).seeds > 1:
        first, *_, last = (folder.name for folder in list_runs(workdir, config))
        lines = [
            f"  {f'{first}/ ... {last}/':<26}the run of each seed",
            f"  {f'{REPORT}/seeds.json':<26}the metrics of all seeds and their scatter",
            f"  {CONFIG:<26}the config of all runs",
        ]
    tensorboard = f"To plot the metrics: pip install tensorboard, then tensorboard --logdir {workdir}"
    return "\n".join([f"{workdir}/", *lines, "", tensorboard])


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Locks a folder, so that no other process trains in it at the same time.

    Raises:
      UserError: if another process uses the folder, or its lock file is a link.
    """
    path = workdir / LOCK
    if path.is_symlink():
        raise UserError(f"{path} is a link; delete it")
    try:
        with FileLock(path).acquire(blocking=False):
            yield
    except Timeout:
        raise UserError(
            f"{workdir} is in use by another process; wait for it or choose another folder"
        ) from None


def seal(content: Mapping[str, Any], omitted: Collection[str] = ()) -> dict[str, Any]:
    """Adds the field `sha256`, with which `unseal` detects changes.

    Args:
      content: the content of a JSON file.
      omitted: dotted names of fields that may change.

    Returns:
      The content with the checksum.
    """
    covered = {name: value for name, value in flatten(content).items() if name not in omitted}
    digest = hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()
    return {**content, "sha256": digest}


def unseal(content: Mapping[str, Any], omitted: Collection[str] = ()) -> dict[str, Any]:
    """Removes the field `sha256`; files of earlier versions do not have it.

    Args:
      content, omitted: see `seal`.

    Returns:
      The content without the checksum.

    Raises:
      ValueError: if the content has changed.
    """
    fields = {name: value for name, value in content.items() if name != "sha256"}
    if "sha256" in content and seal(fields, omitted)["sha256"] != content["sha256"]:
        raise ValueError(
            "its content has changed since it was written; undo the change, or delete sha256 to accept it"
        )
    return fields


def write_atomically(path: Path, text: str) -> None:
    """Writes a file atomically: after a crash or a power failure it has either the old or the new content."""
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        temporary.unlink(missing_ok=True)  # may be a link
        with naming(path), temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent, deep=False)


def sync_folder(folder: Path, *, deep: bool = True) -> None:
    """Flushes a folder from the memory of the system to the disk (fsync).

    Args:
      folder: the folder.
      deep: whether to include the files and folders in it; otherwise only its directory entries.
    """
    for path in folder.iterdir() if deep else ():
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not possible on every file system
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
