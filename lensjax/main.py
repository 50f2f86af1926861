"""The command `lensjax`; in a checkout, also `python -m lensjax.main --config configs/pinn.py`."""

import logging
import sys
from collections.abc import Sequence

from lensjax import workdir
from lensjax.cli import commands, runner
from lensjax.cli.help import COMMANDS, command_module, help_text
from lensjax.cli.options import parse
from lensjax.runtime.progress import log
from lensjax.training import processes


def main(arguments: Sequence[str]) -> int:
    """Trains, evaluates, predicts or compares.

    Args:
      arguments: the command-line arguments after the program name.

    Returns:
      The exit code.

    Raises:
      UserError: if the command, the config or a file is invalid.
    """
    options = parse(arguments)
    if options.distributed:
        processes.initialize(options.coordinator, options.num_processes, options.process_id)
        log.setLevel(logging.INFO if processes.is_first() else logging.WARNING)
    devices = processes.all_devices()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    log.info("lensjax on %d %s device(s): %s", len(devices), devices[0].platform, kinds)
    if options.mode != "train" and options.config is not None:
        moved = ("data.source",) if options.source is not None else ()
        workdir.check_same_config(options.workdir, options.config, ignored=moved)
    return getattr(commands, options.mode)(options, devices)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
      arguments: the command-line arguments after the program name; `sys.argv[1:]` if None.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        command = command_module(arguments[0])
        name = f"lensjax {arguments[0]}"
        return runner.run(command.main, command.USAGE, name=name, arguments=arguments[1:])
    code = runner.run(main, help_text(arguments), name="lensjax", arguments=arguments)
    processes.exit_on_failure(code)
    return code


if __name__ == "__main__":
    sys.exit(run())
