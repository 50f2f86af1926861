"""Measures whole runs as users start them, each in a process of its own, and writes JSON.

  python tools/benchmarks/runs.py --output runs.json
  python tools/benchmarks/runs.py --start-up --output start_up.json
  python tools/benchmarks/runs.py --runs baseline:quick --override data.num_train=900

  --runs NAME,..          configs/NAME.py, perhaps with a variant, or FILE.py[:VARIANT]; if not given
                          baseline,pinn,baseline:fast,pinn:fast
  --override FIELD=VALUE  for every run, as --config.FIELD=VALUE; can be repeated
  --limit SECONDS         a run that takes longer is stopped, as by Ctrl-C, and counts as far as it got; its
                          test images are then evaluated outside the time that is counted
  --folder FOLDER         where the runs are kept, each in a new folder; else they are thrown away
  --output FILE           where the figures go, after each run; benchmark_runs.json if not given
  --start-up              instead, how long a run takes to its first training step (baseline:quick,pinn:quick)
  --rounds N              of --start-up; medians count (3 if not given)

A run is measured from the start of its process to its end, report included, with nothing compiled
before. Its images are simulated before it, which is timed by itself. Of each run:
  seconds                 the whole
  training_seconds        training steps alone, compilation included; epochs_seconds with validation
  images_per_second       in training, the median epoch after the first
  operations_per_second   of training steps, by XLA's count before it optimises; share_of_peak: of what the
                          data sheet says for the precision; on a CPU, of what a product of matrices reaches
  validation, test        AUC of each class and their mean, of the best epoch
  peak_bytes              of the device's memory; peak_resident_bytes of the process
--start-up: "reached" is when the first training step is called, "done" when its result is there; of a
"first" start with nothing compiled and a "second" one that finds the first's programs. Images are there.
Exit codes: 0 done; 1 a run failed; 2 something in the command is wrong.
"""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from lensjax import workdir
from lensjax.cli import options, runner
from lensjax.data.images import CLASSES
from lensjax.errors import UserError
from lensjax.runtime.progress import log
from lensjax.runtime.user_cache import CACHE_VARIABLE

ROOT = Path(__file__).parent.parent.parent
RUNS = ("baseline", "pinn", "baseline:fast", "pinn:fast")
START_UPS = ("baseline:quick", "pinn:quick")
IMPORTS = ("jax", "jax, lensjax", "lensjax.main")
STARTS = ("first", "second")
SECONDS_TO_STOP = 600.0  # a run that was asked to stop ends its step and saves
# What lensjax.runtime.compilation_cache asks for where JAX's own variable does not name a folder.
KEEP = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}


def main(arguments: Sequence[str]) -> int:
    """Measures what is asked for.

    Returns:
      The exit code.

    Raises:
      UserError: a flag, a config or a field is wrong.
    """
    values = flags.FlagValues()
    flags.DEFINE_list("runs", [], "", flag_values=values)
    flags.DEFINE_multi_string("override", [], "", flag_values=values)
    flags.DEFINE_float("limit", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_string("folder", None, "", flag_values=values)
    flags.DEFINE_string("output", "benchmark_runs.json", "", flag_values=values)
    flags.DEFINE_boolean("start-up", False, "", flag_values=values)
    flags.DEFINE_integer("rounds", 3, "", lower_bound=1, flag_values=values)
    runner.read_flags(values, arguments)
    is_start_up = values["start-up"].value
    names = values.runs or (START_UPS if is_start_up else RUNS)
    configs = {name: config_of(words_of(name, values.override)) for name in names}
    if values.folder and not is_start_up:
        check_new(Path(values.folder), names)
    output = Path(values.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = succeeded("machine", []).found | {"override": values.override}
    log.info("%s, %s cores", figures["device"], figures["cores"])
    if is_start_up:
        figures |= {"rounds": values.rounds, "imports": import_seconds(values.rounds)}
        figures["start_up"] = {}
        for name in names:
            words = words_of(name, values.override)
            figures["start_up"][name] = start_up(name, words, values.rounds)
            write(output, figures)
        return 0
    with contextlib.ExitStack() as temporary:
        folder = Path(values.folder or temporary.enter_context(tempfile.TemporaryDirectory()))
        cache = {CACHE_VARIABLE: temporary.enter_context(tempfile.TemporaryDirectory())}
        figures |= {"limit": values.limit, "images": [], "runs": {}}
        for name in names:
            words = words_of(name, values.override)
            images = ready_images(figures["images"], configs[name], words, cache)
            log.info("\n%s", name)
            figures["runs"][name] = whole_run(
                words,
                folder / folder_name(name),
                configs[name],
                images["train"],
                cache,
                values.limit,
            )
            write(output, figures)
            show(name, figures["runs"][name])
    return int(any(each["exit_code"] and not each["stopped"] for each in figures["runs"].values()))


def words_of(name: str, overrides: Sequence[str]) -> list[str]:
    """The words after `lensjax.main` that make a run.

    Args:
      name: of a config in configs/, or a file; perhaps a variant after a colon.
      overrides: FIELD=VALUE.

    Raises:
      UserError: an override has another form.
    """
    file, colon, variant = name.partition(":")
    path = file if file.endswith(".py") else str(ROOT / "configs" / f"{file}.py")
    for each in overrides:
        if each.startswith("-") or not all(each.partition("=")):
            raise UserError(f"--override {each}: not of the form FIELD=VALUE, as num_epochs=2")
    return ["--config", path + colon + variant, *(f"--config.{each}" for each in overrides)]


def config_of(words: Sequence[str]) -> ConfigDict:
    """The config that a run will have.

    Raises:
      UserError: there is no such config, a field or value is wrong, or it is of several runs.
    """
    config = options.parse(words).config
    assert config is not None
    if config.seeds > 1:
        raise UserError(
            f"config.seeds={config.seeds}: one run at a time is measured; leave it at 1"
        )
    return config


def folder_name(name: str) -> str:
    """`baseline-fast` for `baseline:fast`, as `lensjax.main` names folders."""
    return options.default_workdir(name).name


def check_new(folder: Path, names: Sequence[str]) -> None:
    """Refuses folders that are there: a run would go on from what it finds, and be too quick.

    Raises:
      UserError: one of the runs has a folder already.
    """
    for name in names:
        if (folder / folder_name(name)).exists():
            raise UserError(
                f"{folder / folder_name(name)} exists, and a run would go on from there; name another "
                "--folder"
            )


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that is over.

    Attributes:
      code: its exit code.
      stopped: whether it had to be asked.
      start, end: when, seconds.
      found: what it wrote.
    """

    code: int
    stopped: bool
    start: float
    end: float
    found: dict[str, Any]


def process_of(
    what: str, words: Sequence[str], environment: Mapping[str, str], limit: float | None = None
) -> Ended:
    """Runs one function of tools/benchmarks/measured_process.py.

    Args:
      what: its name.
      words: those of `lensjax.main`.
      environment: variables to add.
      limit: seconds after which it is asked to stop.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [
            sys.executable,
            str(ROOT / "tools" / "benchmarks" / "measured_process.py"),
            what,
            str(file),
        ]
        start, stopped = time.time(), False
        process = subprocess.Popen([*command, *words], env=os.environ | environment)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            stopped = True
            process.terminate()
            try:
                process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
        code = process.wait()
        found = json.loads(file.read_text("utf-8")) if file.exists() else {}
        return Ended(code, stopped, start, time.time(), found)


def succeeded(
    what: str, words: Sequence[str], environment: Mapping[str, str] | None = None
) -> Ended:
    """As `process_of`, of what is not to fail.

    Raises:
      UserError: it failed; what it says stands above.
    """
    ended = process_of(what, words, environment or {})
    if ended.code:
        raise UserError(f"{what} {' '.join(words)}: ended with code {ended.code}, see above")
    return ended


def import_seconds(rounds: int) -> dict[str, float]:
    """Median seconds of imports, each in a new process."""
    seconds: dict[str, list[float]] = {modules: [] for modules in IMPORTS}
    clock = (
        "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    )
    for _ in range(rounds):
        for modules in IMPORTS:
            command = [sys.executable, "-c", clock.format(modules)]
            seconds[modules].append(float(subprocess.check_output(command, text=True)))
    medians = {modules: statistics.median(each) for modules, each in seconds.items()}
    log.info("%s", "\n".join(f"import {name}: {value:.2f} s" for name, value in medians.items()))
    return medians


def start_up(name: str, words: Sequence[str], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds from the start of a run to its first step, with nothing compiled before and again."""
    succeeded("images", words)
    seconds: dict[str, dict[str, list[float]]] = {
        start: {"reached": [], "done": []} for start in STARTS
    }
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            compiled = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "compiled")} | KEEP
            for start in STARTS:
                place = ["--workdir", str(Path(folder) / start)]
                ended = succeeded("first_step", [*words, *place], compiled)
                for event, each in seconds[start].items():
                    each.append(ended.found[event] - ended.start)
    medians = {
        start: {event: statistics.median(each) for event, each in events.items()}
        for start, events in seconds.items()
    }
    for start, events in medians.items():
        log.info(
            "%s, %s start: reached its first step after %.2f s, done with it after %.2f s",
            *(name, start, events["reached"], events["done"]),
        )
    return medians


def ready_images(
    known: list[dict[str, Any]], config: ConfigDict, words: Sequence[str], cache: Mapping[str, str]
) -> dict[str, Any]:
    """Has a run's images made, where no earlier run had the same, and adds them to those that are known."""
    data = config.data.to_dict()
    for each in known:
        if each["data"] == data:
            return each
    found = succeeded("images", words, cache).found
    number = found["train"] + found["validation"] + found["test"]
    log.info("%s images were ready in %.1f s", f"{number:,}", found["seconds"])
    known.append({"data": data} | found)
    return known[-1]


def whole_run(
    words: Sequence[str],
    folder: Path,
    config: ConfigDict,
    num_train: int,
    cache: Mapping[str, str],
    limit: float | None,
) -> dict[str, Any]:
    """A run from the start of its process to its end.

    Args:
      words: those of `lensjax.main`.
      folder: the run's; new.
      config: the run's.
      num_train: images in an epoch.
      cache: the variables that name the cache with its images.
      limit: seconds after which it is stopped.
    """
    price = succeeded("cost", words, cache).found
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**cache, "JAX_COMPILATION_CACHE_DIR": compiled, **KEEP}
        ended = process_of("run", [*words, "--workdir", str(folder)], environment, limit)
        if ended.stopped and (folder / workdir.METRICS).exists() and ended.code:
            evaluation = ["--mode", "evaluate", "--workdir", str(folder)]
            process_of("run", evaluation, environment)  # not counted; the best epoch so far
    return {
        "seconds": ended.end - ended.start,
        "exit_code": ended.code,
        "stopped": ended.stopped,
        "epochs_asked": config.num_epochs,
        **outcome(folder, num_train, price),
        "peak_bytes": ended.found.get("peak_bytes"),
        "peak_resident_bytes": ended.found.get("peak_resident_bytes"),
        "devices": price["devices"],
    }


def outcome(folder: Path, num_train: int, price: Mapping[str, float | None]) -> dict[str, Any]:
    """What a run's own files tell.

    Args:
      folder: the run's.
      num_train: images in an epoch.
      price: "operations_per_image" in training, "peak_operations_per_second" of the devices or None.
    """
    file = folder / workdir.METRICS
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    if not lines:
        return {"epochs": 0}
    records = [json.loads(line) for line in lines]
    rates = [record["images_per_second"] for record in records]
    rate = statistics.median(rates[1:] or rates)
    best = max(records, key=lambda record: record["validation_auc"])
    operations, peak = price["operations_per_image"], price["peak_operations_per_second"]
    assert operations is not None
    report = folder / workdir.REPORT / "metrics.json"
    test = json.loads(report.read_text("utf-8")) if report.exists() else None
    return {
        "epochs": len(records),
        "training_seconds": sum(num_train / each for each in rates),
        "epochs_seconds": sum(record["seconds"] for record in records),
        "first_epoch_seconds": records[0]["seconds"],
        "images_per_second": rate,
        "operations_per_second": rate * operations,
        "share_of_peak": peak and rate * operations / peak,
        "best_epoch": best["epoch"],
        "validation": areas(best, "validation_auc"),
        "test": test and areas(test, "auc"),
    }


def areas(metrics: Mapping[str, float], name: str) -> dict[str, float]:
    """AUC of each class, and their mean."""
    each = {label: metrics[f"{name}_{label}"] for label in CLASSES}
    return each | {"mean": metrics[name]}


def show(name: str, found: Mapping[str, Any]) -> None:
    """Says the most important of a run in two lines."""
    end = "stopped" if found["stopped"] else f"ended with code {found['exit_code']}"
    log.info(
        "\n%s: %.1f s in all, %s after %d of %d epochs",
        *(name, found["seconds"], end, found["epochs"], found["epochs_asked"]),
    )
    if not found["epochs"]:
        return
    share = found["share_of_peak"]
    test = found["test"]
    log.info(
        "  %.1f s of training steps, %.0f images/s, %.3g TFLOP/s%s; AUC: validation %.4f, test %s",
        *(found["training_seconds"], found["images_per_second"]),
        found["operations_per_second"] / 1e12,
        "" if share is None else f" ({100 * share:.2g} % of the peak)",
        found["validation"]["mean"],
        "not known" if test is None else f"{test['mean']:.4f}",
    )


def write(output: Path, figures: Mapping[str, Any]) -> None:
    """Writes what is known so far."""
    workdir.write_atomically(output, json.dumps(figures, indent=1) + "\n")


def run() -> int:
    """Runs the command and gives its exit code."""
    return runner.run(main, __doc__, name="benchmark_runs")


if __name__ == "__main__":
    sys.exit(run())
