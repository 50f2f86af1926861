"""Stops training runs at random times, and compares them with runs that were never stopped.

    python tools/studies/kill_runs.py --kills 24
    python tools/studies/kill_runs.py --kills 6 --signal INT --recipe "two seeds"

Each run trains a tiny classifier, is stopped up to four times, and is then finished. A command that ends
before the signal does not count as a trial. A run passes if `lensjax verify` finds no damage after each stop,
and if its final metrics and the SHA-256 of its best model and of its complete training state equal those of
the run that was never stopped. SIGINT and SIGTERM must also result in their exit code and one error line. The
result is printed as a Markdown table and as JSON.
"""

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensjax import workdir
from lensjax.cli import runner
from lensjax.cli.flags import Flag, integer, parse_flags, random_seed, usage
from lensjax.cli.verify import check
from lensjax.config import check_choice
from lensjax.training import checkpoint_files as files

SIZE = 32
TINY = {
    "data.image_size": SIZE,
    "model.name": "lens_fit_net",
    "model.num_blocks": 0,
    "model.width": 4,
    "batch_size": 8,
    "eval_batch_size": 8,
    "num_epochs": 6,
    "optimizer.learning_rate": 3e-3,
}
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "moving average, accumulated gradients": {
        "optimizer.ema_decay": 0.9,
        "optimizer.accumulate_steps": 2,
        "augmentation.max_shift": 2,
    },
    "a checkpoint after each step": {"checkpoint_minutes": 1e-9, "num_epochs": 3},
    "two seeds": {"seeds": 2, "num_epochs": 3},
}
STOPS_PER_RUN = 4


FLAGS: dict[str, Flag] = {
    "kills": integer("Number of stops over all recipes; 24 if not given.", 24, 1),
    "signal": Flag("NAME", "KILL, INT or TERM; KILL if not given."),
    "recipe": Flag("NAME", f"Recipe: {'; '.join(RECIPES)}. All of them if not given."),
    "seed": random_seed("of the random times"),
}
USAGE = usage(
    "Stops training runs at random times, and compares the finished runs with uninterrupted ones.",
    ["python tools/studies/kill_runs.py --kills 24"],
    FLAGS,
)


def main(words: Sequence[str]) -> None:
    """Runs the study and prints its result."""
    arguments = types.SimpleNamespace(**parse_flags(FLAGS, words))
    chosen = arguments.signal or "KILL"
    check_choice("--signal", chosen, ("KILL", "INT", "TERM"))
    if arguments.recipe:
        check_choice("--recipe", arguments.recipe, RECIPES)
    recipes = {arguments.recipe: RECIPES[arguments.recipe]} if arguments.recipe else RECIPES
    with tempfile.TemporaryDirectory() as folder:
        rows = stop_runs(Path(folder), recipes, arguments.kills, chosen, random.Random(arguments.seed))
    print_table(rows)


def stop_runs(
    folder: Path, recipes: Mapping[str, dict[str, Any]], number: int, name: str, generator: random.Random
) -> list[dict[str, Any]]:
    """Stops runs of each recipe.

    Args:
      folder: an empty folder.
      recipes: changed fields of the config of each recipe.
      number: total number of stops.
      name: name of the signal, without SIG.
      generator: generator of the random times.

    Returns:
      The rows of the table.
    """
    write_images(folder / "data" / "train", 12, 0)
    write_images(folder / "data" / "val", 4, 1)
    rows = []
    for index, (recipe, changes) in enumerate(recipes.items()):
        share = number // len(recipes) + (index < number % len(recipes))
        runs = folder / str(index)
        started = time.monotonic()
        finish(command(folder, runs / "uninterrupted", changes))
        duration = time.monotonic() - started
        expected = fingerprint(runs / "uninterrupted")
        stopped, passed, problems, run = 0, 0, [], 0
        while stopped < share:
            one = runs / f"run{run}"
            run += 1
            found, stops = [], 0
            while stops < min(STOPS_PER_RUN, share - stopped):
                ended, new = stop_once(
                    command(folder, one, changes), one, name, generator.uniform(0, duration)
                )
                found += new
                if ended:
                    break
                stops += 1
            stopped += stops
            finish(command(folder, one, changes))
            if (results := fingerprint(one)) != expected:
                found.append(f"{results} differs from the run that was never stopped, {expected}")
            passed += max(0, stops - len(found))
            problems += found
        row = {"fault": f"SIG{name}, {recipe}", "trials": stopped, "passed": passed, "problems": problems}
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def command(folder: Path, run: Path, changes: dict[str, Any]) -> list[str]:
    """The command that trains a run, or resumes it."""
    settings = TINY | changes | {"data.source": folder / "data"}
    words = [f"--config.{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "lensjax.main", "--config", "baseline", "--workdir", str(run), *words]


def finish(words: list[str]) -> None:
    """Runs a command to its end."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")


def stop_once(words: list[str], run: Path, name: str, seconds: float) -> tuple[bool, list[str]]:
    """Starts a command and stops it after some time.

    Args:
      words: the command.
      run: the folder of its run.
      name: name of the signal, without SIG.
      seconds: time from start to signal.

    Returns:
      Whether the command ended before the signal, and the problems found.
    """
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(getattr(signal, f"SIG{name}"))
    _, errors = process.communicate()
    problems = []
    ended = process.returncode == 0
    lines = errors.strip().splitlines()
    number = getattr(signal, f"SIG{name}")
    # Outside training, SIGTERM has its usual effect.
    allowed = {"KILL": (-9, 0), "INT": (130, 0), "TERM": (143, -15, 0)}[name]
    if process.returncode not in allowed or len(lines) != (process.returncode == 128 + number):
        problems.append(f"exit code {process.returncode} after {seconds:.2f} s: {' / '.join(lines[-3:])}")
    if run.is_dir() and (run / workdir.CONFIG).exists():
        problems += [f"{each.path}: {each.text}" for each in check(run) if each.damaged]
    return ended, problems


def fingerprint(run: Path) -> dict[str, Any]:
    """Metrics without times, and the SHA-256 of the items of each checkpoint, of all runs in a folder."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob(workdir.METRICS)):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        timeless = [{key: row[key] for key in row if "second" not in key} for row in records]
        checkpoints = path.parent / workdir.CHECKPOINTS
        digests = {
            step: files.read_progress(checkpoints / str(step))[1] for step in files.list_steps(checkpoints)
        }
        found[str(path.relative_to(run))] = timeless, digests
    return found


def write_images(folder: Path, per_class: int, seed: int) -> None:
    """Writes noise images with a bright bar whose position depends on the class."""
    generator = np.random.default_rng(seed)
    for label, name in enumerate(("no", "sphere", "vort")):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            counts = generator.poisson(20, (SIZE, SIZE)).astype(float)
            counts[8 + 6 * label] += 20
            counts -= counts.min()
            np.save(folder / name / f"{index}.npy", (counts / counts.max())[None])


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints the rows as a Markdown table and as JSON."""
    print("| fault | trials | passed |\n|---|---|---|")
    for row in rows:
        print(f"| {row['fault']} | {row['trials']} | {row['passed']} |")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="kill_runs"))
