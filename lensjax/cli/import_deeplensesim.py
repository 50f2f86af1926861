"""The command import: converts DeepLenseSim's files to a data set with splits."""

from collections.abc import Sequence

from lensjax.cli.flags import parse_flags, path_to, random_seed, real, usage
from lensjax.data.deeplensesim import VALIDATION, import_images
from lensjax.runtime.progress import log

FLAGS = {
    "input": path_to(
        "PATH",
        "Folder or zip archive with the folders no_sub, cdm and axion (or no, sphere and vort) of .npy "
        "files: images, or pickled pairs of an image and an axion mass. Other files are skipped. If it "
        "contains train/ and val/ with such folders, these splits are kept.",
    ),
    "output": path_to(
        "FOLDER",
        "Folder of the data set: train/, val/ and, if there are test images, test/, each with the folders "
        "no, sphere and vort of .npy files, scaled to [0, 1]; and truth.csv with class, axion mass in eV and "
        "original file of each image.",
    ),
    "validation": real(
        f"Validation images of each class: a fraction below 1, or a number; {VALIDATION} if not given.",
        None,
        0,
    ),
    "test": real("Test images of each class: a fraction below 1, or a number; 0 if not given.", None, 0),
    "seed": random_seed("of the random splits"),
}
USAGE = usage(
    "Converts DeepLenseSim's files to a data set with splits. Code in pickled files is never executed.",
    ["lensjax import --input FOLDER --output FOLDER"],
    FLAGS,
    "All images are checked first. If some are damaged, constant, not finite or of a different size, up to "
    "ten of them are listed, and nothing is written. Rerun the same command to resume. An output folder with "
    "other files is not changed.",
)


def main(arguments: Sequence[str]) -> None:
    """Runs the command import."""
    values = parse_flags(FLAGS, arguments, required=("input", "output"))
    source, output = values["input"], values["output"]
    imported = import_images(
        source, output, validation=values["validation"], test=values["test"], seed=values["seed"]
    )
    numbers = ", ".join(f"{number:,} in {split}/" for split, number in imported.num_images.items())
    size = imported.image_size
    log.info("%s: images of %d x %d pixels, %s", output, size, size, numbers)
    log.info("train on them with --config.data.source=%s --config.data.image_size=%d", output, size)
