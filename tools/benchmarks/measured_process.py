"""The program that tools/benchmarks/runs.py starts in each process that it measures.

  python tools/benchmarks/measured_process.py FUNCTION FILE ARGUMENT ...

FUNCTION is machine, images, cost, first_step or run. FILE receives its result as JSON. The arguments are
those of `lensjax.main`.
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

# Other imports are inside the functions, because the time of `first_step` includes the imports of a run.

Write = Callable[[dict[str, Any]], None]


def machine(words: list[str], write: Write) -> int:
    """Writes the machine, the versions and the commit."""
    import jax

    write(importlib.import_module("training").describe_machine(jax.local_devices()[0]))
    return 0


def images(words: list[str], write: Write) -> int:
    """Writes the number of images in each split, and the time to load or simulate them, seconds."""
    from lensjax.cli.console import terminal_output
    from lensjax.data.source import load_splits
    from lensjax.runtime.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    config = _load_config(words)
    started = time.perf_counter()
    with terminal_output():
        splits = load_splits(config.data)
    seconds = time.perf_counter() - started
    sizes = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
    write(sizes | {"seconds": seconds})
    return 0


def cost(words: list[str], write: Write) -> int:
    """Writes the floating-point operations per training image, and the peak FLOP/s of the devices."""
    import jax

    from lensjax.training import processes
    from lensjax.training.cost import peak_flops, step_flops

    config = _load_config(words)
    devices = processes.all_devices()
    peak = peak_flops(devices[0], config.precision)
    # CPU devices share the cores of one processor.
    number = 1 if devices[0].platform == "cpu" else len(devices)
    write(
        {
            "operations_per_image": step_flops(config) / config.batch_size,
            "peak_operations_per_second": peak and peak * number,
            "devices": jax.device_count(),
        }
    )
    return 0


def first_step(words: list[str], write: Write) -> int:
    """Writes the times at which a run calls its first training step and gets its result, and ends the run."""
    import jax

    from lensjax.training import loop

    parallelize_step = loop.parallelize_step

    def parallelize_first_step(*arguments: Any, **options: Any) -> Any:
        step = parallelize_step(*arguments, **options)

        def time_and_exit(*arguments: Any) -> Any:
            reached = time.time()
            jax.block_until_ready(step(*arguments))
            write({"reached": reached, "done": time.time()})
            sys.stdout.flush()
            os._exit(0)

        return time_and_exit

    loop.parallelize_step = parallelize_first_step
    return _run_lensjax(words)


def run(words: list[str], write: Write) -> int:
    """Executes a whole run, and writes its peak memory, bytes."""
    code = _run_lensjax(words)
    import jax

    from lensjax.runtime.host_memory import peak_memory

    statistics = jax.local_devices()[0].memory_stats() or {}
    write({"peak_bytes": statistics.get("peak_bytes_in_use"), "peak_resident_bytes": peak_memory()})
    return code


def _load_config(words: list[str]) -> Any:
    from lensjax.cli.options import parse

    return parse(words).config


def _run_lensjax(words: list[str]) -> int:
    from lensjax import main

    sys.argv = ["lensjax", *words]
    return main.run()


def _write_to(file: Path, result: dict[str, Any]) -> None:
    file.write_text(json.dumps(result), "utf-8")


def main(arguments: list[str]) -> int:
    """Runs the function that the arguments name, and returns its exit code."""
    functions = {each.__name__: each for each in (machine, images, cost, first_step, run)}
    if "--help" in arguments[:1]:
        sys.stdout.write(__doc__ or "")
        return 0
    if len(arguments) < 2 or arguments[0] not in functions:
        sys.stderr.write(
            f"measured_process: expected one of {', '.join(functions)}, then a file; see --help\n"
        )
        return 2
    function, file, *words = arguments
    return functions[function](words, functools.partial(_write_to, Path(file)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
