"""The command prepare-tfds: prepares a TFDS data set from a zip archive or folder, without TensorFlow."""

from collections.abc import Sequence

from lensjax.cli.flags import integer, parse_flags, path_to, usage
from lensjax.runtime.progress import log

FLAGS = {
    "source": path_to(
        "PATH",
        "Zip archive or folder with train/ and val/, each with the folders no, sphere and vort of .npy "
        "files; test/ is included if it exists.",
    ),
    "data-dir": path_to(
        "FOLDER", "Data folder of TFDS; FOLDER/deep_lense/1.0.0 is created, and must not exist yet."
    ),
    "image-size": integer("Expected height and width, pixels; 150 if not given.", 150, 1),
}
USAGE = usage(
    "Writes images of lenses as the TensorFlow Datasets data set deep_lense. TensorFlow is not needed.",
    ["lensjax prepare-tfds --source dataset.zip --data-dir FOLDER"],
    FLAGS,
    "Train on it with --config.data.source=tfds:FOLDER.",
)


def main(arguments: Sequence[str]) -> None:
    """Runs the command prepare-tfds."""
    values = parse_flags(FLAGS, arguments, required=("source", "data-dir"))
    from lensjax.data.deep_lense import prepare_dataset  # TensorFlow Datasets is slow to import

    source, data_dir = values["source"], values["data-dir"]
    folder = prepare_dataset(source, data_dir, values["image-size"])
    log.info("prepared %s; train on it with --config.data.source=tfds:%s", folder, data_dir)
