"""Lens images as a TensorFlow Datasets data set, prepared once and read without loss.

The files are in the array_record format. Neither writing nor reading them needs TensorFlow.
"""

import contextlib
import io
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from lensjax.data.file_tree import natural_key
from lensjax.data.images import CLASSES, ImageSet
from lensjax.data.reference_layout import read_reference_layout
from lensjax.data.splits import Source
from lensjax.data.streamed import StreamedImages
from lensjax.errors import UserError
from lensjax.runtime.progress import progress_bar

FEATURES = {"pixels", "scale", "label", "name"}
READ_CHUNK = 256


class _LocalInfo(tfds.core.DatasetInfo):
    """Dataset info of a data set that is not published."""

    def initialize_from_bucket(self) -> None:
        """Does nothing. The base class contacts a server and leaves an empty temporary folder."""


class DeepLense(tfds.core.GeneratorBasedBuilder):
    """Builder of the data set `deep_lense`: gravitational lenses in three classes of substructure.

    An example has the fields `pixels` `[height, width]`, `scale` (an image is `pixels / scale`), `label` and
    `name`; see `lensjax.data.images.ImageSet`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Images as photon counts if possible, otherwise float32."}  # noqa: RUF012
    # TFDS finds the path only with importlib_resources, a dependency that it does not declare:
    # https://github.com/tensorflow/datasets/issues/11212
    code_path = Path(__file__)

    def __init__(self, *, sets: Mapping[str, ImageSet], **kwargs: Any) -> None:
        """Initializes the builder with the images to write.

        Args:
          sets: the images of each split, all of the same size.
          **kwargs: arguments of the base class, such as `data_dir`.
        """
        self._sets = sets
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        pixel_types = {split: images.pixels.dtype for split, images in self._sets.items()}
        # One type for all splits: float32 holds every 16-bit count exactly.
        pixel_type = np.result_type(np.uint16, *pixel_types.values())
        shape = next(iter(self._sets.values())).pixels.shape[1:]
        return _LocalInfo(
            builder=self,
            description="Simulated strong gravitational lenses in three classes of dark-matter substructure.",
            features=tfds.features.FeaturesDict(
                {
                    "pixels": tfds.features.Tensor(shape=shape, dtype=pixel_type),
                    "scale": tfds.features.Tensor(shape=(), dtype=np.float32),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "name": tfds.features.Text(),
                }
            ),
            # Images must be read in the order of the source.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                pixel_types={split: dtype.name for split, dtype in pixel_types.items()}
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in self._sets}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images = self._sets[split]
        pixel_type = self.info.features["pixels"].np_dtype
        with progress_bar(len(images), f"writing {split}") as bar:
            for row in range(len(images)):
                yield (
                    row,
                    {
                        "pixels": images.pixels[row].astype(pixel_type, copy=False),
                        "scale": images.scale[row],
                        "label": int(images.labels[row]),
                        "name": images.names[row],
                    },
                )
                bar.update()


def prepare_dataset(source: Path, data_dir: Path, image_size: int) -> Path:
    """Writes a folder or zip archive in the published layout as the data set `deep_lense`.

    Args:
      source: folder or zip archive, see `lensjax.data.reference_layout`.
      data_dir: the TFDS data folder; the data set is written to its subfolder deep_lense/1.0.0.
      image_size: expected height and width, pixels.

    Returns:
      The data set's folder.

    Raises:
      UserError: if the data set already exists, the source is invalid, or the folder cannot be written.
    """
    folder = data_dir / "deep_lense" / str(DeepLense.VERSION)
    if folder.exists():
        raise UserError(f"{folder} already exists; remove it or choose another --data-dir")
    sets = read_reference_layout(source, image_size)
    try:
        builder = DeepLense(sets=sets, data_dir=data_dir)
        # TFDS creates the download folder even though nothing is downloaded.
        with tempfile.TemporaryDirectory() as downloads, _silence_tfds():
            builder.download_and_prepare(download_dir=downloads)
    except OSError as error:
        raise UserError(f"{folder}: cannot write: {error.strerror or error}") from error
    return folder


def open_dataset(path: Path, image_size: int, *, memory: float = math.inf) -> Source:
    """Opens a prepared data set.

    Images are read only on request, and are identical to those of the original source.

    Args:
      path: the data set's folder, or the data_dir in which it was prepared.
      image_size: expected height and width, pixels.
      memory: memory limit for the training images, bytes. Larger sets are read as `StreamedImages`.

    Returns:
      A source with the parts of the data set. Reading it raises UserError if a part is damaged.

    Raises:
      UserError: if there is no data set, it is not `deep_lense` or is damaged, or its images have a different
        size.
    """
    folder = _find_dataset(path)
    try:
        builder = tfds.builder_from_directory(folder)
        info = builder.info
        features = info.features
        pixel_types = (info.metadata or {}).get("pixel_types", {})
        known = set(features) == FEATURES and set(pixel_types) == set(info.splits)
    except Exception as error:  # JSON, protocol buffers and TFDS raise different errors
        raise _damage_error(folder, error) from error
    if not known or features["label"].names != list(CLASSES):
        raise UserError(f"{folder}: not a deep_lense data set; prepare one with lensjax prepare-tfds")
    shape = features["pixels"].shape
    if shape != (image_size, image_size):
        raise UserError(
            f"{folder}: image shape {shape}, expected {(image_size, image_size)}; "
            f"set config.data.image_size={shape[0]}"
        )

    def read(part: str) -> ImageSet | StreamedImages:
        pixel_type = np.dtype(pixel_types[part])
        size = info.splits[part].num_examples * image_size**2 * pixel_type.itemsize
        if part == "train" and size > memory:
            return _stream_split(builder, part, pixel_type)
        return _read_split(builder, part, pixel_type)

    return Source(list(pixel_types), lambda parts: {part: read(part) for part in parts})


def _find_dataset(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; specify the folder of a prepared data set")
    for candidates in ([path], path.glob("*"), path.glob("deep_lense/*")):
        found = [folder for folder in candidates if (folder / "features.json").is_file()]
        if found:
            return max(found, key=lambda folder: natural_key(folder.name))
    raise UserError(
        f"{path}: contains no prepared deep_lense data set; prepare one with lensjax prepare-tfds"
    )


def _read_split(builder: tfds.core.DatasetBuilder, split: str, pixel_type: np.dtype) -> ImageSet:
    count = builder.info.splits[split].num_examples
    with progress_bar(count, f"reading {split}") as bar:
        return _read_rows(builder, _open_records(builder, split), np.arange(count), pixel_type, bar.update)


def _stream_split(builder: tfds.core.DatasetBuilder, split: str, pixel_type: np.dtype) -> StreamedImages:
    count = builder.info.splits[split].num_examples
    source = _open_records(builder, split, decoders={"pixels": tfds.decode.SkipDecoding()})
    labels = np.empty(count, np.int32)
    try:
        with progress_bar(count, f"reading labels of {split}") as bar:
            for start in range(0, count, READ_CHUNK):
                rows = range(start, min(start + READ_CHUNK, count))
                labels[rows] = [example["label"] for example in source.__getitems__(rows)]
                bar.update(len(rows))
    except Exception as error:
        raise _damage_error(Path(builder.data_dir), error) from error
    read = partial(_read_rows, builder, _open_records(builder, split), pixel_type=pixel_type)
    shape = builder.info.features["pixels"].shape
    return StreamedImages(read, np.arange(count), labels, shape)


def _open_records(builder: tfds.core.DatasetBuilder, split: str, **options: Any) -> Any:
    try:
        return builder.as_data_source(split, **options)
    except Exception as error:  # array_record raises many types of errors from C++
        raise _damage_error(Path(builder.data_dir), error) from error


def _read_rows(
    builder: tfds.core.DatasetBuilder,
    source: Any,
    rows: np.ndarray,
    pixel_type: np.dtype,
    report: Callable[[int], Any] | None = None,
) -> ImageSet:
    pixels = np.empty((len(rows), *builder.info.features["pixels"].shape), pixel_type)
    scale = np.empty(len(rows), np.float32)
    labels = np.empty(len(rows), np.int32)
    names = []
    try:
        for start in range(0, len(rows), READ_CHUNK):
            some = rows[start : start + READ_CHUNK].tolist()
            for place, example in enumerate(source.__getitems__(some), start):
                pixels[place] = example["pixels"]
                scale[place] = example["scale"]
                labels[place] = example["label"]
                names.append(example["name"].decode())
            if report is not None:
                report(len(some))
    except Exception as error:
        raise _damage_error(Path(builder.data_dir), error) from error
    return ImageSet(pixels, scale, labels, tuple(names))


def _damage_error(folder: Path, error: Exception) -> UserError:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return UserError(f"{folder}: damaged or incomplete data set ({reason}); remove it and prepare it again")


@contextlib.contextmanager
def _silence_tfds() -> Iterator[None]:
    """Suppresses the output of TFDS, because lensjax has its own progress bar."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
