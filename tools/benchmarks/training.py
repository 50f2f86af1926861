"""Compares the speed of training and inference with that of PyTorch, and prints the ratios."""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from lensjax.cli import runner
from lensjax.cli.flags import Flag, comma_list, integer, parse_flags, switch, usage
from lensjax.errors import UserError
from lensjax.json_text import encode_json
from lensjax.runtime.progress import log

FLAGS = {
    "models": comma_list("baseline, pinn, lens_fit; baseline,pinn if not given.", ["baseline", "pinn"]),
    "batches": comma_list("Images per step; 32,256 if not given.", ["32", "256"], value="N,.."),
    "contestants": comma_list("Contestants, by the names below; all if not given.", []),
    "images": integer("Images per round; if not given, 256, or 4,096 on a GPU.", None, 32),
    "rounds": integer("Number of rounds; results are medians. 3 if not given.", 3, 1),
    "alone": switch("Run one contestant after another, if they do not fit in memory together."),
    "cache": Flag(
        "FOLDER",
        "Folder of compiled programs that later runs reuse. The time to the first step with an empty cache "
        "is then not measured.",
    ),
    "against": Flag("FOLDER", "Compare with another checkout of lensjax instead of PyTorch."),
    "compile": switch('Use torch.compile for "PyTorch best" on a CPU too.'),
    "output": Flag("FILE", "Also write the results as JSON."),
    "growth": Flag(
        "FILE",
        "Measure instead how the cost of lensjax grows with batch size, image size and number of devices "
        "(CPU devices share the same cores); writes a figure, and the numbers to FILE.json.",
    ),
}
USAGE = usage(
    "Compares the speed of training and inference with that of PyTorch, and prints the ratios.",
    ["python tools/benchmarks/training.py --output docs/benchmarks/training.json"],
    FLAGS,
    "Full-size models on 150-pixel images. Contestants, each in its own process:",
    {
        "lensjax": "As lensjax.main trains on this device, float32.",
        "lensjax bfloat16": "The same in bfloat16 (GPUs only).",
        "PyTorch reference": "The reference's loop: eager float32, .npy files read by a DataLoader with 4 "
        "workers, rotation, AdamW, .item() of the loss in every step.",
        "PyTorch best": "Images on the device, channels last, memory kept between steps as in lensjax; on a "
        "GPU torch.compile, TF32 and bfloat16 autocast.",
    },
    "Jobs: training steps, inference, and an epoch that includes the validation of a quarter as many images "
    "and its AUC. The contestants take turns. The time to the first step is measured from the start of the "
    "process; for lensjax with an empty and with a filled compilation cache.",
)
ROOT = Path(__file__).parent.parent.parent
# The second path is that of commits before tools/benchmarks/ existed.
CONTESTANTS = ("tools/benchmarks/training_contestants.py", "tools/training_contestants.py")
NAMES = ("lensjax", "lensjax bfloat16", "PyTorch reference", "PyTorch best")
MODELS = ("baseline", "pinn", "lens_fit")
JOBS = ("train", "infer", "epoch")
PACKAGES = ("jax", "flax", "optax", "torch", "numpy")
DEFAULTS: dict[str, Any] = {"size": 150, "devices": 1, "compile": False, "cache": None}
GROWTH = {"batch": (4, 8, 16, 32, 64, 128), "size": (64, 100, 150, 200, 300), "devices": (1, 2, 4)}
COLORS = {"baseline": "#0072B2", "pinn": "#D55E00", "lens_fit": "#009E73"}


def main(arguments: Sequence[str]) -> None:
    """Runs the benchmark.

    Raises:
      UserError: if a flag is invalid.
    """
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    for name in values.models:
        if name not in MODELS:
            raise UserError(f"--models {name}: not one of {', '.join(MODELS)}")
    for name in values.contestants:
        if name not in NAMES:
            raise UserError(f"--contestants {name}: not one of {', '.join(NAMES)}")
    if not all(text.isdigit() and int(text) for text in values.batches):
        raise UserError(f"--batches {','.join(values.batches)}: expected positive integers")
    roots = {}
    if values.against:
        other = Path(values.against).resolve()
        if contestants_file(other) is None:
            raise UserError(f"--against {values.against}: not a checkout of lensjax")
        roots[f"lensjax at {describe_commit(other)}"] = str(other)
    # The processes share a GPU, so none may preallocate its memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    number = values.images or (256 if on_cpu else 4096)
    report: dict[str, Any] = describe_machine(device) | {"images": number, "rounds": values.rounds}
    report |= {"alone": values.alone, "cache": values.cache is not None}
    log.info("%s, %d cores", report["device"], os.cpu_count() or 1)
    if values.growth:
        measure_growth(report, values.models, values.rounds, Path(values.growth))
        return
    report["results"] = []
    for model in values.models:
        for batch in map(int, values.batches):
            log.info("\n%s, batch %d", model, batch)
            task = DEFAULTS | {"model": model, "batch": batch, "images": max(number, batch)}
            task["compile"] = values.compile or not on_cpu
            names = ["lensjax", *roots] if roots else contestant_names(model, on_cpu)
            names = [name for name in names if not values.contestants or name in values.contestants]
            task |= {"roots": roots, "cache": values.cache}
            results = compare(task, names, values.rounds, alone=values.alone)
            print_table(results)
            report["results"].append({"model": model, "batch": batch, "contestants": results})
            if values.output:  # written after each result, so that none is lost if the benchmark is aborted
                Path(values.output).parent.mkdir(parents=True, exist_ok=True)
                Path(values.output).write_text(encode_json(report, indent=1) + "\n", "utf-8")


def contestants_file(checkout: Path) -> Path | None:
    """Program of the contestants in a checkout; None if there is none."""
    return next((checkout / path for path in CONTESTANTS if (checkout / path).is_file()), None)


def describe_machine(device: jax.Device) -> dict[str, Any]:
    """Machine, versions and commit."""
    return {
        "device": processor_name() if device.platform == "cpu" else device.device_kind,
        "cores": os.cpu_count(),
        "date": datetime.date.today().isoformat(),
        "commit": describe_commit(ROOT) or "unknown",
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
    }


def describe_commit(checkout: Path) -> str:
    """Commit of a checkout from `git describe`; empty if there is none."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def processor_name() -> str:
    """Name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def package_version(package: str) -> str | None:
    """Version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def contestant_names(model: str, on_cpu: bool) -> list[str]:
    """Names of the contestants on this machine."""
    names = ["lensjax"] if on_cpu else ["lensjax", "lensjax bfloat16"]
    if model == "lens_fit" or package_version("torch") is None:
        return names
    return [*names, "PyTorch reference", "PyTorch best"]


@dataclasses.dataclass
class Worker:
    """The process of a contestant.

    Attributes:
      process: the running process.
      first_step: time from the start of the process to the end of its first step, seconds.
    """

    process: subprocess.Popen[str]
    first_step: float

    @classmethod
    def start(cls, task: dict[str, Any], cache: str) -> "Worker":
        """Starts a process and waits for its first step.

        Args:
          task: model, sizes and contestant, representable in JSON.
          cache: folder of compiled programs.
        """
        settings = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",  # as in lensjax
            "JAX_NUM_CPU_DEVICES": str(task["devices"]),
        }
        if task["devices"] > 1:  # XLA's CPU client deadlocks with fewer threads than devices
            settings["NPROC"] = "16"
        root = Path(task.get("roots", {}).get(task["contestant"], ROOT))
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(contestants_file(root))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | settings,
        )
        worker = cls(process, 0.0)
        worker.ask(json.dumps(task))
        worker.first_step = time.perf_counter() - started
        return worker

    def ask(self, line: str) -> dict[str, Any]:
        """Sends a line to the process and returns its reply.

        Raises:
          RuntimeError: if the process died.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a contestant died at {line!r}, code {self.process.wait()}")
        return json.loads(answer)

    def stop(self) -> int:
        """Stops the process and returns its peak memory, bytes."""
        peak = self.ask("end")["peak_bytes"]
        self.process.wait()
        return peak


def compare(task: dict[str, Any], names: list[str], rounds: int, *, alone: bool) -> dict[str, dict[str, Any]]:
    """Results of each contestant: median speeds, time to the first step and peak memory.

    Args:
      task: model and sizes.
      names: the contestants.
      rounds: number of rounds.
      alone: whether to run one contestant after another.
    """
    results: dict[str, dict[str, Any]] = {name: {} for name in names}
    seconds: dict[tuple[str, str], list[float]] = {(job, name): [] for job in JOBS for name in names}
    with tempfile.TemporaryDirectory() as empty:
        cache = task["cache"] or empty
        for together in [[name] for name in names] if alone else [names]:
            try:
                measure(task, together, rounds, cache, results, seconds)
            except RuntimeError as error:  # usually out of memory
                if not alone:
                    raise
                log.warning("  %s: %s", together[0], error)
                results[together[0]] = {"died": str(error)}
    alive = [name for name in names if "died" not in results[name]]
    for name in alive:
        for job in JOBS:
            each, first = seconds[job, name], seconds[job, alive[0]]
            results[name][f"{job}_images_per_second"] = task["images"] / statistics.median(each)
            # Ratios are taken within a round, because the other load on the machine varies.
            ratios = [other / one for one, other in zip(first, each, strict=True)]
            results[name][f"{job}_times_{alive[0]}"] = statistics.median(ratios)
    return results


def measure(
    task: dict[str, Any],
    names: list[str],
    rounds: int,
    cache: str,
    results: dict[str, dict[str, Any]],
    seconds: dict[tuple[str, str], list[float]],
) -> None:
    """Runs every job; the contestants take turns.

    Args:
      task, names, rounds: see `compare`.
      cache: folder of compiled programs.
      results: receives the times to the first step and the peak memory.
      seconds: receives the time of each job.
    """
    workers = {}
    for name in names:
        if name.startswith("lensjax") and not task["cache"]:
            cold = Worker.start(task | {"contestant": name}, cache)
            cold.stop()
            results[name]["first_step_seconds_empty_cache"] = cold.first_step
        workers[name] = Worker.start(task | {"contestant": name}, cache)
        results[name]["first_step_seconds"] = workers[name].first_step
    for worker in workers.values():
        worker.ask("warm")
    for job in JOBS:
        for _ in range(rounds):
            for name, worker in workers.items():
                seconds[job, name].append(worker.ask(job)["seconds"])
    for name, worker in workers.items():
        results[name]["peak_bytes"] = worker.stop()


def measure_growth(report: dict[str, Any], models: list[str], rounds: int, path: Path) -> None:
    """Measures lensjax's steps for each setting in `GROWTH`; writes a figure and its numbers.

    Args:
      report: description of the machine; receives the results.
      models: names of the models.
      rounds: number of rounds.
      path: file of the figure.
    """
    report["growth"] = []
    for model in models:
        for what, settings in GROWTH.items():
            for setting in settings:
                task = DEFAULTS | {"model": model, "batch": 32, what: setting}
                task |= {"contestant": "lensjax", "images": 2 * task["batch"]}
                with tempfile.TemporaryDirectory() as cache:
                    worker = Worker.start(task, cache)
                    seconds = [worker.ask("train")["seconds"] for _ in range(rounds)]
                    peak = worker.stop()
                rate = task["images"] / statistics.median(seconds)
                result = {"images_per_second": rate, "peak_bytes": peak}
                report["growth"].append({"model": model, "what": what, "at": setting} | result)
                log.info("%s, %s %d: %.1f images/s, %.2f GB", model, what, setting, rate, peak / 1e9)
                path.parent.mkdir(parents=True, exist_ok=True)
                Path(f"{path}.json").write_text(encode_json(report, indent=1) + "\n", "utf-8")
    draw_growth(report["growth"], report["device"]).savefig(path, dpi=144)


def draw_growth(results: list[dict[str, Any]], device: str) -> Figure:
    """Figure of images per second (above) and peak memory (below), one column per varied setting."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    names = {
        "batch": "images per step",
        "size": "side of an image, pixels",
        "devices": "devices, on the same cores",
    }
    for row, (value, unit, label) in enumerate(
        (("images_per_second", 1.0, "training images per second"), ("peak_bytes", 1e9, "memory, GB"))
    ):
        for column, (what, title) in enumerate(names.items()):
            axes = figure.add_subplot(2, 3, 3 * row + column + 1)
            axes.set_xscale("log")
            for model, color in COLORS.items():
                points = [each for each in results if (each["model"], each["what"]) == (model, what)]
                if points:
                    x = [each["at"] for each in points]
                    y = [each[value] / unit for each in points]
                    axes.plot(x, y, ".-", color=color, label=model)
                    axes.set_xticks(x, [str(setting) for setting in x])
                    axes.set_xticks([], minor=True)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.2)
            if row:
                axes.set_xlabel(title)
            if not column:
                axes.set_ylabel(label)
    figure.axes[0].legend(frameon=False)
    figure.suptitle(device, fontsize=9)
    return figure


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """Prints the results as a table."""
    log.info("%20s %17s %17s %17s %10s %6s", "", *(f"{job}, img/s" for job in JOBS), "first", "GB")
    alive = {name: values for name, values in results.items() if "died" not in values}
    for name, values in alive.items():
        reference = next(iter(alive))
        cells = [
            f"{values[f'{job}_images_per_second']:8.1f} ({values[f'{job}_times_{reference}']:5.2f})"
            for job in JOBS
        ]
        first = f"{values['first_step_seconds']:.1f} s"
        gigabytes = f"{values['peak_bytes'] / 1e9:.2f}"
        log.info("%20s %17s %17s %17s %10s %6s", name, *cells, first, gigabytes)
    log.info("(in parentheses: time relative to the first row)")


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="benchmark_training"))
