"""Commands that process lenses one by one: resumption, progress and errors."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from lensjax.cli import fit_output
from lensjax.cli.fit_output import Summary
from lensjax.cli.flags import Flag, parse_flags
from lensjax.cli.lens_inputs import LensFiles, find_lenses
from lensjax.errors import Interrupted, UserError
from lensjax.modeling.observation import Observation
from lensjax.runtime.progress import format_duration, log, progress_bar

# Compiled programs are released after this number of lenses. Each image size and each page adds some, and a
# process with many of them exceeds the limit of Linux on memory maps.
CLEAR_EVERY = 20

# Processes a lens, given its files, the output folder, the settings and the digests of its files; writes its
# result and returns a one-line summary.
Process = Callable[[LensFiles, Path, Mapping[str, Any], Mapping[str, str]], str]


def exit_codes(done: str) -> str:
    """The exit codes for the help of a command; `done` states what was done with a lens, such as "fitted"."""
    return (
        f"Exit codes: 0 at least one lens was {done}; 1 failure, such as a full disk; 2 invalid command, or "
        "no image could be used, explained by the message; 130 stopped by Ctrl-C, finished lenses are kept."
    )


def run(
    flags: Mapping[str, Flag],
    arguments: Sequence[str],
    names: Sequence[str],
    process: Process,
    summary: Summary,
) -> int:
    """Processes all lenses that have no result yet, and writes the table and the index.

    Args:
      flags: the flags of the command.
      arguments: its command-line arguments.
      names: flags that determine the results, in addition to the files.
      process: processes one lens.
      summary: name of the command, table and index.

    Returns:
      The exit code.

    Raises:
      UserError: if the command is invalid, there are no lenses, results would be overwritten, or no image
        can be used.
      Interrupted: if Ctrl-C stopped the command; the finished lenses have been written.
    """
    values = parse_flags(flags, arguments, required=("image", "output"))
    output = values["output"]
    lenses = find_lenses(*(values[name] for name in ("image", "noise", "psf", "mask")))
    settings = {"command": summary.command, **{name: values[name] for name in names}}
    fit_output.check_format(values["format"])
    fit_output.claim(output, settings, overwrite=values["overwrite"])
    inputs = {lens.name: lens.digests() for lens in lenses}
    pending = [
        lens
        for lens in lenses
        if not fit_output.is_finished(output, lens.name, inputs[lens.name], overwrite=values["overwrite"])
    ]
    if len(pending) < len(lenses):
        log.info(
            "%s of %s lenses are already finished", f"{len(lenses) - len(pending):,}", f"{len(lenses):,}"
        )
    unusable: dict[str, str] = {}

    def process_pending() -> None:
        _process_all(pending, lambda lens: process(lens, output, settings, inputs[lens.name]), unusable)

    try:
        process_pending()
    except KeyboardInterrupt:
        fit_output.write_summary(output, unusable, values["format"], summary)
        raise Interrupted(signal.SIGINT) from None
    counts = fit_output.write_summary(output, unusable, values["format"], summary)
    if len(unusable) == len(lenses):
        name, reason = next(iter(unusable.items()))
        if len(lenses) == 1:
            raise UserError(reason)
        raise UserError(f"none of {len(lenses):,} images could be used; the first, {name}: {reason}")
    log.info("%s/index.html: %s", output, ", ".join(f"{number:,} {name}" for name, number in counts.items()))
    return 0


def read_observation(lens: LensFiles, settings: Mapping[str, Any]) -> Observation:
    """Reads the files of a lens.

    Args:
      lens: the files.
      settings: the flags pixel-scale, psf-fwhm and extension.

    Raises:
      UserError: if a file cannot be used.
    """
    return Observation.from_fits(
        lens.image,
        lens.noise,
        lens.psf,
        lens.mask,
        pixel_scale=settings["pixel-scale"],
        psf_fwhm=settings["psf-fwhm"],
        extension=settings["extension"],
    )


def _process_all(
    lenses: Sequence[LensFiles], process: Callable[[LensFiles], str], unusable: dict[str, str]
) -> None:
    """Processes all lenses; adds the reasons of those without a result to `unusable`."""
    started = time.monotonic()
    with progress_bar(len(lenses), "fitting", unit="lenses") as bar:
        for number, lens in enumerate(lenses, 1):
            try:
                text = process(lens)
            except (ValueError, ArithmeticError) as error:
                # Errors other than UserError come from linear algebra with extreme values.
                reason = " ".join(str(error).split())
                if not isinstance(error, UserError):
                    reason = (
                        f"{lens.image}: the fit stopped: {reason}; check the noise map and the pixel scale"
                    )
                unusable[lens.name] = reason
                text = f"failed, {reason}"
            bar.update()
            if number % CLEAR_EVERY == 0:
                jax.clear_caches()
            seconds = (time.monotonic() - started) / number * (len(lenses) - number)
            remaining = f"; {format_duration(seconds)} left" if number < len(lenses) else ""
            if len(lenses) > 1 or lens.name not in unusable:
                log.info("%d/%d %s: %s%s", number, len(lenses), lens.name, text, remaining)
