"""The options of the commands train, evaluate, predict and compare."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from lensjax.cli.configs import check_flags, default_workdir, load_config, take_config
from lensjax.cli.flags import Flag, choice, define_flags, describe_flag_error, integer, path_to, real, switch
from lensjax.config import check
from lensjax.data.images import Split
from lensjax.errors import UserError
from lensjax.runtime.paths import user_path

MODES = {
    "train": "train a classifier and report on the test images",
    "evaluate": "evaluate the best epoch of a run and report on it",
    "predict": "classify image files",
    "compare": "compare runs on the same images",
}
SOURCE = "config.data.source"  # the only field that can be changed after training: data sets move
MOVABLE = ("evaluate", "compare")

FLAGS: dict[str, Flag] = {
    "workdir": Flag(
        "FOLDER",
        "Folder of the run. train: runs/CONFIG[-VARIANT] if not given; rerun the same command to resume. "
        "compare: two or more folders, FOLDER,FOLDER,...",
        tuple(MODES),
    ),
    "model": Flag(
        "NAME",
        "Model of the package (common_test or robust), folder of a run, or model file of lensjax export.",
        ("predict",),
    ),
    "split": choice(
        "SPLIT",
        "Images to use: test (default), validation or train. evaluate --split validation also fits the "
        "temperature and records the domain of the run (docs/predict.md).",
        ("test", "validation", "train"),
        "test",
        *("evaluate", "compare"),
    ),
    "tta": choice(
        "d4",
        "Average over the eight rotated and mirrored views of each image, for runs trained on such views.",
        ("none", "d4"),
        "none",
        *("evaluate", "predict", "compare"),
    ),
    "input": path_to(
        "PATH",
        "Images: a file, a folder or zip archive with files at any depth, or a quoted glob pattern; .npy "
        ".npz .fits .fits.gz .fits.fz .png .tif .h5. The flag name can be omitted.",
        "predict",
    ),
    "output": path_to(
        "PATH",
        "predict: the table, .csv, .jsonl or .parquet; predictions.csv if not given. Rerun the same command "
        "to resume an unfinished table, PATH.part. compare: folder of comparison.json, roc.png and roc.pdf; "
        "comparison/ if not given.",
        "predict",
        "compare",
    ),
    "overwrite": switch("Replace a finished output.", "predict", "compare"),
    "fit-size": choice(
        "crop", "Crop oversized images to their center.", ("error", "crop"), "error", "predict"
    ),
    "pixel-scale": real(
        "Pixel scale of the images, whose centers are resampled to the pixel scale of the run.",
        None,
        1e-6,
        "predict",
        value="ARCSEC",
    ),
    "extension": Flag(
        "NAME",
        "Read only this extension of FITS files (name, number, or name and version such as SCI,2), dataset "
        "of .h5 files or array of .npz files.",
        ("predict",),
    ),
    "noise": path_to(
        "FILE",
        "Noise map for --psf. If not given, it is read from an extension of the image file or estimated.",
        "predict",
    ),
    "psf": path_to(
        "FILE",
        "Point-spread function of telescope images. The input is then that of lensjax fit: a lens model is "
        "fitted to each image, and its residual is classified (docs/real_images.md). Not with --fit-size, "
        "--tta or --calibrated.",
        "predict",
    ),
    "calibrated": switch("Apply the temperature that was fitted to the validation images.", "predict"),
    "profile": switch("Trace some steps, and report after each epoch how its time was spent.", "train"),
    "debug-nans": switch(
        "Stop at the operation that produces the first NaN, with a traceback; slower.", "train"
    ),
    "distributed": switch("Train together with other processes, one per host (docs/scaling.md).", "train"),
    "coordinator": Flag(
        "HOST:PORT",
        "--distributed: address of the first process; SLURM, Open MPI, Kubernetes and TPU pods provide it.",
        ("train",),
    ),
    "num-processes": integer("--distributed: number of processes.", None, 1, "train"),
    "process-id": integer("--distributed: number of this process, from 0.", None, 0, "train", value="I"),
}

# Flags that have no effect beside another one.
EXCLUSIVE = {"psf": ("fit-size", "tta", "calibrated"), "pixel-scale": ("fit-size",)}


@dataclasses.dataclass(frozen=True)
class Options:
    """Parsed options of a command.

    Attributes:
      mode: one of `MODES`.
      config: the full config; None if not given.
      source: new location of the images of the runs to evaluate or compare; None if it is that in their
        configs.
      workdir: the run's folder, or a model file.
      workdirs: the folders of the runs to compare.
      split: images to evaluate.
      input: images to predict; None if not given.
      output: file of the predictions, or folder of the comparison.
      overwrite: whether to replace a finished output.
      crop: whether to crop oversized images to the image size of the run.
      noise, psf: noise map and point-spread function of telescope images to predict; None if not given.
      pixel_scale: pixel scale of the images to predict, arcsec; if None, that of the run or, with `psf`, that
        of the header.
      extension: name, number or "name,version" of the only FITS extension to predict, or name of the only
        HDF5 dataset or .npz array; None for all.
      calibrated: whether to apply the fitted temperature.
      tta: "none" or "d4".
      debug_nans: whether to stop at the operation that produces the first NaN.
      profile: whether to time all steps and trace some.
      distributed: whether several processes train together.
      coordinator: address of the first process; None if JAX detects it.
      num_processes, process_id: number of processes, and number of this process; None if JAX detects them.
    """

    mode: str
    config: ConfigDict | None
    source: str | None
    workdir: Path
    workdirs: tuple[Path, ...]
    split: Split
    input: Path | None
    output: Path
    overwrite: bool
    crop: bool
    noise: Path | None
    psf: Path | None
    pixel_scale: float | None
    extension: str | None
    calibrated: bool
    tta: str
    debug_nans: bool
    profile: bool
    distributed: bool
    coordinator: str | None
    num_processes: int | None
    process_id: int | None


def parse(arguments: Sequence[str]) -> Options:
    """Parses a command, given as the first argument or with `--mode`; the default is train.

    Args:
      arguments: the command-line arguments after the program name.

    Raises:
      UserError: if a flag, a value or a config field is invalid.
    """
    mode, arguments = take_mode(arguments)
    named, words = take_config(arguments)
    values = flags.FlagValues()
    config = None
    if named is not None:
        config = load_config(named)
        check_flags(words)
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=words)
    elif _is_given(SOURCE, words):
        flags.DEFINE_string(SOURCE, None, "Source of the images.", flag_values=values)
    flags.DEFINE_enum("mode", mode or "train", tuple(MODES), "Command.", flag_values=values)
    define_flags(FLAGS, values)
    try:
        rest = values(["lensjax", *words])
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(describe_flag_error(error)) from None
    if values.mode == "predict" and rest[1:]:
        if values.input or len(rest) > 2:
            extra = rest[1 if values.input else 2]
            raise UserError(
                f"predict takes only one path, but {extra} was also given; give a folder, or put a pattern "
                "such as 'new/*.fits' in quotes"
            )
        values["input"].value = user_path(rest.pop())
        values["input"].present = 1
    if rest[1:]:
        if os.path.lexists(rest[1]):
            raise UserError(
                f"{rest[1]}: only one path is accepted; give a folder, or quote a pattern: 'new/*.npy'"
            )
        raise UserError(f"{rest[1]!r} is not a flag; see --help")
    if mode not in (None, values.mode):
        raise UserError(f"{mode} and --mode {values.mode}: give only one of them")
    if config is not None:
        check(config)
    _check_mode(values, named)
    source = values[SOURCE].value if SOURCE in values else None
    if source is not None and config is None and values.mode not in MOVABLE:
        raise UserError(f"--{SOURCE} needs --config, except with {' or '.join(MOVABLE)}; see --help")
    given: dict[str, Any] = {name.replace("-", "_"): values[name].value for name in FLAGS}
    mode = values.mode
    default_output = Path("comparison" if mode == "compare" else "predictions.csv")
    if model := given.pop("model"):
        from lensjax.prediction.trained_model import find_model  # slow to import

        workdir = find_model(model)
    else:
        workdir = default_workdir(named or "") if given["workdir"] is None else user_path(given["workdir"])
    crop = given.pop("fit_size") == "crop"
    return Options(
        **given
        | {
            "mode": mode,
            "config": config,
            "source": source if values.mode in MOVABLE and _is_given(SOURCE, words) else None,
            "workdir": workdir,
            "workdirs": _workdirs(given["workdir"], named) if mode == "compare" else (workdir,),
            "output": given["output"] or default_output,
            "crop": crop,
        }
    )


def take_mode(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Splits off the command if the first argument is one of `MODES`.

    Returns:
      The command, or None; and the other arguments.
    """
    if arguments and arguments[0] in MODES:
        return arguments[0], list(arguments[1:])
    return None, list(arguments)


def _is_given(name: str, words: Sequence[str]) -> bool:
    return any(word.lstrip("-").partition("=")[0] == name for word in words if word.startswith("-"))


def _workdirs(folders: str | None, config: str | None) -> tuple[Path, ...]:
    found = tuple(user_path(part) for part in (folders or "").split(",") if part)
    if config is not None or len(found) < 2 or len({path.resolve() for path in found}) < len(found):
        raise UserError("compare needs --workdir FOLDER,FOLDER of two or more different runs; omit --config")
    return found


def _check_mode(values: flags.FlagValues, config: str | None) -> None:
    """Checks that all required flags are given, and no flags of other commands."""
    mode = values.mode
    if values.model and (config is not None or values.workdir):
        raise UserError("--model replaces --workdir and --config: give only one of them")
    if config is None and not values.workdir and not values.model:
        names = {"train": "--config FILE", "predict": "--model NAME or --workdir FOLDER"}
        needed = names.get(mode, "--workdir FOLDER")
        raise UserError(f"{mode} needs {needed}; see --help")
    if values.noise and not values.psf:
        raise UserError("--noise is for telescope images; give their point-spread function with --psf")
    for name, others in EXCLUSIVE.items():
        for other in others:
            if values[name].present and values[other].present:
                raise UserError(f"--{name} cannot be combined with --{other}; see --help")
    if mode == "predict" and not values.input:
        raise UserError("predict needs --input: an image file, or a folder or zip archive of images")
    for name, flag in FLAGS.items():
        if values[name].present and values[name].value == "":
            raise UserError(f"--{name} is empty; give it a value")
        if values[name].present and mode not in flag.modes:
            raise UserError(f"--{name} is for {' or '.join(flag.modes)}, not for {mode}; see --help")
    given = [name for name in ("coordinator", "num-processes", "process-id") if values[name].present]
    if given and (not values.distributed or len(given) < 3):
        raise UserError(
            f"--{given[0]} needs --distributed and all of --coordinator, --num-processes, --process-id"
        )
