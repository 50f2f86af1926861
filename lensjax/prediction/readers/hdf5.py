"""Images in HDF5 files; stacks are read one image at a time."""

from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

import h5py

from lensjax.errors import UserError
from lensjax.prediction.readers.entry import Entry, error_entry, image_arrays, stack_entries, stack_shape


def read(stream: BufferedIOBase) -> Iterator[Entry]:
    """The images of an HDF5 file, ordered by dataset name. Links are not followed."""
    with h5py.File(stream, "r") as file:
        datasets: dict[str, Any] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.shape and item.dtype.kind in "iufb":
                datasets[name] = item

        file.visititems(visit)
        for name in image_arrays({name: dataset.shape for name, dataset in datasets.items()}):
            try:
                yield from _entries(datasets[name], f":{name}")
            except UserError as error:
                yield error_entry(str(error), f":{name}")


def _entries(dataset: Any, part: str) -> Iterator[Entry]:
    one_image = stack_shape(dataset.shape)[0] == 1
    yield from stack_entries(dataset.shape, lambda index: dataset[()] if one_image else dataset[index], part)
