"""Images in HDF5 files, dataset by dataset; of a stack only one image at a time is read."""

from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

import h5py

from lensjax.errors import UserError
from lensjax.prediction.readers.entry import (
    Entry,
    image_arrays,
    stack_entries,
    stack_shape,
    unreadable,
)


def read(stream: BufferedIOBase) -> Iterator[Entry]:
    """The images of an HDF5 file, in the order of the datasets' names. Links are not followed."""
    with h5py.File(stream, "r") as file:
        datasets: dict[str, Any] = {}

        def visit(name: str, thing: Any) -> None:
            if isinstance(thing, h5py.Dataset) and thing.shape and thing.dtype.kind in "iufb":
                datasets[name] = thing

        file.visititems(visit)
        for name in image_arrays({name: found.shape for name, found in datasets.items()}):
            try:
                yield from _entries(datasets[name], f":{name}")
            except UserError as error:
                yield unreadable(str(error), f":{name}")


def _entries(dataset: Any, part: str) -> Iterator[Entry]:
    one_image = stack_shape(dataset.shape)[0] == 1
    yield from stack_entries(
        dataset.shape, lambda index: dataset[()] if one_image else dataset[index], part
    )
