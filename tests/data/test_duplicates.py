"""Warnings about the same image in two splits or two classes."""

import logging

import pytest
from helpers.data_files import SIZE, count_image, fractional_image, npy_bytes, write_folder

from lensjax.config import default_config
from lensjax.data.source import load_split, load_splits


def warnings(caplog, files, tmp_path, load=load_splits, *arguments):
    config = default_config().data
    config.update(
        {"source": str(write_folder(tmp_path / "set", files)), "image_size": SIZE, "selection": "reference"}
    )
    with caplog.at_level(logging.WARNING, "lensjax"):
        load(config, *arguments)
    return [record.getMessage() for record in caplog.records if record.name == "lensjax"]


@pytest.mark.parametrize("image", [count_image, fractional_image])
def test_image_in_two_splits_is_reported(caplog, tmp_path, files, image):
    files |= {f"train/vort/{name}.npy": npy_bytes(image(90 + name)) for name in (7, 8)}
    # Images are scaled to [0, 1], so the factor does not hide the equality.
    files |= {f"val/vort/{name}.npy": npy_bytes(3 * image(83 + name)) for name in (14, 15)}
    (message,) = warnings(caplog, files, tmp_path)
    assert message == (
        "the train and validation splits share images, which makes scores optimistic; found 2, for example "
        "train/vort/7.npy and val/vort/14.npy"
    )


def test_image_in_two_classes_is_reported(caplog, tmp_path, files):
    files |= {"val/vort/3.npy": files["val/no/2.npy"]}
    (message,) = warnings(caplog, files, tmp_path, load_split, "test")
    assert message == "images in two classes: 1, for example val/no/2.npy and val/vort/3.npy (no, vort)"


def test_different_images_are_not_reported(caplog, tmp_path, files):
    near = count_image(0)
    near[0, 3, 4] += 1 / 800  # not among the pixels that are hashed
    assert not warnings(caplog, files | {"val/no/3.npy": npy_bytes(near)}, tmp_path)
