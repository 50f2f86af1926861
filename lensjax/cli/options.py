"""From the words of the command `lensjax` to its options."""

import dataclasses
import difflib
import runpy
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from lensjax.config import check, flatten
from lensjax.data.images import Split
from lensjax.errors import UserError

USAGE = """\
lensjax: dark-matter substructure from images of strong gravitational lenses.

  python -m lensjax.main --config configs/pinn.py:quick        train and report
  python -m lensjax.main --mode evaluate --workdir runs/pinn-quick
  python -m lensjax.main --mode predict --workdir runs/pinn-quick --input FOLDER

  --config FILE[:VARIANT]   what to train: a file of configs/, perhaps a variant
                            of it (quick: minutes on a laptop)
  --config.FIELD=VALUE      another value for a field, see below
  --workdir FOLDER          where the run lies; runs/CONFIG[-VARIANT] if not
                            given. The same command again goes on from there
  --distributed             train: together with other processes, one a host
                            (docs/scaling.md); --coordinator HOST:PORT,
                            --num-processes N and --process-id I where neither
                            SLURM, Open MPI, Kubernetes nor a TPU pod tells them
  --profile                 train: trace some steps, and say after each epoch
                            where the time went
  --debug-nans              train: stop at the operation that gives the first
                            NaN, with its traceback; slower
  --mode MODE               train, evaluate (best epoch, again), predict, or
                            compare, which takes --workdir FOLDER,FOLDER
  --split SPLIT             evaluate, compare: test (the default), validation
                            or train; no other images are read
  --tta d4                  evaluate, predict, compare: the mean over the eight
                            views of each image, for runs trained on turned ones

  predict (docs/predict.md):
  --input PATH              a file, a folder or zip of files at any depth, or a
                            quoted glob: .npy .npz .fits .fits.gz .png .tif .h5
  --output FILE             the table, .csv, .jsonl or .parquet; predictions.csv
                            if not given. The same command again goes on with
                            an unfinished one, FILE.part
  --overwrite               replace a finished FILE
  --fit-size crop           cut the middle out of images that are too large
  --pixel-scale ARCSEC      the images' pixel scale, from which they are
                            resampled to the run's
  --calibrated              probabilities by the temperature that
                            --mode evaluate --split validation fitted

  compare (docs/predict.md):
  --output FOLDER           comparison.json, roc.png, roc.pdf; comparison/ if
                            not given. --overwrite replaces an earlier one

Fields changed most, as --config.FIELD=VALUE (lensjax/config.py has them all):
  data.source=dataset.zip   your own images; also tfds:FOLDER,
                            simulated:model_2, simulated:common_test?fresh
  data.num_train=9000       how many to simulate; data.num_test likewise
  data.fit=none             no lens fit; common_test, general
  num_epochs=20             times that each image is seen
  batch_size=128            images in a step, over all devices
  seed=1                    everything random
  seeds=5                   five runs, with mean and spread
  optimizer.learning_rate=3e-4, optimizer.schedule=cosine,
  optimizer.warmup_steps=200, optimizer.weight_decay=0.05,
  optimizer.ema_decay=0.999, optimizer.clip_norm=1
  augmentation.dihedral=true, augmentation.max_rotation=10,
  augmentation.max_shift=4  what is done to training images
  loss.label_smoothing=0.1
  model.pretrained=FILE     weights to start from (docs/weights.md)
  model.width=32            a narrower ResNet
  precision=bfloat16        or tensorfloat32: faster on GPUs that have them
  checkpoint_minutes=2      how often a run is saved within an epoch

Exit codes: 0 done; 1 failed, or some images could not be predicted; 2 something
in the command, the config or the files is wrong, and the message says what.
"""

MODES = ("train", "evaluate", "predict", "compare")
SPLITS = ("test", "validation", "train")
FLAG_MODES = {
    **dict.fromkeys(("fit-size", "pixel-scale", "calibrated"), ("predict",)),
    "overwrite": ("predict", "compare"),
    "tta": ("evaluate", "predict", "compare"),
    **dict.fromkeys(
        ("debug-nans", "profile", "distributed", "coordinator", "num-processes", "process-id"),
        ("train",),
    ),
    "split": ("evaluate", "compare"),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What a command asks for.

    Attributes:
      mode: one of `MODES`.
      config: the whole config; None where none was named.
      workdir: the run's folder.
      workdirs: the folders of the runs to compare.
      split: one of `SPLITS`.
      input: what to predict; None where nothing was named.
      output: where predictions go.
      overwrite: whether a finished output is replaced.
      crop: whether images that are too large are cut to the run's size.
      pixel_scale: of the images to predict, arcsec; None where it is the run's.
      calibrated: whether probabilities are those of the fitted temperature.
      tta: "none" or "d4".
      debug_nans: whether the operation that gives the first NaN is sought.
      profile: whether steps are timed and some of them traced.
      distributed: whether other processes train along.
      coordinator: address of the first of them; None where JAX is to find out.
      num_processes, process_id: how many there are, and this one's number; None as above.
    """

    mode: str
    config: ConfigDict | None
    workdir: Path
    workdirs: tuple[Path, ...]
    split: Split
    input: Path | None
    output: Path
    overwrite: bool
    crop: bool
    pixel_scale: float | None
    calibrated: bool
    tta: str
    debug_nans: bool
    profile: bool
    distributed: bool
    coordinator: str | None
    num_processes: int | None
    process_id: int | None


def parse(arguments: Sequence[str]) -> Options:
    """The options in the words of a command.

    Args:
      arguments: the words after the program's name.

    Raises:
      UserError: a flag, a value or a config field is wrong.
    """
    named, words = _take_config(arguments)
    values = flags.FlagValues()
    config = None
    if named is not None:
        config = load_config(named)
        check_fields(config, words)
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=words)
    flags.DEFINE_enum("mode", "train", MODES, "", flag_values=values)
    flags.DEFINE_enum("split", "test", SPLITS, "", flag_values=values)
    for name in ("workdir", "input", "output"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    _define_prediction_flags(values)
    try:
        rest = values(["lensjax", *words])
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(str(error).removeprefix("flag ")) from None
    if rest[1:]:
        raise UserError(f"{rest[1]!r} is not a flag; see --help")
    if config is not None:
        check(config)
    elif not values.workdir:
        needed = "--config FILE" if values.mode == "train" else "--workdir FOLDER"
        raise UserError(f"--mode {values.mode} needs {needed}; see --help")
    if values.mode == "predict" and not values.input:
        raise UserError("--mode predict needs --input: an image file, or a folder or zip of them")
    _check_mode(values)
    workdir = Path(values.workdir) if values.workdir else default_workdir(named or "")
    return Options(
        mode=values.mode,
        config=config,
        workdir=workdir,
        workdirs=_compared(values, named) if values.mode == "compare" else (workdir,),
        split=values.split,
        input=Path(values.input) if values.input else None,
        output=Path(
            values.output or ("comparison" if values.mode == "compare" else "predictions.csv")
        ),
        overwrite=values.overwrite,
        crop=values["fit-size"].value == "crop",
        pixel_scale=values["pixel-scale"].value,
        calibrated=values.calibrated,
        tta=values.tta,
        debug_nans=bool(values["debug-nans"].value),
        profile=values.profile,
        distributed=values.distributed,
        coordinator=values.coordinator,
        num_processes=values["num-processes"].value,
        process_id=values["process-id"].value,
    )


def _define_prediction_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_enum("fit-size", "error", ("error", "crop"), "", flag_values=values)
    flags.DEFINE_float("pixel-scale", None, "", lower_bound=1e-6, flag_values=values)
    flags.DEFINE_enum("tta", "none", ("none", "d4"), "", flag_values=values)
    flags.DEFINE_string("coordinator", None, "", flag_values=values)
    flags.DEFINE_integer("num-processes", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("process-id", None, "", lower_bound=0, flag_values=values)
    for name in ("overwrite", "calibrated", "debug-nans", "profile", "distributed"):
        flags.DEFINE_boolean(name, False, "", flag_values=values)


def _compared(values: flags.FlagValues, config: str | None) -> tuple[Path, ...]:
    """The folders of the runs to compare.

    Raises:
      UserError: there are not two, or one is named twice.
    """
    folders = tuple(Path(part) for part in (values.workdir or "").split(",") if part)
    if config is not None or len(folders) < 2 or len(set(folders)) < len(folders):
        raise UserError(
            "--mode compare needs --workdir FOLDER,FOLDER of two different runs or more, and no --config"
        )
    return folders


def _check_mode(values: flags.FlagValues) -> None:
    """Refuses flags that mean nothing in the mode.

    Raises:
      UserError: there are some.
    """
    for name, modes in FLAG_MODES.items():
        if values[name].present and values.mode not in modes:
            raise UserError(f"--{name} is for --mode {' or '.join(modes)}; see --help")
    told = [name for name in ("coordinator", "num-processes", "process-id") if values[name].present]
    if told and (not values.distributed or len(told) < 3):
        raise UserError(
            f"--{told[0]} goes with --distributed and all of --coordinator, --num-processes, --process-id"
        )


def load_config(argument: str) -> ConfigDict:
    """The config that `FILE[:VARIANT]` names.

    Raises:
      UserError: there is no such file or variant, or the file makes no config.
    """
    file, _, variant = argument.partition(":")
    if not Path(file).is_file():
        raise UserError(
            f"--config {argument}: there is no such file; the experiments lie in configs/"
        )
    try:
        config = runpy.run_path(file)["get_config"](variant)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--config {argument}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config {argument}: get_config gives no ConfigDict")
    return config.lock()


def check_fields(config: ConfigDict, words: Sequence[str]) -> None:
    """Refuses `--config.FIELD` where the config has no such field, and names the nearest one.

    Raises:
      UserError: a field is not there.
    """
    known = [f"config.{name}" for name in flatten(config.to_dict())]
    for word in words:
        name = word.lstrip("-").partition("=")[0]
        if word.startswith("-") and name.startswith("config.") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean --{near[0]}?" if near else "lensjax/config.py describes all"
            raise UserError(f"--{name}: the config has no such field; {hint}")


def default_workdir(config_argument: str) -> Path:
    """Where a run lies if nothing else is said: `configs/pinn.py:quick` in `runs/pinn-quick`."""
    file, _, variant = config_argument.partition(":")
    return Path("runs") / (Path(file).stem + (f"-{variant}" if variant else ""))


def _take_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """What `--config` was given, and the other words."""
    named = None
    others = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--config", "-config"):
            named = value if equals else next(words, "")
        else:
            others.append(word)
    return named, others
