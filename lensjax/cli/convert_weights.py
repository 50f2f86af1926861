"""The command convert-weights: converts weights between PyTorch files and lensjax files."""

import contextlib
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensjax import weights
from lensjax.cli.flags import Flag, choice, parse_flags, path_to, switch, usage
from lensjax.errors import UserError
from lensjax.json_text import encode_json
from lensjax.runtime.progress import log, progress_bar
from lensjax.weights.download import MB, OFFICIAL_FILES, fetch, weights_folder
from lensjax.weights.shapes import PUBLISHED_SIZES, Sizes
from lensjax.weights.store import is_lensjax_file
from lensjax.weights.trees import flatten
from lensjax.weights.writing import check_output_path

FLAGS = {
    "input": path_to(
        "FILE",
        "A PyTorch checkpoint (.pth, .pt, .bin) or a .safetensors file, with parameter names of torchvision, "
        "DINO, timm, Hugging Face or the reference implementation. With --to-torch: a file that this command "
        "wrote, or the folder of a run, whose best epoch is converted.",
    ),
    "output": path_to(
        "FILE",
        "File to write: .safetensors for lensjax; with --to-torch, .pth or .pt for torch.load, or "
        ".safetensors.",
    ),
    "arch": choice(
        "NAME",
        f"Architecture: {', '.join(PUBLISHED_SIZES)}; detected from the names in the file if not given.",
        list(PUBLISHED_SIZES),
        None,
    ),
    "entry": Flag(
        "NAME",
        "Entry of a checkpoint that contains the weights, such as model_ema; needed if several entries do.",
    ),
    "prefix": Flag(
        "NAME",
        "Module that contains the network, such as encoder_q; needed if the file contains several networks, "
        "or a network with additional parts, which are ignored.",
    ),
    "to-torch": switch("Convert to PyTorch: write a state dict that load_state_dict(strict=True) accepts."),
    "download": choice(
        "NAME",
        f"Download the official file of {' or '.join(OFFICIAL_FILES)} to the cache, and convert it if "
        "--output is given.",
        list(OFFICIAL_FILES),
        None,
    ),
    "sha256": Flag("HEX", "Expected SHA-256 of the input or downloaded file.", default=""),
    "overwrite": switch("Replace an existing output."),
}
USAGE = usage(
    "Converts weights between PyTorch files and lensjax files.",
    [
        "lensjax convert-weights --input FILE --output NEW.safetensors",
        "lensjax convert-weights --to-torch --input FILE --output NEW.pth",
        "lensjax convert-weights --download dino_vits16 --output NEW.safetensors",
    ],
    FLAGS,
    "Every array must be recognized, and none may be missing. Code in a checkpoint is never run; a "
    "checkpoint that contains objects other than tensors, numbers, strings, NumPy values, paths and parsed "
    "command lines (argparse.Namespace) is rejected. PyTorch's own formats require PyTorch (pip install "
    "'lensjax[torch]'); .safetensors does not.",
)


def main(arguments: Sequence[str]) -> None:
    """Runs the command convert-weights."""
    options = parse(arguments)
    if options.output:
        check_output_path(options.output, overwrite=options.overwrite)
    if options.download:
        options.input, digest = download(options.download, options.sha256)
        log.info("%s\n  SHA-256 %s", options.input, digest)
        if not OFFICIAL_FILES[options.download].sha256 and not options.sha256:
            log.info("  its authors do not publish a SHA-256; --sha256 HEX checks it against your own")
        if not options.output:
            log.info("convert it: lensjax convert-weights --input %s --output FILE", options.input)
            return
        options.arch = options.download
    if options.to_torch:
        to_torch(options)
    else:
        from_torch(options)


def parse(arguments: Sequence[str]) -> types.SimpleNamespace:
    """Parses the command-line arguments.

    Raises:
      UserError: if a flag or value is invalid, or flags exclude each other.
    """
    values = parse_flags(FLAGS, arguments)
    options = types.SimpleNamespace(**{name.replace("-", "_"): value for name, value in values.items()})
    others = ("input", "arch", "entry", "prefix", "to-torch")
    if options.download and any(values[name] for name in others):
        raise UserError("--download can be combined only with --output, --sha256 and --overwrite; see --help")
    if not options.download and not (options.input and options.output):
        raise UserError("give --input and --output, or --download NAME; see --help")
    if options.to_torch and (options.entry or options.prefix):
        raise UserError("--entry and --prefix are for PyTorch checkpoints, not for --to-torch; see --help")
    if options.sha256 and not re.fullmatch("[0-9a-fA-F]{64}", options.sha256):
        raise UserError(f"--sha256 {options.sha256}: a SHA-256 has 64 hexadecimal digits")
    suffixes = (".pth", ".pt", ".safetensors") if options.to_torch else (".safetensors",)
    if options.output and options.output.suffix not in suffixes:
        raise UserError(f"--output {options.output}: must end in {' or '.join(suffixes)}")
    if options.input and options.output and options.input.resolve() == options.output.resolve():
        raise UserError("--input and --output are the same file; choose another output")
    return options


def from_torch(options: types.SimpleNamespace) -> None:
    """Converts a PyTorch file to a lensjax file.

    Raises:
      UserError: if the input cannot be read or does not match, or the output cannot be written.
    """
    source = options.input
    if source.is_dir():
        raise UserError(f"{source} is a folder; --to-torch converts the folder of a run to a checkpoint")
    if is_lensjax_file(source):
        raise UserError(f"{source} is already a lensjax file; --to-torch converts it to a checkpoint")
    read = weights.read_torch(source, entry=options.entry)
    _check_sha256(source, read.sha256, options.sha256)
    with _name_in_errors(source):
        converted = weights.convert_state_dict(read.arrays, options.arch, prefix=options.prefix)
    found = converted.source
    _log_arrays(found.architecture, converted.variables, converted.sizes, f"names of {found.naming_scheme}")
    if removed := [*found.wrappers, *([found.prefix] if found.prefix else [])]:
        log.info("  removed from the names: %s", ", ".join(removed))
    if found.batch_counts:
        log.info("  not used: num_batches_tracked (%d)", len(found.batch_counts))
    for what, names in _by_value(found.unused).items():
        log.info("  not used: %s (%s)", _shorten(names), what)
    if read.skipped:
        log.info("  not read from the file: %s", _shorten(read.skipped))
    for note in read.notes:
        log.info("  %s", note)
    metadata = {
        "architecture": found.architecture,
        "sizes": encode_json(converted.sizes),
        "source_file": source.name,
        "source_names": found.prefix + f"({found.naming_scheme})",
        "source_sha256": read.sha256,
        "num_batches_tracked": encode_json(found.batch_counts),
    }
    weights.save(options.output, converted.variables, metadata, overwrite=options.overwrite)
    log.info("wrote %s (%.1f MB)", options.output, options.output.stat().st_size / MB)


def to_torch(options: types.SimpleNamespace) -> None:
    """Converts a lensjax file, or the best epoch of a run, to a PyTorch state dict.

    Raises:
      UserError: if the input cannot be read or is incomplete, or the output cannot be written.
    """
    source = options.input
    counts: dict[str, int] = {}
    if source.is_dir():
        if options.sha256:
            raise UserError("--sha256 needs a file, but --input is a folder")
        architecture, variables = _best_epoch(source)
    else:
        variables, metadata = weights.load(source)
        _check_sha256(source, weights.file_sha256(source), options.sha256)
        architecture = metadata.get("architecture", "")
        counts = _batch_counts(source, metadata)
    if architecture not in PUBLISHED_SIZES:
        raise UserError(f"{source} has the architecture {architecture!r}, which has no PyTorch counterpart")
    if options.arch not in (None, architecture):
        raise UserError(f"{source} has the architecture {architecture}, not {options.arch}")
    with _name_in_errors(source):
        state_dict = weights.to_state_dict(variables, architecture, batch_counts=counts)
        sizes = weights.check_complete(state_dict, architecture)
    _log_arrays(architecture, variables, sizes, str(source))
    weights.write_torch(options.output, state_dict, overwrite=options.overwrite)
    log.info("wrote %s (%.1f MB)", options.output, options.output.stat().st_size / MB)


def download(name: str, sha256: str) -> tuple[Path, str]:
    """Downloads the official file of an architecture; returns its path and SHA-256.

    Raises:
      UserError: if it cannot be downloaded or has a different SHA-256.
    """
    log.info("%s", OFFICIAL_FILES[name].url)
    with contextlib.ExitStack() as stack:
        bars: list[Any] = []

        def report(done: int, total: int) -> None:
            if not bars:
                bar = progress_bar(total // MB, name, unit="MB", initial=done // MB)
                bars.append(stack.enter_context(bar))
            bars[0].update(done // MB - bars[0].n)

        return fetch(OFFICIAL_FILES[name], weights_folder(), sha256=sha256, report=report)


def _best_epoch(workdir: Path) -> tuple[str, dict[str, Any]]:
    """Architecture and variables of the best epoch of a run."""
    import jax  # slow to import

    from lensjax.config import default_config
    from lensjax.prediction.trained_model import load_trained_model

    trained = load_trained_model(workdir, devices=jax.devices()[:1])
    config = trained.config
    log.info("%s: best epoch %d", workdir, trained.best_epoch)
    if config.preparation != default_config().preparation:
        settings = ", ".join(f"{name} {value}" for name, value in config.preparation.items())
        log.info("  not in the state dict: the preparation of the images (%s)", settings)
    return config.model.name, jax.device_get(trained.variables)


def _batch_counts(source: Path, metadata: Mapping[str, str]) -> dict[str, int]:
    """PyTorch's counters of batches in the metadata of a lensjax file."""
    try:
        counts = json.loads(metadata.get("num_batches_tracked", "{}"))
        return {str(name): int(np.int64(count)) for name, count in counts.items()}
    except (AttributeError, OverflowError, RecursionError, TypeError, ValueError):
        raise UserError(
            f"{source}: num_batches_tracked in its metadata is invalid; convert the source again"
        ) from None


def _by_value(descriptions: Mapping[str, str]) -> dict[str, list[str]]:
    """The names that have each description."""
    names: dict[str, list[str]] = {}
    for name, description in descriptions.items():
        names.setdefault(description, []).append(name)
    return names


def _shorten(names: Sequence[str]) -> str:
    """At most eight names."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _log_arrays(architecture: str, variables: Any, sizes: Sizes, source: str) -> None:
    """Logs the number of arrays, and sizes that differ from the published ones."""
    arrays = flatten(variables).values()
    numbers = sum(array.size for array in arrays)
    log.info("%s, %s: %d arrays, %.1f million numbers", architecture, source, len(arrays), numbers / 1e6)
    others = [f"{name} {size}" for name, size in sizes.items() if size != PUBLISHED_SIZES[architecture][name]]
    if others:
        log.info("  not the published size: %s", ", ".join(others))


def _check_sha256(path: Path, found: str, expected: str) -> None:
    if expected and found != expected.lower():
        raise UserError(f"{path} has SHA-256 {found}, expected {expected.lower()}")


@contextlib.contextmanager
def _name_in_errors(path: Path) -> Iterator[None]:
    """Adds the name of a file to errors about its arrays."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
