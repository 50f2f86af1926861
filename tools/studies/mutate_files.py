"""Damages image files of every kind in seeded ways, and counts how many the readers handle correctly.

Each file is read in a separate process, so that crashes and hangs are counted as well. A trial passes if the
file is read, or rejected with one-line messages, in at most 2 seconds of CPU time and 200 rows. Run it in a
checkout:

    python tools/studies/mutate_files.py --number 10000 --output mutated.json
"""

import importlib
import json
import multiprocessing
import multiprocessing.connection
import pathlib
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lensjax.cli import runner
from lensjax.cli.flags import Flag, integer, parse_flags, random_seed, usage
from lensjax.runtime.host_memory import peak_memory

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests"))
SECONDS = 2.0
OUTCOMES = ("read", "rejected", "error", "hang", "crash")


FLAGS: dict[str, Flag] = {
    "number": integer("Number of damaged files; 2,000 if not given.", 2_000, 1),
    "seed": random_seed("of the damage"),
    "output": Flag("FILE", "Also write the table as JSON."),
}
USAGE = usage(
    "Damages image files of each kind, and reads them in a separate process.",
    ["python tools/studies/mutate_files.py --number 10000"],
    FLAGS,
)


def main(words: Sequence[str]) -> None:
    """Prints the table as Markdown, and writes it as JSON if requested."""
    options = types.SimpleNamespace(**parse_flags(FLAGS, words))
    counts, failures, peak = read_damaged_files(options.number, options.seed)
    lines = ["| file | damage | trials | passed | read |", "|---|---|---:|---:|---:|"]
    table = []
    for (name, kind), found in sorted(counts.items()):
        trials, passed = found.total(), found["read"] + found["rejected"]
        outcomes = {outcome: found[outcome] for outcome in OUTCOMES}
        table.append({"file": name, "damage": kind, "trials": trials, "passed": passed, **outcomes})
        lines.append(f"| {name} | {kind} | {trials} | {passed} | {found['read']} |")
    total = sum(counts.values(), Counter())
    passed = total["read"] + total["rejected"]
    lines.append(f"| all | all | {total.total()} | {passed} | {total['read']} |")
    content = {"seed": options.seed, "table": table, "failures": failures, "peak_mib": round(peak)}
    if options.output:
        pathlib.Path(options.output).write_text(json.dumps(content, indent=1) + "\n")
    print("\n".join(lines))
    print(f"\npeak memory of a reader: {peak:,.0f} MiB")
    for failure in failures:
        print(*failure)


def read_damaged_files(
    number: int, seed: int
) -> tuple[dict[tuple[str, str], Counter[str]], list[tuple[Any, ...]], float]:
    """Counts of outcomes by file and damage, failures with their seeds, and the peak memory, MiB."""
    files = importlib.import_module("helpers.fuzzed_files")
    damage = importlib.import_module("helpers.mutations")
    with tempfile.TemporaryDirectory() as folder:
        valid = files.valid_files(pathlib.Path(folder))
    pairs = [(name, kind) for name in valid for kind in damage.MUTATIONS]
    counts: dict[tuple[str, str], Counter[str]] = {pair: Counter() for pair in pairs}
    failures: list[tuple[Any, ...]] = []
    peak = 0.0
    worker, pipe = start_worker()
    for trial in range(number):
        name, kind = pairs[trial % len(pairs)]
        pipe.send((name, damage.mutate(valid[name], kind, seed + trial)))
        outcome, detail = "crash", ""
        try:
            if pipe.poll(30):
                outcome, detail, memory = pipe.recv()
                peak = max(peak, memory)
            else:
                outcome = "hang"
        except EOFError:
            pass
        counts[name, kind][outcome] += 1
        if outcome not in ("read", "rejected"):
            failures.append((name, kind, seed + trial, outcome, detail))
        if not detail:  # the process does not answer
            worker.kill()
            worker, pipe = start_worker()
    pipe.close()
    worker.join()
    return counts, failures, peak


def start_worker() -> tuple[Any, multiprocessing.connection.Connection]:
    """A process that reads the files that are sent to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    worker = context.Process(target=read_files, args=(there,), daemon=True)
    worker.start()
    there.close()
    return worker, here


def read_files(pipe: multiprocessing.connection.Connection) -> None:
    """Reads files and sends the outcome, a detail and the peak memory, MiB, of each."""
    survive = importlib.import_module("helpers.fuzzed_files").survive
    while True:
        try:
            name, content = pipe.recv()
        except EOFError:
            return
        start = time.process_time()
        try:
            outcome, detail = survive(name, content), "ok"
        except Exception as error:
            outcome, detail = "error", f"{type(error).__name__}: {error}"[:300]
        if time.process_time() - start > SECONDS:
            outcome, detail = "hang", f"{time.process_time() - start:.1f} s"
        pipe.send((outcome, detail, peak_memory() / 2**20))


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="mutate_files"))
