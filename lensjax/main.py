"""The command `lensjax`; in a checkout, also `python -m lensjax.main --config configs/pinn.py`.

JAX and the other packages are imported in the functions, so that Ctrl-C is handled during the import as well.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

_STOPPED = 128 + signal.SIGINT


def main(arguments: Sequence[str]) -> int:
    """Trains, evaluates, predicts or compares.

    Args:
      arguments: the command-line arguments after the program name.

    Returns:
      The exit code.

    Raises:
      UserError: if the command, the config or a file is invalid.
      NonFiniteLossError: if the training loss became NaN or infinite.
      Interrupted: if a signal stopped the command and its progress was saved.
    """
    import logging

    from lensjax import workdir
    from lensjax.cli import commands
    from lensjax.cli.options import parse
    from lensjax.runtime.progress import log
    from lensjax.training import processes

    options = parse(arguments)
    if options.distributed:
        processes.initialize(options.coordinator, options.num_processes, options.process_id)
        log.setLevel(logging.INFO if processes.is_first() else logging.WARNING)
    devices = processes.all_devices()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    log.info("lensjax on %d %s: %s", len(devices), "device" if len(devices) == 1 else "devices", kinds)
    if options.mode != "train" and options.config is not None:
        moved = ("data.source",) if options.source is not None else ()
        workdir.check_same_config(options.workdir, options.config, ignored=moved)
    with processes.report_lost_process():
        return getattr(commands, options.mode)(options, devices)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
      arguments: the command-line arguments after the program name; `sys.argv[1:]` if None. Without arguments,
        the overview of the commands is printed.

    Returns:
      The exit code.
    """
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        from lensjax.cli import runner
        from lensjax.cli.help import COMMANDS, command_module, help_text
        from lensjax.training import processes

        if arguments and arguments[0] in COMMANDS:
            command = command_module(arguments[0])
            name = f"lensjax {arguments[0]}"
            return runner.run(command.main, command.USAGE, name=name, arguments=arguments[1:])
        code = runner.run(main, help_text(arguments), name="lensjax", arguments=arguments)
        processes.exit_on_failure(code)
    except KeyboardInterrupt:
        sys.stderr.write("lensjax: stopped\n")
        return _STOPPED
    return code


def entry(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and ends the process, with one line and exit code 130 on Ctrl-C at any moment.

    Args:
      arguments: see `run`.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit_at_once)  # an exception could be lost in a C++ module
        import lensjax.cli.commands  # noqa: F401

        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = run(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code:
        # After an error or Ctrl-C, XLA's threads may still be running, and crash or block a normal shutdown.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _exit_at_once(number: int, frame: FrameType | None) -> NoReturn:
    sys.stderr.write("lensjax: stopped\n")
    sys.stderr.flush()
    os._exit(128 + number)


if __name__ == "__main__":
    entry()
