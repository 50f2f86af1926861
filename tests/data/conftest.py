"""Small data sets in the published layout, as a folder and as a zip archive."""

import pathlib
from collections.abc import Callable, Mapping

import pytest
from helpers.data_files import count_image, npy_bytes, write_folder, write_zip

from lensjax.data.images import CLASSES


@pytest.fixture
def files() -> dict[str, bytes]:
    """Two valid images of each class in train/ and val/, by path."""
    names = (
        f"{split}/{name}/{index}.npy" for split in ("train", "val") for name in CLASSES for index in (1, 2)
    )
    return {name: npy_bytes(count_image(seed)) for seed, name in enumerate(names)}


@pytest.fixture(params=["folder", "zip"])
def make_source(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Callable[[Mapping[str, bytes]], pathlib.Path]:
    """Function that writes files as a folder or a zip archive, and returns its path."""
    if request.param == "folder":
        return lambda files: write_folder(tmp_path / "dataset", files)
    return lambda files: write_zip(tmp_path / "dataset.zip", files)
