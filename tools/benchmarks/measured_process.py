"""One process of tools/benchmarks/runs.py; not meant to be started by hand.

  python tools/benchmarks/measured_process.py WHAT FILE WORD ...

WHAT is one of the functions below, FILE gets what it found, as JSON, and the words are those of
`lensjax.main`.
"""

import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Nothing else is imported before it is needed: `first_step` times the imports of a run too.

Write = Callable[[dict[str, Any]], None]


def machine(words: list[str], write: Write) -> int:
    """The machine, the versions and the commit."""
    import jax

    write(importlib.import_module("training").about(jax.local_devices()[0]))
    return 0


def images(words: list[str], write: Write) -> int:
    """How many images a run has, and the seconds until they were there."""
    from lensjax.cli.console import terminal_output
    from lensjax.data.source import load_splits
    from lensjax.runtime.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    config = _config(words)
    started = time.perf_counter()
    with terminal_output():
        splits = load_splits(config.data)
    seconds = time.perf_counter() - started
    sizes = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
    write(sizes | {"seconds": seconds})
    return 0


def cost(words: list[str], write: Write) -> int:
    """Operations of a training image, and the most of them that the device is said to do in a second."""
    import jax

    from lensjax.training import cost, processes

    config = _config(words)
    devices = processes.all_devices()
    peak = cost.peak_flops(devices[0], config.precision)
    several = 1 if devices[0].platform == "cpu" else len(devices)
    write(
        {
            "operations_per_image": cost.step_flops(config) / config.batch_size,
            "peak_operations_per_second": peak and peak * several,
            "devices": jax.device_count(),
        }
    )
    return 0


def first_step(words: list[str], write: Write) -> int:
    """When a run called its first training step and when that was done; the run ends there."""
    import jax

    from lensjax.training import loop

    parallelize_step = loop.parallelize_step

    def parallelize_first_step(*arguments: Any, **options: Any) -> Any:
        step = parallelize_step(*arguments, **options)

        def first(*arguments: Any) -> Any:
            reached = time.time()
            jax.block_until_ready(step(*arguments))
            write({"reached": reached, "done": time.time()})
            sys.stdout.flush()
            os._exit(0)

        return first

    loop.parallelize_step = parallelize_first_step
    return _main(words)


def run(words: list[str], write: Write) -> int:
    """A whole run, and its peak memory."""
    code = _main(words)
    import jax

    statistics = jax.local_devices()[0].memory_stats() or {}
    resident = importlib.import_module("training_contestants").resident_bytes()
    write({"peak_bytes": statistics.get("peak_bytes_in_use"), "peak_resident_bytes": resident})
    return code


def _config(words: list[str]) -> Any:
    from lensjax.cli.options import parse

    return parse(words).config


def _main(words: list[str]) -> int:
    from lensjax import main

    sys.argv = ["lensjax", *words]
    return main.run()


def _write_to(file: Path, found: dict[str, Any]) -> None:
    file.write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    what = {each.__name__: each for each in (machine, images, cost, first_step, run)}[sys.argv[1]]
    sys.exit(what(sys.argv[3:], functools.partial(_write_to, Path(sys.argv[2]))))
