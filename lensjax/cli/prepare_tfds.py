"""Writes lens images as the TensorFlow Datasets data set deep_lense (no TensorFlow needed).

  lensjax prepare-tfds --source dataset.zip --data-dir FOLDER

  --source PATH       zip archive or folder with train/ and val/, each with the
                      folders no, sphere and vort of .npy files; test/ is taken
                      along where there is one
  --data-dir FOLDER   where the data set goes: FOLDER/deep_lense/1.0.0; one that
                      is there already is not overwritten
  --image-size N      expected height and width, pixels (150 if not given)

Train on it with --config.data.source=tfds:FOLDER.
Exit codes: 0 done; 2 something in the command or the images is wrong, and the
message says what.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lensjax.cli import runner
from lensjax.errors import UserError
from lensjax.runtime.progress import log


def main(arguments: Sequence[str]) -> None:
    """Prepares the data set that the words after the program's name ask for.

    Raises:
      UserError: something in the command or the images is wrong.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("source", None, "", flag_values=values)
    flags.DEFINE_string("data_dir", None, "", flag_values=values)
    flags.DEFINE_integer("image_size", 150, "", lower_bound=1, flag_values=values)
    runner.read_flags(values, list(map(_with_underscores, arguments)))
    if not values.source or not values.data_dir:
        raise UserError("--source and --data-dir are both needed; see --help")
    from lensjax.data.deep_lense import prepare  # after the flags: loading TFDS takes a moment

    source, data_dir = Path(values.source).expanduser(), Path(values.data_dir).expanduser()
    folder = prepare(source, data_dir, values.image_size)
    log.info("prepared %s; train on it with --config.data.source=tfds:%s", folder, data_dir)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
      arguments: the words after the command; those of this process if None.
    """
    return runner.run(main, __doc__, name="lensjax prepare-tfds", arguments=arguments)
