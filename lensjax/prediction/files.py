"""Prediction for image files, written to a table batch by batch."""

import dataclasses
import hashlib
import itertools
import signal
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

import jax
import numpy as np

from lensjax.data.pixel_scale import run_pixel_scale
from lensjax.errors import Interrupted, UserError
from lensjax.prediction import part_file, readers, table_files
from lensjax.prediction.classifier import Classifier
from lensjax.prediction.part_file import TableProgress
from lensjax.prediction.readers.listing import Listing, find_images
from lensjax.prediction.readers.sizes import TargetSize, check_size, find_zoom, match_size
from lensjax.prediction.trained_model import PredictionOptions
from lensjax.runtime.progress import log, progress_bar

MAX_FAILURES = 10  # number of consecutive failures in a file that each get a row


@dataclasses.dataclass(frozen=True)
class LoadedImage:
    """An image from a file, or the reason why it cannot be used.

    Attributes:
      name: name of the file, with the image's position if the file has several images.
      pixels: image at the classifier's size, scaled to [0, 1]; None if there is an error.
      error: error message, or "".
      file: index of the file.
      num_read: number of images read from the file, including this image.
      number: number of images that this row stands for.
    """

    name: str
    pixels: np.ndarray | None
    error: str
    file: int
    num_read: int
    number: int = 1


def predict_files(
    classifier: Classifier,
    source: str,
    output: Path,
    *,
    crop: bool = False,
    pixel_scale: float | None = None,
    extension: str | None = None,
    overwrite: bool = False,
    calibrated: bool = False,
    tta: str = "none",
) -> tuple[int, int]:
    """Classifies image files and writes one row per image to `output` (columns: see docs/predict.md).

    The table is written batch by batch. After an interruption, the same call resumes where it stopped. An
    image that cannot be classified gets a row with the reason.

    Args:
      classifier: the trained classifier.
      source: a file, a folder or zip archive with files at any depth, or a glob pattern.
      output: the table: .csv, .jsonl or .parquet.
      crop: if True, the center of larger images is used.
      pixel_scale: pixel scale of the images, arcsec; they are resampled to the classifier's pixel scale. If
        None, images are not resampled.
      extension: name, number or "name,version" of the only FITS extension to classify, or name of the only
        HDF5 dataset or .npz array; None for all.
      overwrite: if True, an existing `output` is replaced.
      calibrated, tta: see `Classifier.predict`.

    Returns:
      Numbers of images with and without a prediction.

    Raises:
      UserError: if there are no images, `output` exists or cannot be written, or the run does not support
        an option.
      Interrupted: on Ctrl-C; the same call resumes.
    """
    config = classifier.trained.config
    suffix = output.suffix.lower()
    table_files.check_output(output)
    options = classifier.prediction_options(calibrated=calibrated, tta=tta)
    classifier.trained.warn_without_domain()
    zoom = (
        None
        if pixel_scale is None
        else find_zoom(pixel_scale, run_pixel_scale(config.data), has_fit=config.data.fit != "none")
    )
    target = TargetSize(config.data.image_size, crop, zoom)
    listing = find_images(source)
    if listing.skipped:
        log.warning("%s: skipped %s: not a supported file format", source, listing.describe_skipped())
    names = table_files.column_names(config.data.fit != "none")
    about = {
        "run": str(classifier.trained.workdir.absolute()),
        "weights": weights_digest(classifier),
        "input": str(listing.top.absolute()),
        "files": len(listing.names),
        "names": listing.digest(),
        "columns": names,
        **dataclasses.asdict(options),
        **dataclasses.asdict(target),
        "extension": extension,
    }
    header = table_files.encode_header(names, suffix)
    try:
        with (
            part_file.open_part(output, about, header, overwrite=overwrite) as part,
            progress_bar(len(listing.names), "predicting", unit="files", initial=part.progress.file) as bar,
        ):
            if part.progress.file or part.progress.image:
                log.info("%s: resuming after %s files", output, f"{part.progress.file:,}")
            images = read_images(listing, target, extension, part.progress.file, part.progress.image)
            for batch in in_batches(images, config.eval_batch_size):
                table = predict_batch(classifier, batch, target.size, options)
                failed = [row["error"] is not None for row in table]
                bad = sum(image.number for image, is_bad in zip(batch, failed, strict=True) if is_bad)
                last = batch[-1]
                progress = TableProgress(
                    last.file,
                    last.num_read,
                    good=part.progress.good + failed.count(False),
                    bad=part.progress.bad + bad,
                    marked=part.progress.marked + sum(row["in_domain"] is False for row in table),
                )
                bar.update(last.file - part.progress.file)
                part.append(table_files.encode_rows(table, names, suffix), progress)
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT) from None
    finished = part.path
    if suffix == ".parquet":
        finished = output.with_name(output.name + ".part.parquet")
        finished.unlink(missing_ok=True)  # may be a link
        table_files.write_parquet(part.path, finished, names)
    part_file.finish(part, output, finished)
    if part.progress.marked:
        log.warning(
            "%s of %s images are unlike the validation images; do not trust their predictions: the column "
            "'in_domain' marks them, and 'reasons' explains why",
            f"{part.progress.marked:,}",
            f"{part.progress.good:,}",
        )
    return part.progress.good, part.progress.bad


def predict_batch(
    classifier: Classifier, batch: list[LoadedImage], size: int, options: PredictionOptions
) -> list[table_files.Row]:
    """Classifies a batch of images and returns their table rows.

    Args:
      classifier: the trained classifier.
      batch: the images.
      size: height and width of the images, pixels.
      options: temperature and test-time augmentation.
    """
    pixels = np.zeros((len(batch), size, size), np.float32)
    for row, image in enumerate(batch):
        if image.pixels is not None:
            pixels[row] = image.pixels
    errors = [image.error for image in batch]
    predictions = classifier.predict_scaled(pixels, errors, options)
    return table_files.table_rows([image.name for image in batch], predictions)


def in_batches(images: Iterator[LoadedImage], size: int) -> Iterator[list[LoadedImage]]:
    """Groups images into batches of `size`; the last batch may be smaller."""
    while batch := list(itertools.islice(images, size)):
        yield batch


def read_images(
    listing: Listing,
    target: TargetSize,
    extension: str | None = None,
    first_file: int = 0,
    first_image: int = 0,
) -> Iterator[LoadedImage]:
    """Reads the images of the listed files, one at a time.

    After `MAX_FAILURES` consecutive failures in a file, the subsequent ones share one row of the table.

    Args:
      listing: the files.
      target: image size of the classifier.
      extension: name, number or "name,version" of the only FITS extension to read, or name of the only HDF5
        dataset or .npz array; None for all.
      first_file: index of the first file to read.
      first_image: number of images of that file to skip.
    """
    for file in range(first_file, len(listing.names)):
        name = listing.names[file]
        skipped = first_image if file == first_file else 0
        try:
            stream = listing.open(name)
        except UserError as error:
            if not skipped:
                yield LoadedImage(name, None, str(error), file, 1)
            continue
        with stream:
            images = _read_file(stream, name, file, target, extension, skipped)
            yield from _join_failures(images, skipped)


def _read_file(
    stream: BufferedIOBase, name: str, file: int, target: TargetSize, extension: str | None, skipped: int
) -> Iterator[LoadedImage]:
    """Reads the images of a file, and again the last skipped ones, to count consecutive failures."""

    def check(shape: tuple[int, int]) -> None:
        check_size(shape, target)

    for index, entry in enumerate(readers.entries(stream, name, check, extension)):
        if index < skipped - MAX_FAILURES:
            continue
        try:
            pixels, message = match_size(readers.load(entry), target), ""
        except UserError as error:
            pixels, message = None, str(error)
        yield LoadedImage(name + entry.part, pixels, message, file, index + 1)


def _join_failures(images: Iterator[LoadedImage], skipped: int) -> Iterator[LoadedImage]:
    """Merges consecutive failures beyond `MAX_FAILURES` into one; yields only images after `skipped`."""
    failures, joined = 0, None
    for image in images:
        failures = failures + 1 if image.error else 0
        if image.num_read <= skipped:
            continue
        if failures > MAX_FAILURES:
            first = joined or image
            joined = dataclasses.replace(first, num_read=image.num_read, number=first.number + bool(joined))
            continue
        if joined:
            yield _describe_joined(joined)
            joined = None
        yield image
    if joined:
        yield _describe_joined(joined)


def _describe_joined(joined: LoadedImage) -> LoadedImage:
    if joined.number == 1:
        return joined
    others = f"; the next {joined.number - 1:,} images of the file also failed"
    return dataclasses.replace(joined, error=joined.error + others)


def weights_digest(classifier: Classifier) -> str:
    """Hash of the classifier's parameters and running statistics."""
    key = hashlib.sha256()
    for leaf in jax.tree.leaves(classifier.trained.variables):
        key.update(np.asarray(leaf).tobytes())
    return key.hexdigest()[:16]
