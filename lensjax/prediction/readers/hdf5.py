"""Images in HDF5 files; stacks are read one image at a time."""

import math
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

import h5py
import numpy as np

from lensjax.decoding import MAX_BLOCK, check_expansion, stream_length
from lensjax.errors import UserError
from lensjax.prediction.readers.entry import (
    CheckSize,
    Entry,
    check_type,
    error_entry,
    read_in_blocks,
    select_names,
    stack_entries,
    stack_shape,
)


def read(stream: BufferedIOBase, check_size: CheckSize, extension: str | None = None) -> Iterator[Entry]:
    """The images of an HDF5 file, ordered by dataset name, or those of the dataset `extension`.

    Nothing outside the file is read: links are not followed, and datasets that are stored in other files are
    rejected.
    """
    length = stream_length(stream)
    with h5py.File(stream, "r") as file:
        datasets: dict[str, Any] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.shape and item.dtype.kind in "iufb":
                datasets[name] = item

        file.visititems(visit)
        shapes = {name: dataset.shape for name, dataset in datasets.items()}
        for name in select_names(shapes, extension):
            try:
                yield from _entries(datasets[name], length, check_size, f":{name}")
            except UserError as error:
                yield error_entry(str(error), f":{name}")


def _entries(dataset: Any, length: int, check_size: CheckSize, part: str) -> Iterator[Entry]:
    check_type(dataset.dtype)
    number, height, width = stack_shape(dataset.shape)
    _check_storage(dataset, length)
    rows = dataset.chunks[0] if dataset.chunks and number > 1 else 1

    def read(first: int, last: int) -> np.ndarray:
        return dataset[()][None] if number == 1 else dataset[first:last]

    load = read_in_blocks(read, number, rows, height * width * dataset.dtype.itemsize)
    yield from stack_entries(dataset.shape, dataset.dtype, load, check_size, part)


def _check_storage(dataset: Any, length: int) -> None:
    """Checks that the file contains all pixels of a dataset.

    HDF5 returns zeros for pixels that are not stored.

    Raises:
      UserError: if pixels are missing or stored in another file, or the dataset or its chunks are too large.
    """
    if dataset.is_virtual or dataset.external:
        raise UserError("is stored in other files, which are not read; copy it to one file with h5repack")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if dataset.chunks is None:
        stored, expected, unit = min(dataset.id.get_storage_size(), length), size, "bytes"
    else:
        chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
        if chunk > MAX_BLOCK:
            raise UserError(f"has chunks of {chunk:,} bytes; write it again with smaller chunks")
        check_expansion(max(size, chunk), length)
        stored, unit = dataset.id.get_num_chunks(), "chunks"
        sides = zip(dataset.shape, dataset.chunks, strict=True)
        expected = math.prod(-(-side // length) for side, length in sides)
    if stored < expected:
        raise UserError(f"only {stored:,} of {expected:,} {unit} were written; copy the file again")
