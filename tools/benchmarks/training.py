"""Times training and inference beside PyTorch, in turns in one run, and prints the ratios.

  python tools/benchmarks/training.py --output docs/benchmarks/training.json

  --models NAME,..   baseline, pinn, lens_fit (baseline,pinn if not given)
  --batches N,..     images in a step (32,256 if not given)
  --images N         images in a round (256 if not given; 4096 on a GPU)
  --rounds N         rounds; medians count (3 if not given)
  --alone            one contestant after the other, where memory does not hold all of them
  --against DIR      another checkout of lensjax in place of PyTorch, to compare two commits
  --compile          torch.compile for the best PyTorch on a CPU too
  --output FILE      also write the figures as JSON
  --growth FILE      instead, how lensjax's cost grows with batch, image size and number of
                     devices (of a CPU: as many as are asked for, on the same cores): a figure,
                     with the numbers in FILE.json

Full-size models on 150-pixel images. Contestants, each in a process of its own:
  lensjax               as `lensjax.main` trains on this device, float32
  lensjax bfloat16      the same in bfloat16 (GPUs only)
  PyTorch, reference    the reference's loop: eager float32, .npy files read by a DataLoader
                        of 4 workers, rotation, AdamW, .item() of the loss in every step
  PyTorch, best         images on the device, channels last, memory kept between steps as
                        lensjax does; on a GPU torch.compile, TF32 and bfloat16 by autocast
Jobs: training steps, inference, and an epoch with the validation of a quarter as many images
and its AUC. The time to the first step begins with the process; of lensjax it is also given
for the second start, when the compiled step is in the cache.
Exit codes: 0 done; 2 something in the command is wrong.
"""

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from matplotlib.figure import Figure

from lensjax.cli import runner
from lensjax.errors import UserError
from lensjax.runtime.progress import log

ROOT = Path(__file__).parent.parent.parent
CONTESTANTS = "tools/benchmarks/training_contestants.py"
MODELS = ("baseline", "pinn", "lens_fit")
JOBS = ("train", "infer", "epoch")
PACKAGES = ("jax", "flax", "optax", "torch", "numpy")
DEFAULTS: dict[str, Any] = {"size": 150, "devices": 1, "compile": False}
GROWTH = {
    "batch": (4, 8, 16, 32, 64, 128),
    "size": (64, 100, 150, 200, 300),
    "devices": (1, 2, 4),
}
COLORS = {"baseline": "#0072B2", "pinn": "#D55E00", "lens_fit": "#009E73"}


def main(arguments: Sequence[str]) -> None:
    """Runs the comparison.

    Raises:
      UserError: a flag is wrong.
    """
    values = flags.FlagValues()
    flags.DEFINE_list("models", ["baseline", "pinn"], "", flag_values=values)
    flags.DEFINE_list("batches", ["32", "256"], "", flag_values=values)
    flags.DEFINE_integer("images", None, "", lower_bound=32, flag_values=values)
    flags.DEFINE_integer("rounds", 3, "", lower_bound=1, flag_values=values)
    for name in ("compile", "alone"):
        flags.DEFINE_boolean(name, False, "", flag_values=values)
    flags.DEFINE_string("output", None, "", flag_values=values)
    for name in ("growth", "against"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    runner.read_flags(values, arguments)
    for name in values.models:
        if name not in MODELS:
            raise UserError(f"--models {name}: not one of {', '.join(MODELS)}")
    if not all(text.isdigit() and int(text) for text in values.batches):
        raise UserError(f"--batches {','.join(values.batches)}: not numbers of images")
    roots = {}
    if values.against:
        other = Path(values.against).resolve()
        if not (other / CONTESTANTS).is_file():
            raise UserError(f"--against {values.against}: not a checkout of lensjax")
        roots[f"lensjax at {commit_of(other)}"] = str(other)
    # Contestants share a GPU: none may take most of its memory beforehand, nor this process.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    number = values.images or (256 if on_cpu else 4096)
    figures: dict[str, Any] = about(device) | {"images": number, "rounds": values.rounds}
    figures["alone"] = values.alone
    log.info("%s, %d cores", figures["device"], os.cpu_count() or 1)
    if values.growth:
        grow(figures, values.models, values.rounds, Path(values.growth))
        return
    figures["results"] = []
    for model in values.models:
        for batch in map(int, values.batches):
            log.info("\n%s, batch %d", model, batch)
            task = DEFAULTS | {"model": model, "batch": batch, "images": max(number, batch)}
            task["compile"] = values.compile or not on_cpu
            names = ["lensjax", *roots] if roots else contestants(model, on_cpu)
            task["roots"] = roots
            found = compared(task, names, values.rounds, alone=values.alone)
            show(found)
            figures["results"].append({"model": model, "batch": batch, "contestants": found})
            if values.output:  # after each, so that what was measured is not lost
                Path(values.output).parent.mkdir(parents=True, exist_ok=True)
                Path(values.output).write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def about(device: jax.Device) -> dict[str, Any]:
    """The machine, the versions and the commit."""
    return {
        "device": processor() if device.platform == "cpu" else device.device_kind,
        "cores": os.cpu_count(),
        "date": datetime.date.today().isoformat(),
        "commit": commit_of(ROOT) or "unknown",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def commit_of(checkout: Path) -> str:
    """The commit of a checkout."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def processor() -> str:
    """The processor's name."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text("utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def contestants(model: str, on_cpu: bool) -> list[str]:
    """Who takes part."""
    ours = ["lensjax"] if on_cpu else ["lensjax", "lensjax bfloat16"]
    if model == "lens_fit" or version("torch") is None:
        return ours
    return [*ours, "PyTorch, reference", "PyTorch, best"]


@dataclasses.dataclass
class Worker:
    """A contestant's process.

    Attributes:
      process: started.
      first_step: seconds from its start to the end of its first step.
    """

    process: subprocess.Popen[str]
    first_step: float

    @classmethod
    def start(cls, task: dict[str, Any], cache: str) -> "Worker":
        """Starts it and waits for its first step."""
        settings = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",  # as lensjax has it
            "JAX_NUM_CPU_DEVICES": str(task["devices"]),
        }
        if task["devices"] > 1:  # XLA's CPU client hangs with fewer threads; alone they only cost
            settings["NPROC"] = "16"
        root = Path(task.get("roots", {}).get(task["contestant"], ROOT))
        settings["PYTHONPATH"] = str(root)
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(root / CONTESTANTS)],
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
        """What it answers to a line.

        Raises:
          RuntimeError: it died.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a contestant died at {line!r}, code {self.process.wait()}")
        return json.loads(answer)

    def end(self) -> int:
        """Ends it; its peak memory, bytes."""
        peak = self.ask("end")["peak_bytes"]
        self.process.wait()
        return peak


def compared(
    task: dict[str, Any], names: list[str], rounds: int, *, alone: bool
) -> dict[str, dict[str, Any]]:
    """Medians of what each contestant does in a second, its first step and its peak memory."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    seconds: dict[tuple[str, str], list[float]] = {
        (job, name): [] for job in JOBS for name in names
    }
    with tempfile.TemporaryDirectory() as cache:
        for together in [[name] for name in names] if alone else [names]:
            try:
                measure(task, together, rounds, cache, found, seconds)
            except RuntimeError as error:  # killed for lack of memory, as a rule
                if not alone:
                    raise
                log.warning("  %s: %s", together[0], error)
                found[together[0]] = {"died": str(error)}
    alive = [name for name in names if "died" not in found[name]]
    for name in alive:
        for job in JOBS:
            each, ours = seconds[job, name], seconds[job, alive[0]]
            found[name][f"{job}_images_per_second"] = task["images"] / statistics.median(each)
            # Of turns side by side, since the machine's other load comes and goes.
            ratios = [other / mine for mine, other in zip(ours, each, strict=True)]
            found[name][f"{job}_times_{alive[0]}"] = statistics.median(ratios)
    return found


def measure(
    task: dict[str, Any],
    names: list[str],
    rounds: int,
    cache: str,
    found: dict[str, dict[str, Any]],
    seconds: dict[tuple[str, str], list[float]],
) -> None:
    """Has contestants do every job in turns; adds their first steps, seconds and peak memory."""
    workers = {}
    for name in names:
        if name.startswith("lensjax"):
            cold = Worker.start(task | {"contestant": name}, cache)
            cold.end()
            found[name]["first_step_seconds_empty_cache"] = cold.first_step
        workers[name] = Worker.start(task | {"contestant": name}, cache)
        found[name]["first_step_seconds"] = workers[name].first_step
    for worker in workers.values():
        worker.ask("warm")
    for job in JOBS:
        for _ in range(rounds):
            for name, worker in workers.items():
                seconds[job, name].append(worker.ask(job)["seconds"])
    for name, worker in workers.items():
        found[name]["peak_bytes"] = worker.end()


def grow(figures: dict[str, Any], models: list[str], rounds: int, path: Path) -> None:
    """Measures lensjax's steps one setting after another, draws and writes what it found."""
    figures["growth"] = []
    for model in models:
        for what, settings in GROWTH.items():
            for setting in settings:
                task = DEFAULTS | {"model": model, "batch": 32, what: setting}
                task |= {"contestant": "lensjax", "images": 2 * task["batch"]}
                with tempfile.TemporaryDirectory() as cache:
                    worker = Worker.start(task, cache)
                    seconds = [worker.ask("train")["seconds"] for _ in range(rounds)]
                    peak = worker.end()
                rate = task["images"] / statistics.median(seconds)
                found = {"images_per_second": rate, "peak_bytes": peak}
                figures["growth"].append({"model": model, "what": what, "at": setting} | found)
                log.info(
                    "%s, %s %d: %.1f images/s, %.2f GB", model, what, setting, rate, peak / 1e9
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                Path(f"{path}.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    draw_growth(figures["growth"], figures["device"]).savefig(path, dpi=144)


def draw_growth(found: list[dict[str, Any]], device: str) -> Figure:
    """Images a second above, peak memory below; a column for each thing that grows."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    names = {
        "batch": "images in a step",
        "size": "side of an image, pixels",
        "devices": "devices, on the same cores",
    }
    for row, (value, unit, label) in enumerate(
        (("images_per_second", 1.0, "training images a second"), ("peak_bytes", 1e9, "memory, GB"))
    ):
        for column, (what, title) in enumerate(names.items()):
            axes = figure.add_subplot(2, 3, 3 * row + column + 1)
            axes.set_xscale("log")
            for model, color in COLORS.items():
                points = [each for each in found if (each["model"], each["what"]) == (model, what)]
                if points:
                    places = [each["at"] for each in points]
                    heights = [each[value] / unit for each in points]
                    axes.plot(places, heights, ".-", color=color, label=model)
                    axes.set_xticks(places, [str(place) for place in places])
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


def show(found: dict[str, dict[str, Any]]) -> None:
    """Prints a table."""
    log.info("%20s %17s %17s %17s %10s %6s", "", *(f"{job}, img/s" for job in JOBS), "first", "GB")
    alive = {name: values for name, values in found.items() if "died" not in values}
    for name, values in alive.items():
        ours = next(iter(alive))
        cells = [
            f"{values[f'{job}_images_per_second']:8.1f} ({values[f'{job}_times_{ours}']:5.2f})"
            for job in JOBS
        ]
        first = f"{values['first_step_seconds']:.1f} s"
        gigabytes = f"{values['peak_bytes'] / 1e9:.2f}"
        log.info("%20s %17s %17s %17s %10s %6s", name, *cells, first, gigabytes)
    log.info("(in brackets: the time it takes, as a multiple of the first one's)")


def run() -> int:
    """Runs the command and gives its exit code."""
    return runner.run(main, __doc__, name="benchmark_training")


if __name__ == "__main__":
    sys.exit(run())
