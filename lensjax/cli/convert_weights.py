"""Converts weights between PyTorch's files and lensjax's.

  lensjax convert-weights --input FILE --output NEW.safetensors
  lensjax convert-weights --to-torch --input FILE --output NEW.pth
  lensjax convert-weights --download dino_vits16 --output NEW.safetensors

  --input FILE      a PyTorch checkpoint (.pth, .pt, .bin) or .safetensors, with
                    the names of torchvision, DINO, timm, Hugging Face or the
                    reference. With --to-torch: a file that this command wrote,
                    or the folder of a run, whose best epoch is taken
  --output FILE     what is written: .safetensors for lensjax; with --to-torch
                    .pth or .pt for torch.load, or .safetensors
  --arch NAME       resnet18, dino_vits16, baseline_cnn or lens_vit_pinn; seen
                    from the names in the file if not given
  --to-torch        the other way: writes a state dict that the module's
                    load_state_dict(strict=True) takes
  --download NAME   fetches the official file of resnet18 or dino_vits16 into
                    the cache, and converts it if there is an --output
  --sha256 HEX      the SHA-256 that the file, given or fetched, has to have
  --overwrite       replaces an output that is there already

Every array has to be known and none may be missing. Nothing in a checkpoint is
run: one that holds more than tensors is refused. PyTorch's own formats need
torch (pip install 'lensjax[torch]'); .safetensors does without.
Exit codes: 0 done; 2 something in the command or the files is wrong, and the
message says what.
"""

import argparse
import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from lensjax import weights
from lensjax.cli import runner
from lensjax.errors import UserError
from lensjax.runtime.progress import log, progress_bar
from lensjax.weights.download import MB, OFFICIAL, fetch, weights_folder
from lensjax.weights.shapes import PUBLISHED, Sizes
from lensjax.weights.store import is_lensjax_file
from lensjax.weights.trees import flatten
from lensjax.weights.writing import check_new


def main(arguments: Sequence[str]) -> None:
    """Converts what the words after the program's name ask for.

    Raises:
      UserError: something in the command or the files is wrong.
    """
    options = parse(arguments)
    if options.output:
        check_new(options.output, overwrite=options.overwrite)
    if options.download:
        options.input, digest = download(options.download, options.sha256)
        log.info("%s\n  SHA-256 %s", options.input, digest)
        if not OFFICIAL[options.download].sha256 and not options.sha256:
            log.info(
                "  its authors publish no SHA-256 to compare with; --sha256 HEX holds it to one"
            )
        if not options.output:
            log.info(
                "convert it: lensjax convert-weights --input %s --output FILE",
                options.input,
            )
            return
        options.arch = options.download
    if options.to_torch:
        to_torch(options)
    else:
        from_torch(options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options in the words of the command.

    Raises:
      UserError: a flag or a value is wrong, or flags do not go together.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--input", type=_path)
    parser.add_argument("--output", type=_path)
    parser.add_argument("--arch", choices=list(PUBLISHED))
    parser.add_argument("--download", choices=list(OFFICIAL))
    parser.add_argument("--sha256", default="")
    for name in ("--to-torch", "--overwrite"):
        parser.add_argument(name, action="store_true")
    options = parser.parse_args(list(arguments))
    if options.download and (options.input or options.to_torch or options.arch):
        raise UserError("--download goes with --output, --sha256 and --overwrite only; see --help")
    if not options.download and not (options.input and options.output):
        raise UserError("--input and --output are both needed; see --help")
    if options.sha256 and not re.fullmatch("[0-9a-fA-F]{64}", options.sha256):
        raise UserError(f"--sha256 {options.sha256}: a SHA-256 has 64 hex digits")
    suffixes = (".pth", ".pt", ".safetensors") if options.to_torch else (".safetensors",)
    if options.output and options.output.suffix not in suffixes:
        raise UserError(f"--output {options.output}: has to end in {' or '.join(suffixes)}")
    if options.input and options.output and options.input.resolve() == options.output.resolve():
        raise UserError("--input and --output are the same file; name another output")
    return options


def from_torch(options: argparse.Namespace) -> None:
    """Writes lensjax's file of a PyTorch one.

    Raises:
      UserError: the source cannot be read or does not fit, or the output cannot be written.
    """
    source = options.input
    if source.is_dir():
        raise UserError(
            f"{source} is a folder; --to-torch turns the folder of a run into a checkpoint"
        )
    if is_lensjax_file(source):
        raise UserError(f"{source} is lensjax's already; --to-torch turns it into a checkpoint")
    read = weights.read_torch(source)
    _check_sha256(source, read.sha256, options.sha256)
    with _said_of(source):
        converted = weights.convert(read.arrays, options.arch)
    names = converted.names
    _say_what(names.architecture, converted.variables, converted.sizes, f"names of {names.scheme}")
    if names.prefix:
        log.info("  taken off the names: %s", names.prefix)
    if names.batch_counts:
        log.info("  not used: num_batches_tracked (%d)", len(names.batch_counts))
    for name, what in names.extras.items():
        log.info("  not used: %s (%s)", name, what)
    if read.left_out:
        log.info("  left in the file: %s", ", ".join(read.left_out))
    for note in read.notes:
        log.info("  %s", note)
    metadata = {
        "architecture": names.architecture,
        "sizes": json.dumps(converted.sizes),
        "source_file": source.name,
        "source_names": names.prefix + f"({names.scheme})",
        "source_sha256": read.sha256,
        "num_batches_tracked": json.dumps(names.batch_counts),
    }
    weights.save(options.output, converted.variables, metadata, overwrite=options.overwrite)
    log.info("wrote %s (%.1f MB)", options.output, options.output.stat().st_size / MB)


def to_torch(options: argparse.Namespace) -> None:
    """Writes the PyTorch state dict of lensjax's file, or of the best epoch of a run.

    Raises:
      UserError: the source cannot be read or is not whole, or the output cannot be written.
    """
    source = options.input
    counts: dict[str, int] = {}
    if source.is_dir():
        if options.sha256:
            raise UserError("--sha256 is for a file, and --input is a folder")
        architecture, variables = _best_epoch(source)
    else:
        variables, metadata = weights.load(source)
        _check_sha256(source, weights.sha256_of(source), options.sha256)
        architecture = metadata.get("architecture", "")
        counts = json.loads(metadata.get("num_batches_tracked", "{}"))
    if architecture not in PUBLISHED:
        raise UserError(f"{source} is of {architecture!r}, which PyTorch has no module of")
    if options.arch not in (None, architecture):
        raise UserError(f"{source} is of {architecture}, not of {options.arch}")
    with _said_of(source):
        state_dict = weights.to_torch(variables, architecture, batch_counts=counts)
        sizes = weights.check_whole(state_dict, architecture)
    _say_what(architecture, variables, sizes, str(source))
    weights.write_torch(options.output, state_dict, overwrite=options.overwrite)
    log.info("wrote %s (%.1f MB)", options.output, options.output.stat().st_size / MB)


def download(name: str, sha256: str) -> tuple[Path, str]:
    """The official file of an architecture and its SHA-256, with a bar while it comes.

    Raises:
      UserError: it cannot be fetched, or has another SHA-256.
    """
    log.info("%s", OFFICIAL[name].url)
    with contextlib.ExitStack() as stack:
        bars: list[Any] = []

        def report(done: int, total: int) -> None:
            if not bars:
                bar = progress_bar(total // MB, name, unit="MB", initial=done // MB)
                bars.append(stack.enter_context(bar))
            bars[0].update(done // MB - bars[0].n)

        return fetch(OFFICIAL[name], weights_folder(), sha256=sha256, report=report)


def _best_epoch(workdir: Path) -> tuple[str, dict[str, Any]]:
    """Architecture and variables of a run, and a word on what its images go through first."""
    import jax  # after the flags: loading these takes a moment

    from lensjax.config import default_config
    from lensjax.prediction.trained import load_trained

    trained = load_trained(workdir, devices=jax.devices()[:1])
    config = trained.config
    log.info("%s: epoch %d, the best", workdir, trained.best_epoch)
    if config.preparation != default_config().preparation:
        said = ", ".join(f"{name} {value}" for name, value in config.preparation.items())
        log.info("  not in the state dict: the preparation of its images (%s)", said)
    return config.model.name, jax.device_get(trained.variables)


def _say_what(architecture: str, variables: Any, sizes: Sizes, source: str) -> None:
    """A line on what was found, and one where it is not of the published size."""
    arrays = flatten(variables).values()
    numbers = sum(array.size for array in arrays)
    log.info(
        "%s, %s: %d arrays, %.1f million numbers", architecture, source, len(arrays), numbers / 1e6
    )
    others = [
        f"{name} {size}" for name, size in sizes.items() if size != PUBLISHED[architecture][name]
    ]
    if others:
        log.info("  not the published size: %s", ", ".join(others))


def _check_sha256(path: Path, found: str, expected: str) -> None:
    if expected and found != expected.lower():
        raise UserError(f"{path} has SHA-256 {found}, expected {expected.lower()}")


@contextlib.contextmanager
def _said_of(path: Path) -> Any:
    """Puts the file's name before what is wrong with its arrays."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _path(text: str) -> Path:
    return Path(text).expanduser()


class _Parser(argparse.ArgumentParser):
    """A parser that raises what it has to say."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message}; see --help")


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
      arguments: the words after the command; those of this process if None.
    """
    return runner.run(main, __doc__, name="lensjax convert-weights", arguments=arguments)
