"""Predictions for image files, written as a table while they are made."""

import dataclasses
import hashlib
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from lensjax.data.pixel_scale import run_pixel_scale
from lensjax.errors import Interrupted, UserError
from lensjax.prediction import part_file, readers, table_files
from lensjax.prediction.classifier import Classifier
from lensjax.prediction.part_file import Done
from lensjax.prediction.readers.listing import Listing, find
from lensjax.prediction.readers.sizes import Target, fitted
from lensjax.prediction.trained import Manner
from lensjax.runtime.progress import log, progress_bar


@dataclasses.dataclass(frozen=True)
class Image:
    """An image of a file, or what is wrong with it.

    Attributes:
      name: the file's name, and which of its images this is.
      pixels: as the classifier takes it; None where something is wrong.
      error: what that is.
      file: index of the file.
      following: how many images of the file come up to and with this one.
    """

    name: str
    pixels: np.ndarray | None
    error: str
    file: int
    following: int


def predict_files(
    classifier: Classifier,
    source: str,
    output: Path,
    *,
    crop: bool = False,
    pixel_scale: float | None = None,
    overwrite: bool = False,
    calibrated: bool = False,
    tta: str = "none",
) -> tuple[int, int]:
    """Classifies image files and writes a row an image to `output`; docs/predict.md says what is in it.

    The table is written batch by batch; the same call goes on where a stopped one ended. An image that
    cannot be classified is a row that says why.

    Args:
      classifier: the trained classifier.
      source: a file, a folder or zip with files at any depth, or a glob.
      output: the table: .csv, .jsonl or .parquet.
      crop: whether the middle of images that are too large is cut out.
      pixel_scale: side of the images' pixels, arcsec, from which they are resampled to those of the
        classifier; None where they are the same.
      overwrite: whether a finished `output` is replaced.
      calibrated, tta: see `Classifier.predict`.

    Returns:
      How many images were classified, and how many could not be.

    Raises:
      UserError: there is nothing to read, `output` exists or cannot be written, or what is asked for is
        not to be had.
      Interrupted: Ctrl-C was pressed; the same call goes on.
    """
    config = classifier.trained.config
    suffix = output.suffix.lower()
    table_files.check_output(output)
    manner = classifier.manner(calibrated=calibrated, tta=tta)
    zoom = None if pixel_scale is None else pixel_scale / run_pixel_scale(config.data)
    target = Target(config.data.image_size, crop, zoom)
    listing = find(source)
    names = table_files.columns(config.data.fit != "none")
    about = {
        "run": str(classifier.trained.workdir.absolute()),
        "weights": weights_digest(classifier),
        "input": str(listing.top.absolute()),
        "files": len(listing.names),
        "names": listing.digest(),
        "columns": names,
        **dataclasses.asdict(manner),
        **dataclasses.asdict(target),
    }
    head = table_files.header(names, suffix)
    try:
        with (
            part_file.opened(output, about, head, overwrite=overwrite) as part,
            progress_bar(
                len(listing.names), "predicting", unit="files", initial=part.done.file
            ) as bar,
        ):
            if part.done.file or part.done.image:
                log.info("%s: going on after %s files", output, f"{part.done.file:,}")
            images = read_images(listing, target, part.done.file, part.done.image)
            for batch in batched(images, config.eval_batch_size):
                table = answer(classifier, batch, target.size, manner)
                bad = sum(row["error"] is not None for row in table)
                last = batch[-1]
                done = Done(
                    last.file,
                    last.following,
                    good=part.done.good + len(batch) - bad,
                    bad=part.done.bad + bad,
                )
                bar.update(last.file - part.done.file)
                part.append(table_files.encode(table, names, suffix), done)
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT) from None
    finished = part.path
    if suffix == ".parquet":
        finished = output.with_name(output.name + ".part.parquet")
        table_files.to_parquet(part.path, finished, names)
    part_file.finish(part, output, finished)
    return part.done.good, part.done.bad


def answer(
    classifier: Classifier, batch: list[Image], size: int, manner: Manner
) -> list[table_files.Row]:
    """The rows of some images."""
    pixels = np.zeros((len(batch), size, size), np.float32)
    for row, image in enumerate(batch):
        if image.pixels is not None:
            pixels[row] = image.pixels
    errors = [image.error for image in batch]
    answers = classifier.answer(pixels, errors, manner)
    return table_files.rows([image.name for image in batch], answers)


def batched(images: Iterator[Image], size: int) -> Iterator[list[Image]]:
    """Images, that many at a time."""
    while batch := list(itertools.islice(images, size)):
        yield batch


def read_images(
    listing: Listing, target: Target, first_file: int = 0, first_image: int = 0
) -> Iterator[Image]:
    """The images of the files in a listing, one after another.

    Args:
      listing: the files.
      target: what is made of each image.
      first_file: index of the file to start with.
      first_image: how many of its images are left out.
    """
    for file in range(first_file, len(listing.names)):
        name = listing.names[file]
        skipped = first_image if file == first_file else 0
        try:
            stream = listing.open(name)
        except UserError as error:
            if not skipped:
                yield Image(name, None, str(error), file, 1)
            continue
        with stream:
            for index, entry in enumerate(readers.entries(stream, name)):
                if index < skipped:
                    continue
                try:
                    pixels, error_text = fitted(readers.load(entry), target), ""
                except UserError as error:
                    pixels, error_text = None, str(error)
                yield Image(name + entry.part, pixels, error_text, file, index + 1)


def weights_digest(classifier: Classifier) -> str:
    """The same for the same parameters."""
    key = hashlib.sha256()
    for leaf in jax.tree.leaves(classifier.trained.variables):
        key.update(np.asarray(leaf).tobytes())
    return key.hexdigest()[:16]
