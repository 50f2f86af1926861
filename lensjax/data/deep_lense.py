"""The TensorFlow Datasets form of a set of lens images: prepared once, read back without loss.

The files are array_record, which needs no TensorFlow, neither to write nor to read.
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
READ_AT_A_TIME = 256


class _LocalInfo(tfds.core.DatasetInfo):
    """What TFDS knows of a data set that nobody publishes."""

    def initialize_from_bucket(self) -> None:
        """Asks no server, which would also leave an empty temporary folder behind."""


class DeepLense(tfds.core.GeneratorBasedBuilder):
    """Builder of the data set `deep_lense`: gravitational lenses in three classes of substructure.

    An example holds `pixels` `[height, width]`, `scale` (an image is `pixels / scale`), `label` and
    `name`, as `lensjax.data.images.ImageSet` does.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Images as whole counts where they are, else as float32."}  # noqa: RUF012
    # TFDS finds this out itself only with importlib_resources, which it forgets to depend on:
    # https://github.com/tensorflow/datasets/issues/11212
    code_path = Path(__file__)

    def __init__(self, *, sets: Mapping[str, ImageSet], **kwargs: Any) -> None:
        """Keeps the images to be written.

        Args:
          sets: the images of each split, all of one size.
          **kwargs: of the base class: `data_dir`.
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
            description="Simulated strong gravitational lenses, by the substructure of their dark matter.",
            features=tfds.features.FeaturesDict(
                {
                    "pixels": tfds.features.Tensor(shape=shape, dtype=pixel_type),
                    "scale": tfds.features.Tensor(shape=(), dtype=np.float32),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "name": tfds.features.Text(),
                }
            ),
            # The order of the source is part of what is read back.
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


def prepare(source: Path, data_dir: Path, image_size: int) -> Path:
    """Writes a folder or zip archive in the published layout as the data set `deep_lense`.

    Args:
      source: what `lensjax.data.reference_layout` reads.
      data_dir: where TFDS keeps data sets; the new one goes into deep_lense/1.0.0 below it.
      image_size: expected height and width, pixels.

    Returns:
      The data set's own folder.

    Raises:
      UserError: the data set is there already, or the source or folder cannot be used.
    """
    folder = data_dir / "deep_lense" / str(DeepLense.VERSION)
    if folder.exists():
        raise UserError(f"{folder}: is there already; remove it or give another data_dir")
    sets = read_reference_layout(source, image_size)
    try:
        builder = DeepLense(sets=sets, data_dir=data_dir)
        # TFDS makes this folder though nothing is downloaded.
        with tempfile.TemporaryDirectory() as downloads, _quiet_tfds():
            builder.download_and_prepare(download_dir=downloads)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return folder


def open_prepared(path: Path, image_size: int, *, memory: float = math.inf) -> Source:
    """Opens a prepared data set. Images are read only on request, as they were before it was written.

    Args:
      path: the data set's own folder, or the data_dir it was prepared in.
      image_size: expected height and width, pixels.
      memory: how much memory the training images may take up, bytes. If they need more, reading gives
        `StreamedImages`.

    Returns:
      A source with the parts of the data set. Reading it raises UserError if a part is damaged.

    Raises:
      UserError: the data set does not exist, is a different one, or is damaged.
    """
    folder = _find_prepared(path)
    try:
        builder = tfds.builder_from_directory(folder)
        info = builder.info
        features = info.features
        pixel_types = (info.metadata or {}).get("pixel_types", {})
        known = set(features) == FEATURES and set(pixel_types) == set(info.splits)
    except Exception as error:  # JSON, protocol buffers and TFDS each have their own
        raise _damaged(folder, error) from error
    if not known or features["label"].names != list(CLASSES):
        raise UserError(
            f"{folder}: is not the data set deep_lense; prepare one with tools/prepare_tfds.py"
        )
    shape = features["pixels"].shape
    if shape != (image_size, image_size):
        raise UserError(
            f"{folder}: images of shape {shape}, expected {(image_size, image_size)}; "
            f"set config.data.image_size={shape[0]}"
        )

    def read(part: str) -> ImageSet | StreamedImages:
        pixel_type = np.dtype(pixel_types[part])
        size = info.splits[part].num_examples * image_size**2 * pixel_type.itemsize
        if part == "train" and size > memory:
            return _streamed_split(builder, part, pixel_type)
        return _read_split(builder, part, pixel_type)

    return Source(list(pixel_types), lambda parts: {part: read(part) for part in parts})


def _find_prepared(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give the folder of a prepared data set")
    for candidates in ([path], path.glob("*"), path.glob("deep_lense/*")):
        found = [folder for folder in candidates if (folder / "features.json").is_file()]
        if found:
            return max(found, key=lambda folder: natural_key(folder.name))
    raise UserError(
        f"{path}: holds no prepared data set deep_lense; prepare one with tools/prepare_tfds.py"
    )


def _read_split(builder: tfds.core.DatasetBuilder, split: str, pixel_type: np.dtype) -> ImageSet:
    count = builder.info.splits[split].num_examples
    with progress_bar(count, f"reading {split}") as bar:
        return _read_rows(
            builder, _source(builder, split), np.arange(count), pixel_type, bar.update
        )


def _streamed_split(
    builder: tfds.core.DatasetBuilder, split: str, pixel_type: np.dtype
) -> StreamedImages:
    count = builder.info.splits[split].num_examples
    source = _source(builder, split, decoders={"pixels": tfds.decode.SkipDecoding()})
    labels = np.empty(count, np.int32)
    try:
        with progress_bar(count, f"reading labels of {split}") as bar:
            for start in range(0, count, READ_AT_A_TIME):
                rows = range(start, min(start + READ_AT_A_TIME, count))
                labels[rows] = [example["label"] for example in source.__getitems__(rows)]
                bar.update(len(rows))
    except Exception as error:
        raise _damaged(Path(builder.data_dir), error) from error
    read = partial(_read_rows, builder, _source(builder, split), pixel_type=pixel_type)
    shape = builder.info.features["pixels"].shape
    return StreamedImages(read, np.arange(count), labels, shape)


def _source(builder: tfds.core.DatasetBuilder, split: str, **options: Any) -> Any:
    try:
        return builder.as_data_source(split, **options)
    except Exception as error:  # array_record's errors come from C++, under many names
        raise _damaged(Path(builder.data_dir), error) from error


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
        for start in range(0, len(rows), READ_AT_A_TIME):
            some = rows[start : start + READ_AT_A_TIME].tolist()
            for place, example in enumerate(source.__getitems__(some), start):
                pixels[place] = example["pixels"]
                scale[place] = example["scale"]
                labels[place] = example["label"]
                names.append(example["name"].decode())
            if report is not None:
                report(len(some))
    except Exception as error:
        raise _damaged(Path(builder.data_dir), error) from error
    return ImageSet(pixels, scale, labels, tuple(names))


def _damaged(folder: Path, error: Exception) -> UserError:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return UserError(
        f"{folder}: is damaged or incomplete ({reason}); remove it and prepare it again"
    )


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Keeps TFDS from printing: lensjax has its own progress bar."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
