"""Measures whole runs, each in its own process, and writes JSON."""

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
from lensjax.cli.configs import default_workdir
from lensjax.cli.flags import Flag, comma_list, integer, parse_flags, real, switch, usage
from lensjax.data.images import CLASSES
from lensjax.errors import UserError
from lensjax.json_text import encode_json
from lensjax.runtime.progress import log
from lensjax.runtime.user_cache import CACHE_VARIABLE

ROOT = Path(__file__).parent.parent.parent
RUNS = ("baseline", "pinn", "baseline:fast", "pinn:fast")
START_UPS = ("baseline:quick", "pinn:quick")
IMPORTS = ("jax", "jax, lensjax", "lensjax.main")
STARTS = ("first", "second")
SECONDS_TO_STOP = 600.0  # a run completes its step and saves before it stops
# As in lensjax.runtime.compilation_cache, which does not set them if JAX_COMPILATION_CACHE_DIR is set.
CACHE_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}


FLAGS = {
    "runs": comma_list(
        f"Configs to run, from configs/ or as files; {','.join(RUNS)} if not given.",
        [],
        value="NAME[:VARIANT],..",
    ),
    "override": Flag(
        "FIELD=VALUE",
        "Set a field in every run, like --config.FIELD=VALUE; can be repeated.",
        define=flags.DEFINE_multi_string,
        default=[],
    ),
    "limit": real(
        "Stop longer runs with SIGTERM, and report their completed epochs; the test images are evaluated "
        "afterward, outside the measured time.",
        None,
        1.0,
        value="SECONDS",
    ),
    "folder": Flag("FOLDER", "Keep the runs, each in a new subfolder."),
    "output": Flag(
        "FILE",
        "File of the results, written after each run; benchmark_runs.json if not given.",
        default="benchmark_runs.json",
    ),
    "start-up": switch(
        "Measure the time to the first training step instead; runs "
        f"{','.join(START_UPS)} if --runs is not given."
    ),
    "rounds": integer("Rounds of --start-up; results are medians. 3 if not given.", 3, 1),
}
USAGE = usage(
    "Measures whole runs, each in its own process, and writes JSON.",
    [
        "python tools/benchmarks/runs.py --output runs.json",
        "python tools/benchmarks/runs.py --start-up --output start_up.json",
        "python tools/benchmarks/runs.py --runs baseline:quick --override data.num_train=900",
    ],
    FLAGS,
    "A run is measured from the start of its process to its end, including the report, with an empty "
    "compilation cache. Its images are simulated beforehand and timed separately. Results of each run:",
    {
        "seconds": "Total time.",
        "training_seconds": "Time of the training steps, including compilation.",
        "epochs_seconds": "The same with validation.",
        "images_per_second": "Training images, in the median epoch after the first.",
        "operations_per_second": "In training steps, by XLA's count before optimization.",
        "share_of_peak": "Fraction of the data sheet's peak for the precision; on a CPU, of the speed of a "
        "matrix product.",
        "validation, test": "AUC of each class and their mean, at the best epoch.",
        "peak_bytes": "Peak memory of the device.",
        "peak_resident_bytes": "Peak memory of the process.",
    },
    'With --start-up, "reached" is the call of the first training step and "done" its result; the "first" '
    'start has an empty compilation cache, and the "second" start finds the programs of the first. Images '
    "are simulated beforehand.",
    codes="Exit codes: 0 success; 1 a run failed; 2 invalid command, explained by the message.",
)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark.

    Returns:
      The exit code.

    Raises:
      UserError: if a flag, a config or a field is invalid.
    """
    values = parse_flags(FLAGS, arguments)
    is_start_up = values["start-up"]
    names = values["runs"] or (START_UPS if is_start_up else RUNS)
    commands = {name: command_of(name, values["override"]) for name in names}
    configs = {name: parse_config(words) for name, words in commands.items()}
    if values["folder"] and not is_start_up:
        check_new(Path(values["folder"]), names)
    output = Path(values["output"])
    output.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = run_checked("machine", []).result | {"override": values["override"]}
    log.info("%s, %s cores", report["device"], report["cores"])
    if is_start_up:
        report |= {"rounds": values["rounds"], "imports": measure_imports(values["rounds"])}
        report["start_up"] = {}
        for name, words in commands.items():
            report["start_up"][name] = measure_start_up(name, words, values["rounds"])
            write(output, report)
        return 0
    with contextlib.ExitStack() as temporary:
        folder = Path(values["folder"] or temporary.enter_context(tempfile.TemporaryDirectory()))
        cache = {CACHE_VARIABLE: temporary.enter_context(tempfile.TemporaryDirectory())}
        report |= {"limit": values["limit"], "images": [], "runs": {}}
        for name, words in commands.items():
            images = prepare_images(report["images"], configs[name], words, cache)
            log.info("\n%s", name)
            report["runs"][name] = measure_run(
                words, folder / folder_name(name), configs[name], images["train"], cache, values["limit"]
            )
            write(output, report)
            print_summary(name, report["runs"][name])
    return int(any(each["exit_code"] and not each["stopped"] for each in report["runs"].values()))


def command_of(name: str, overrides: Sequence[str]) -> list[str]:
    """Returns the arguments of `lensjax.main` for a run.

    Args:
      name: name of a config in configs/ or a file, optionally with a variant after a colon.
      overrides: fields of the config, as FIELD=VALUE.

    Raises:
      UserError: if an override has a different form.
    """
    file, colon, variant = name.partition(":")
    path = file if file.endswith(".py") else str(ROOT / "configs" / f"{file}.py")
    for each in overrides:
        if each.startswith("-") or not all(each.partition("=")):
            raise UserError(f"--override {each}: needs the form FIELD=VALUE, such as num_epochs=2")
    return ["--config", path + colon + variant, *(f"--config.{each}" for each in overrides)]


def parse_config(words: Sequence[str]) -> ConfigDict:
    """Loads the config of a run.

    Args:
      words: arguments of `lensjax.main`.

    Raises:
      UserError: if the config does not exist, a field or value is invalid, or there are several seeds.
    """
    config = options.parse(words).config
    assert config is not None
    if config.seeds > 1:
        raise UserError(f"config.seeds={config.seeds}: only single runs are measured; use seeds=1")
    return config


def folder_name(name: str) -> str:
    """Name of a run's folder, such as `baseline-fast` for `baseline:fast`."""
    return default_workdir(name).name


def check_new(folder: Path, names: Sequence[str]) -> None:
    """Checks that no run would resume from an existing folder: its measured time would be too short.

    Raises:
      UserError: if the folder of a run exists.
    """
    for name in names:
        if (folder / folder_name(name)).exists():
            raise UserError(
                f"{folder / folder_name(name)} exists, and the run would resume from it; use another --folder"
            )


@dataclasses.dataclass(frozen=True)
class ProcessResult:
    """A process that has ended.

    Attributes:
      code: exit code.
      stopped: whether it exceeded its time limit and was stopped.
      start, end: times, seconds since the epoch.
      result: the values that it wrote.
    """

    code: int
    stopped: bool
    start: float
    end: float
    result: dict[str, Any]


def run_process(
    function: str, words: Sequence[str], environment: Mapping[str, str], limit: float | None = None
) -> ProcessResult:
    """Runs a function of tools/benchmarks/measured_process.py in a new process.

    Args:
      function: name of the function.
      words: arguments of `lensjax.main`.
      environment: additional environment variables.
      limit: time after which the process is stopped, seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [
            sys.executable,
            str(ROOT / "tools" / "benchmarks" / "measured_process.py"),
            function,
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
        result = json.loads(file.read_text("utf-8")) if file.exists() else {}
        return ProcessResult(code, stopped, start, time.time(), result)


def run_checked(
    function: str, words: Sequence[str], environment: Mapping[str, str] | None = None
) -> ProcessResult:
    """Like `run_process`, for functions that must succeed.

    Raises:
      UserError: if the process fails; its output is above the error.
    """
    process = run_process(function, words, environment or {})
    if process.code:
        command = " ".join([function, *words])
        raise UserError(f"{command}: failed with exit code {process.code}, see above")
    return process


def measure_imports(rounds: int) -> dict[str, float]:
    """Median time of imports in new processes, seconds."""
    seconds: dict[str, list[float]] = {modules: [] for modules in IMPORTS}
    script = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    for _ in range(rounds):
        for modules in IMPORTS:
            command = [sys.executable, "-c", script.format(modules)]
            seconds[modules].append(float(subprocess.check_output(command, text=True)))
    medians = {modules: statistics.median(each) for modules, each in seconds.items()}
    log.info("%s", "\n".join(f"import {name}: {value:.2f} s" for name, value in medians.items()))
    return medians


def measure_start_up(name: str, words: Sequence[str], rounds: int) -> dict[str, dict[str, float]]:
    """Median time from the start of a run to its first step, seconds.

    Args:
      name: name of the run, for the log.
      words: arguments of `lensjax.main`.
      rounds: number of rounds.

    Returns:
      The times with an empty compilation cache ("first") and with a filled one ("second").
    """
    run_checked("images", words)
    seconds: dict[str, dict[str, list[float]]] = {start: {"reached": [], "done": []} for start in STARTS}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "compiled")} | CACHE_SETTINGS
            for start in STARTS:
                workdir_words = ["--workdir", str(Path(folder) / start)]
                process = run_checked("first_step", [*words, *workdir_words], cache)
                for event, each in seconds[start].items():
                    each.append(process.result[event] - process.start)
    medians = {
        start: {event: statistics.median(each) for event, each in events.items()}
        for start, events in seconds.items()
    }
    for start, events in medians.items():
        log.info(
            "%s, %s start: first step called after %.2f s, done after %.2f s",
            *(name, start, events["reached"], events["done"]),
        )
    return medians


def prepare_images(
    known: list[dict[str, Any]], config: ConfigDict, words: Sequence[str], cache: Mapping[str, str]
) -> dict[str, Any]:
    """Simulates the images of a run, unless an earlier run has the same images.

    Args:
      known: number of images and time of each earlier simulation; a new simulation is appended.
      config: the run's config.
      words: arguments of `lensjax.main`.
      cache: environment variables of the cache of images.

    Returns:
      The entry of `known` for this run.
    """
    data = config.data.to_dict()
    for each in known:
        if each["data"] == data:
            return each
    result = run_checked("images", words, cache).result
    number = result["train"] + result["validation"] + result["test"]
    log.info("%s images ready after %.1f s", f"{number:,}", result["seconds"])
    known.append({"data": data} | result)
    return known[-1]


def measure_run(
    words: Sequence[str],
    folder: Path,
    config: ConfigDict,
    num_train: int,
    cache: Mapping[str, str],
    limit: float | None,
) -> dict[str, Any]:
    """Measures a run from the start of its process to its end.

    Args:
      words: arguments of `lensjax.main`.
      folder: new folder of the run.
      config: config of the run.
      num_train: number of training images in an epoch.
      cache: environment variables of the cache of images.
      limit: time after which the run is stopped, seconds.
    """
    cost = run_checked("cost", words, cache).result
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**cache, "JAX_COMPILATION_CACHE_DIR": compiled, **CACHE_SETTINGS}
        process = run_process("run", [*words, "--workdir", str(folder)], environment, limit)
        if process.stopped and (folder / workdir.METRICS).exists() and process.code:
            evaluation = ["--mode", "evaluate", "--workdir", str(folder)]
            run_process("run", evaluation, environment)  # not measured
    return {
        "seconds": process.end - process.start,
        "exit_code": process.code,
        "stopped": process.stopped,
        "num_epochs": config.num_epochs,
        **read_results(folder, num_train, cost),
        "peak_bytes": process.result.get("peak_bytes"),
        "peak_resident_bytes": process.result.get("peak_resident_bytes"),
        "devices": cost["devices"],
    }


def read_results(folder: Path, num_train: int, cost: Mapping[str, float | None]) -> dict[str, Any]:
    """Reads the results of a run from its metrics and report.

    Args:
      folder: the run's folder.
      num_train: number of training images in an epoch.
      cost: "operations_per_image" of training, and "peak_operations_per_second" of the devices or None.
    """
    file = folder / workdir.METRICS
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    if not lines:
        return {"epochs": 0}
    records = [json.loads(line) for line in lines]
    rates = [record["images_per_second"] for record in records]
    rate = statistics.median(rates[1:] or rates)
    best = max(records, key=lambda record: record["validation_auc"])
    operations, peak = cost["operations_per_image"], cost["peak_operations_per_second"]
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
        "validation": auc_by_class(best, "validation_auc"),
        "test": test and auc_by_class(test, "auc"),
    }


def auc_by_class(metrics: Mapping[str, float], name: str) -> dict[str, float]:
    """AUC of each class, and their mean.

    Args:
      metrics: metrics by name.
      name: name of the mean; those of the classes are `NAME_CLASS`.
    """
    each = {label: metrics[f"{name}_{label}"] for label in CLASSES}
    return each | {"mean": metrics[name]}


def print_summary(name: str, results: Mapping[str, Any]) -> None:
    """Prints the main results of a run in two lines."""
    end = "stopped" if results["stopped"] else f"exit code {results['exit_code']}"
    log.info(
        "\n%s: %.1f s in total, %s after %d of %d epochs",
        *(name, results["seconds"], end, results["epochs"], results["num_epochs"]),
    )
    if not results["epochs"]:
        return
    share = results["share_of_peak"]
    test = results["test"]
    log.info(
        "  %.1f s of training steps, %.0f images/s, %.3g TFLOP/s%s; AUC: validation %.4f, test %s",
        *(results["training_seconds"], results["images_per_second"]),
        results["operations_per_second"] / 1e12,
        "" if share is None else f" ({100 * share:.2g} % of the peak)",
        results["validation"]["mean"],
        "unknown" if test is None else f"{test['mean']:.4f}",
    )


def write(output: Path, report: Mapping[str, Any]) -> None:
    """Writes the results of all runs so far."""
    workdir.write_atomically(output, encode_json(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="benchmark_runs"))
