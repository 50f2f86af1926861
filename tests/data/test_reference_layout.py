"""The published layout, read from folders and zip archives."""

import tracemalloc

import numpy as np
from helpers.data_files import SIZE, count_image, fractional_image, npy_bytes, write_folder, write_zip

from lensjax.data import reference_layout
from lensjax.data.images import CLASSES
from lensjax.data.reference_layout import read_reference_layout


def test_count_images_are_read_without_loss(make_source, files):
    sets = read_reference_layout(make_source(files), SIZE)
    assert list(sets) == ["train", "val"]
    for split, images in sets.items():
        assert images.pixels.dtype == np.uint16
        assert images.class_counts() == (2, 2, 2)
        assert images.names == tuple(name for name in files if name.startswith(split))
        assert [CLASSES[label] for label in images.labels] == [name.split("/")[1] for name in images.names]
        for image, name in zip(images.images(), images.names, strict=True):
            expected = count_image(list(files).index(name))[0].astype(np.float32)
            np.testing.assert_array_equal(image[..., 0], expected)


def test_image_without_counts_makes_split_float32(make_source, files):
    files["train/vort/2.npy"] = npy_bytes(fractional_image(0))
    sets = read_reference_layout(make_source(files), SIZE)
    assert sets["val"].pixels.dtype == np.uint16
    train = sets["train"]
    assert train.pixels.dtype == np.float32
    assert train.scale.tolist() == [1] * 6
    np.testing.assert_array_equal(train.pixels[0], count_image(0)[0].astype(np.float32))
    np.testing.assert_array_equal(train.pixels[5], fractional_image(0).astype(np.float32))


def test_test_folder_is_read_if_it_exists(make_source, files):
    files |= {f"test/{name}/1.npy": npy_bytes(count_image(0)) for name in CLASSES}
    assert read_reference_layout(make_source(files), SIZE)["test"].class_counts() == (1, 1, 1)


def test_images_are_in_natural_order(make_source, files):
    for index in (10, 100, 3, 20):
        files[f"train/no/{index}.npy"] = npy_bytes(count_image(index))
    names = read_reference_layout(make_source(files), SIZE)["train"].names
    assert names[:6] == tuple(f"train/no/{index}.npy" for index in (1, 2, 3, 10, 20, 100))


def test_labels_match_images_read_in_parallel(make_source, files):
    for index in range(3, 150):
        files[f"train/{CLASSES[index % 3]}/{index}.npy"] = npy_bytes(count_image(index))
    train = read_reference_layout(make_source(files), SIZE)["train"]
    assert len(train) == 153
    for row in range(0, 153, 10):
        _, name, file = train.names[row].split("/")
        assert CLASSES[train.labels[row]] == name
        if int(file.removesuffix(".npy")) > 2:
            expected = count_image(int(file.removesuffix(".npy")))[0].astype(np.float32)
            np.testing.assert_array_equal(train.images(slice(row, row + 1))[0, ..., 0], expected)


def test_deeplensesim_class_names_are_accepted(make_source, files):
    renamed = {}
    for name, content in files.items():
        for known, alias in (("/no/", "/no_sub/"), ("/sphere/", "/cdm/"), ("/vort/", "/axion/")):
            name = name.replace(known, alias)
        renamed[name] = content
    sets = read_reference_layout(make_source(renamed), SIZE)
    assert sets["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert sets["train"].names[0] == "train/no_sub/1.npy"


def test_outer_folders_and_hidden_files_are_ignored(make_source, files):
    nested = {f"data/dataset/{name}": content for name, content in files.items()}
    nested |= {
        "data/README.txt": b"about",
        "data/dataset/.DS_Store": b"x",
        "data/dataset/train/no/.DS_Store": b"x",
        "data/dataset/train/no/._1.npy": b"x",
        "__MACOSX/data/dataset/train/no/._1.npy": b"x",
    }
    sets = read_reference_layout(make_source(nested), SIZE)
    assert sets["train"].names == tuple(name for name in files if name.startswith("train"))


def test_folder_and_archive_give_the_same_images(tmp_path, files):
    folder = read_reference_layout(write_folder(tmp_path / "a", files), SIZE)
    archive = read_reference_layout(write_zip(tmp_path / "a.zip", files), SIZE)
    for split in folder:
        np.testing.assert_array_equal(folder[split].pixels, archive[split].pixels)
        np.testing.assert_array_equal(folder[split].scale, archive[split].scale)
        assert folder[split].names == archive[split].names


def test_peak_memory_is_close_to_the_result(tmp_path):
    image = (np.arange(150 * 150) % 901 / 900).reshape(150, 150)
    files = {
        f"{split}/{name}/{index}.npy": npy_bytes(image)
        for split in ("train", "val")
        for name in CLASSES
        for index in range(20)
    }
    path = write_zip(tmp_path / "dataset.zip", files)
    del files
    tracemalloc.start()
    try:
        sets = read_reference_layout(path, 150)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    result = sum(images.pixels.nbytes for images in sets.values())
    # Each thread holds one file and a few images.
    assert peak < result + reference_layout.THREADS * 10 * image.nbytes


def test_links_to_files_and_folders_are_followed(tmp_path, files):
    source = write_folder(tmp_path / "dataset", files)
    elsewhere = tmp_path / "elsewhere"
    (source / "train").rename(elsewhere)
    (source / "train").symlink_to(elsewhere)
    (source / "val/no/3.npy").symlink_to(source / "val/no/1.npy")
    sets = read_reference_layout(source, SIZE)
    assert (len(sets["train"]), len(sets["val"])) == (6, 7)


def test_archive_with_backslashes_is_read(tmp_path, files):
    windows = {name.replace("/", "\\"): content for name, content in files.items()}
    sets = read_reference_layout(write_zip(tmp_path / "dataset.zip", windows), SIZE)
    assert sets["train"].names[0] == "train/no/1.npy"
