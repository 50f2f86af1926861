"""Import of DeepLenseSim's files: values, splits, resumption and errors."""

import csv
import json
import os
import pathlib
import pickle

import numpy as np
import pytest
from helpers.data_files import SIZE, npy_bytes, write_folder, write_zip
from helpers.deeplensesim_files import (
    FOLDERS,
    MakesFolder,
    axion_mass,
    count_image,
    model_files,
    object_npy,
    pair,
    pair_npy,
)

from lensjax.data import deeplensesim
from lensjax.data.deeplensesim import draw_splits, import_images, parse_file
from lensjax.data.images import CLASSES
from lensjax.data.reference_layout import read_reference_layout
from lensjax.errors import UserError

IMAGE = count_image(0)


@pytest.fixture
def model(tmp_path):
    return write_folder(tmp_path / "model", model_files())


def contents(folder):
    """Contents of all files of a folder, by path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def truth(folder):
    with (folder / "truth.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def scaled(image):
    return (image - image.min()) / (image.max() - image.min())


def error_message(function, *arguments, **named):
    with pytest.raises(UserError) as caught:
        function(*arguments, **named)
    return str(caught.value)


def test_images_and_masses_match_the_files(tmp_path, model):
    imported = import_images(model, tmp_path / "set")
    assert imported == (SIZE, {"train": 21, "val": 3})
    rows = truth(tmp_path / "set")
    assert list(rows[0]) == ["file", "class", "axion_mass", "original"]
    assert sorted(row["original"] for row in rows) == sorted(model_files())
    for row in rows:
        split, name, file = row["file"].split("/")
        folder = FOLDERS[CLASSES.index(name)]
        assert (row["class"], row["original"]) == (name, f"{folder}/{file}")
        assert split in ("train", "val")
        seed = list(model_files()).index(row["original"])
        written = np.load(tmp_path / "set" / row["file"])
        assert (written.dtype, written.shape) == (np.float64, (1, SIZE, SIZE))
        np.testing.assert_allclose(written[0], scaled(count_image(seed)), rtol=1e-15)
        assert row["axion_mass"] == (repr(float(axion_mass(seed))) if folder == "axion" else "")


def test_data_set_is_read_with_exact_counts(tmp_path, model):
    import_images(model, tmp_path / "set")
    sets = read_reference_layout(tmp_path / "set", SIZE)
    assert {split: images.class_counts() for split, images in sets.items()} == {
        "train": (7, 7, 7),
        "val": (1, 1, 1),
    }
    original = {row["file"]: row["original"] for row in truth(tmp_path / "set")}
    seeds = list(model_files())
    for images in sets.values():
        assert images.pixels.dtype == np.uint16
        for name, pixels, scale in zip(images.names, images.pixels, images.scale, strict=True):
            counts = count_image(seeds.index(original[name]))
            divisor = np.gcd.reduce((counts - counts.min()).ravel())
            np.testing.assert_array_equal(pixels * divisor, counts - counts.min())
            assert scale * divisor == np.ptp(counts)


@pytest.mark.parametrize("names", [("no_sub", "cdm", "axion"), ("no", "cdm", "vort"), CLASSES])
def test_both_naming_schemes_of_classes_are_accepted(tmp_path, names):
    files = {
        path.replace(folder, name, 1): content
        for folder, name in zip(FOLDERS, names, strict=True)
        for path, content in model_files().items()
        if path.startswith(folder)
    }
    import_images(write_folder(tmp_path / "model", files), tmp_path / "set")
    assert {row["class"] for row in truth(tmp_path / "set")} == set(CLASSES)


def test_zip_archive_gives_the_same_data_set(tmp_path, model):
    archive = write_zip(
        tmp_path / "model.zip", {f"Model_I/{name}": content for name, content in model_files().items()}
    )
    import_images(model, tmp_path / "set")
    import_images(archive, tmp_path / "other")
    assert contents(tmp_path / "set") == contents(tmp_path / "other")


def test_splits_do_not_depend_on_file_system_order(tmp_path, model, monkeypatch):
    # 1.npy and 01.npy have the same natural key.
    for name, seed in {"1": 90, "01": 91, "001": 92, "10": 93, "2": 94}.items():
        (model / "no_sub" / f"{name}.npy").write_bytes(npy_bytes(count_image(seed)))
    import_images(model, tmp_path / "set")
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return self

        def __iter__(self):
            return iter(self.entries)

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr("lensjax.data.file_tree.os.scandir", Reversed)
    import_images(model, tmp_path / "other")
    assert contents(tmp_path / "set") == contents(tmp_path / "other")


LABELS = np.repeat(np.arange(3, dtype=np.int32), (40, 24, 17))


@pytest.mark.parametrize(
    ("validation", "test", "val", "tested"),
    [
        (0.25, 0.0, (10, 6, 4), (0, 0, 0)),
        (0.25, 0.125, (10, 6, 4), (5, 3, 2)),
        (0.001, 0.0, (1, 1, 1), (0, 0, 0)),
        (3.0, 5.0, (3, 3, 3), (5, 5, 5)),
        (1.0, 0.0, (1, 1, 1), (0, 0, 0)),
    ],
)
def test_each_class_is_divided_in_the_same_way(validation, test, val, tested):
    rows = draw_splits(LABELS, validation=validation, test=test, seed=0)
    counts = {split: tuple(np.bincount(LABELS[some], minlength=3)) for split, some in rows.items()}
    rest = tuple(np.array((40, 24, 17)) - val - tested)
    assert counts == {"train": rest, "val": val} | ({"test": tested} if any(tested) else {})
    np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(81))


def test_seed_determines_splits():
    first, again, other = (
        draw_splits(LABELS, validation=0.25, test=0.25, seed=seed)["val"].tolist() for seed in (1, 1, 2)
    )
    assert first == again != other
    alone = draw_splits(LABELS, validation=0.25, test=0.0, seed=1)["val"].tolist()
    assert alone == first


def test_every_image_is_chosen_equally_often():
    drawn = np.zeros(len(LABELS))
    for seed in range(400):
        drawn[draw_splits(LABELS, validation=0.25, test=0.0, seed=seed)["val"]] += 1
    share = np.repeat([10 / 40, 6 / 24, 4 / 17], (40, 24, 17))
    deviation = (drawn - 400 * share) / np.sqrt(400 * share * (1 - share))
    assert abs(deviation).max() < 4.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": 0.0}, "--validation=0: a data set needs validation images"),
        ({"validation": 1.5}, "--validation=1.5: must be a fraction below 1, or a number of images"),
        ({"validation": float("nan")}, "--validation=nan: must be"),
        ({"test": float("inf")}, "--test=inf: must be"),
        (
            {"validation": 17.0},
            "class vort: no images are left for training if 17 of 17 are held out; reduce",
        ),
        ({"validation": 0.5, "test": 0.5}, "no images are left for training"),
    ],
)
def test_impossible_splits_are_rejected(changes, message):
    assert message in error_message(
        draw_splits, LABELS, **({"validation": 0.25, "test": 0.0, "seed": 0} | changes)
    )


def test_existing_splits_are_kept(tmp_path):
    files = {f"train/{name}": content for name, content in model_files(4).items()}
    files |= {f"val/{name}": content for name, content in model_files(2).items()}
    source = write_folder(tmp_path / "model", files)
    assert import_images(source, tmp_path / "set").num_images == {"train": 12, "val": 6}
    assert {row["original"].split("/")[0] for row in truth(tmp_path / "set")} == {"train", "val"}
    assert all(row["original"].startswith(row["file"].split("/")[0]) for row in truth(tmp_path / "set"))
    message = error_message(import_images, source, tmp_path / "other", validation=0.5)
    assert message == f"{source}: already divided into splits; omit --validation and --test"


def test_other_files_are_skipped(tmp_path, model):
    import_images(model, tmp_path / "set")
    for name in ("README.md", "axion/truth.json", "cdm/.hidden.npy"):
        (model / name).write_text("about")
    import_images(model, tmp_path / "other")
    assert contents(tmp_path / "set") == contents(tmp_path / "other")


BAD_FILES = {
    "nan": (npy_bytes(np.where(np.eye(SIZE), np.nan, 1.0)), "8 of 64 pixels are NaN or infinite; remove"),
    "constant": (npy_bytes(np.ones((SIZE, SIZE))), "every pixel is 1.0, so the image shows no lens"),
    "size": (npy_bytes(count_image(0, 9)), "shape (9, 9), expected (8, 8), the shape of most images; remove"),
    "truncated": (npy_bytes(IMAGE)[:-100], "truncated: 412 of 512 bytes of pixels"),
    "text": (b"hello", "not a .npy file"),
    "colors": (npy_bytes(np.ones((SIZE, SIZE, 3))), "shape (8, 8, 3), expected (n, n) or (1, n, n)"),
    "stack": (npy_bytes(np.ones((2, SIZE, SIZE))), "shape (2, 8, 8), expected (n, n) or (1, n, n)"),
    "wide": (npy_bytes(np.ones((8, 9))), "shape (8, 9), expected (n, n) or (1, n, n)"),
    "large": (npy_bytes(np.zeros((2_000, 2_000), "u1")), "shape (2000, 2000), expected (n, n)"),
    "many bytes": (npy_bytes(IMAGE) + bytes(deeplensesim.LIMIT), "larger than images of 1,024 x 1,024"),
    "forged header": (
        npy_bytes(IMAGE).replace(b"(8, 8)", b"(1<<9)"),
        "damaged header; copy or download it again",
    ),
    "nan in pair": (pair_npy(np.where(np.eye(SIZE), np.nan, 1.0), 1e-23), "8 of 64 pixels are NaN"),
    "constant in pair": (pair_npy(np.ones((SIZE, SIZE)), 1e-23), "every pixel is 1.0"),
    "size in pair": (pair_npy(count_image(0, 9), 1e-23), "shape (9, 9), expected (8, 8)"),
    "colors in pair": (pair_npy(np.ones((SIZE, SIZE, 3)), 1e-23), "shape (8, 8, 3), expected (n, n)"),
    "row in pair": (pair_npy(np.arange(9), 1e-23), "shape (9,), expected (n, n)"),
    "truncated pair": (pair_npy(IMAGE, 1e-23)[:-100], "truncated or damaged pickle; copy or download"),
    "only an image": (npy_bytes(pair(IMAGE)), "its pickle is not an image and an axion mass"),
    "three elements": (npy_bytes(pair(IMAGE, 1e-23, 1)), "its pickle is not an image and an axion mass"),
    "mass first": (npy_bytes(pair(1e-23, IMAGE)), "its pickle is not an image and an axion mass"),
    "two images": (npy_bytes(pair(IMAGE, IMAGE)), "the axion mass is not a positive number"),
    "nested pair": (npy_bytes(pair(pair(IMAGE, 1e-23), 1)), "its pickle is not an image and an axion mass"),
    "text as mass": (npy_bytes(pair(IMAGE, "1e-23")), "the axion mass is not a positive number"),
    "no mass": (npy_bytes(pair(IMAGE, None)), "the axion mass is not a positive number"),
    "mass of zero": (npy_bytes(pair(IMAGE, 0.0)), "the axion mass is not a positive number"),
    "nan as mass": (npy_bytes(pair(IMAGE, np.nan)), "the axion mass is not a positive number"),
    "huge mass": (npy_bytes(pair(IMAGE, 10**600)), "the axion mass is not a positive number"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_file_is_reported_and_nothing_is_written(tmp_path, model, content, message):
    (model / "axion" / "1.npy").write_bytes(content)
    found = error_message(import_images, model, tmp_path / "set")
    assert found.startswith(f"{model}/axion/1.npy: {message}")
    assert "\n" not in found
    assert not (tmp_path / "set").exists()


def test_all_bad_files_are_listed(tmp_path, model):
    (model / "no_sub" / "1.npy").write_bytes(BAD_FILES["nan"][0])
    (model / "cdm" / "1.npy").write_bytes(BAD_FILES["size"][0])
    (model / "axion" / "1.npy").write_bytes(npy_bytes(pair(IMAGE, MakesFolder(tmp_path / "marker"))))
    lines = error_message(import_images, model, tmp_path / "set").split("\n")
    assert lines[0] == f"{model}: 3 problems in 27 images:"
    assert [line.split(":")[0] for line in lines[1:]] == ["  no_sub/1.npy", "  cdm/1.npy", "  axion/1.npy"]
    assert f"its pickle calls '{os.mkdir.__module__}.mkdir'; it can run code and was not loaded" in lines[3]
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "mass", [1e-23, np.float64(1e-23), np.array([1e-23]), np.array(1e-23)], ids=["float", "f8", "row", "0-d"]
)
@pytest.mark.parametrize("numpy_version", [1, 2])
@pytest.mark.parametrize("shape", [(SIZE, SIZE), (1, SIZE, SIZE), (SIZE, SIZE, 1)])
def test_pairs_of_every_form_are_read(mass, numpy_version, shape):
    parsed = parse_file(pair_npy(IMAGE.reshape(shape), mass, numpy_version))
    np.testing.assert_allclose(parsed.pixels, scaled(IMAGE), rtol=1e-15)
    assert parsed.axion_mass == 1e-23


def test_big_endian_pair_is_read():
    parsed = parse_file(pair_npy(IMAGE.astype(">f8"), 1e-23))
    np.testing.assert_array_equal(parsed.pixels, scaled(IMAGE))
    assert parsed.pixels.dtype.isnative


def test_pickles_are_read_only_by_the_restricted_reader(monkeypatch):
    monkeypatch.setattr(np, "load", None)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(np.lib.format, "read_array", None)
    assert parse_file(pair_npy(IMAGE, 1e-23)).axion_mass == 1e-23


def test_header_of_large_array_allocates_nothing():
    # The header declares 10^15 elements, and none follow.
    assert "damaged pickle" in error_message(parse_file, object_npy(b"", (10**15,)))
    header = npy_bytes(IMAGE).replace(b"(8, 8), } ", b"(999, 999)}")[:128]
    assert "truncated: 0 of 7,984,008 bytes of pixels" in error_message(parse_file, header)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b""}, "no class folders no_sub, cdm, axion (found no folders); specify the folder"),
        (
            {f"model_{i}/cdm/1.npy": b"" for i in (1, 2)},
            "no class folders no_sub, cdm, axion (found model_1, model_2); specify the folder",
        ),
        (
            {name: content for name, content in model_files().items() if "cdm" not in name},
            "no class folder sphere (or cdm); each class needs images",
        ),
        (
            {name: content for name, content in model_files().items() if "cdm" not in name} | {"cdm/": b""},
            "cdm: no .npy files; each class needs images",
        ),
        (model_files() | {"cmd/1.npy": npy_bytes(IMAGE)}, "cmd: not one of the classes"),
        (model_files() | {"sphere/1.npy": npy_bytes(IMAGE)}, "sphere: same class as cdm; keep only one"),
        (model_files() | {"1.npy": npy_bytes(IMAGE)}, "1.npy: not in a class folder; move it into one"),
        (model_files() | {"cdm/more/1.npy": npy_bytes(IMAGE)}, "cdm/more: unexpected folder"),
    ],
)
def test_other_layouts_are_reported(tmp_path, files, message):
    source = write_folder(tmp_path / "model", files | {"README.md": b""})
    found = error_message(import_images, source, tmp_path / "set")
    assert found.startswith(str(source))
    assert message in found
    assert "\n" not in found
    assert not (tmp_path / "set").exists()


def test_missing_input_is_reported(tmp_path):
    message = error_message(import_images, tmp_path / "nowhere", tmp_path / "set")
    assert message == f"{tmp_path}/nowhere: no such file or folder; check --input"


@pytest.mark.parametrize("name", ["model.tgz", "Model.TAR.GZ", "model.tar", "model.tar.xz"])
def test_tar_archive_is_refused_with_advice(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    found = error_message(import_images, tmp_path / name, tmp_path / "set")
    assert (
        found
        == f"{tmp_path / name}: tar archives are not supported; unpack it with tar -xf and specify the folder"
    )


@pytest.mark.parametrize("number", [0, 5, 23])
def test_interrupted_import_resumes_with_same_result(tmp_path, model, monkeypatch, number):
    import_images(model, tmp_path / "whole", test=1.0)
    written = []
    write_image = deeplensesim.write_image

    def interrupt(path, image):
        if len(written) >= number:
            raise KeyboardInterrupt
        written.append(path)
        write_image(path, image)

    monkeypatch.setattr(deeplensesim, "write_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        import_images(model, tmp_path / "set", test=1.0)
    # A reader rejects the incomplete data set.
    assert f"no train/{'' if number == 23 else ' and val/'}" in error_message(
        read_reference_layout, tmp_path / "set", SIZE
    )
    resumed = []
    monkeypatch.setattr(
        deeplensesim, "write_image", lambda path, image: (resumed.append(path), write_image(path, image))
    )
    import_images(model, tmp_path / "set", test=1.0)
    assert len(written) == number
    assert len(resumed) == 24 - number
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        *("import.json", "test", "train", "truth.csv", "val")
    ]


def test_complete_data_set_is_not_written_again(tmp_path, model):
    import_images(model, tmp_path / "set")
    images = list((tmp_path / "set").rglob("*.npy"))
    before = [image.stat().st_mtime_ns for image in images]
    import_images(model, tmp_path / "set")
    assert [image.stat().st_mtime_ns for image in images] == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"seed": 1}, "seed"), ({"validation": 2.0}, "validation"), ({"test": 0.2}, "test")],
)
def test_different_splits_in_same_folder_are_rejected(tmp_path, model, changes, named):
    import_images(model, tmp_path / "set")
    before = contents(tmp_path / "set")
    message = error_message(import_images, model, tmp_path / "set", **changes)
    assert message.startswith(f"{tmp_path}/set: was created with a different {named} (")
    assert contents(tmp_path / "set") == before


def test_changed_input_is_rejected(tmp_path, model):
    import_images(model, tmp_path / "set")
    before = contents(tmp_path / "set")
    next((model / "cdm").iterdir()).write_bytes(npy_bytes(count_image(99)))
    message = error_message(import_images, model, tmp_path / "set")
    assert "was created with a different input" in message
    assert contents(tmp_path / "set") == before


def test_folder_with_other_files_is_rejected(model):
    before = contents(model)
    for output in (model, model / "cdm"):
        message = error_message(import_images, model, output)
        assert message == f"{output} exists and was not created by this command; choose another --output"
    assert contents(model) == before


def test_unwritable_output_is_reported(tmp_path, model):
    (tmp_path / "file").write_text("a file")
    message = error_message(import_images, model, tmp_path / "file" / "set")
    assert message == f"{tmp_path}/file/set: cannot be written: Not a directory"


@pytest.mark.skipif(os.name == "nt", reason="file names are not bytes")
def test_names_that_are_not_utf_8_are_kept(tmp_path, model):
    name = os.fsdecode(b"lens_\xff.npy")
    try:
        (model / "cdm" / name).write_bytes(npy_bytes(IMAGE))
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    import_images(model, tmp_path / "set")
    assert len(list((tmp_path / "set").rglob(name))) == 1
    assert b"cdm/lens_\xff.npy" in (tmp_path / "set" / "truth.csv").read_bytes()


@pytest.mark.parametrize(("model", "size"), [("model_1", 150), ("model_2", 64), ("model_3", 64)])
def test_images_by_deeplensesim_are_imported(tmp_path, deeplensesim_samples, model, size):
    originals = sorted((deeplensesim_samples / model).rglob("*.npy"))
    imported = import_images(deeplensesim_samples / model, tmp_path / "set", validation=0.25)
    assert imported.image_size == size
    assert sum(imported.num_images.values()) == len(originals) > 0
    for row in truth(tmp_path / "set"):
        original = np.load(deeplensesim_samples / model / row["original"])
        written = np.load(tmp_path / "set" / row["file"])[0]
        np.testing.assert_allclose(written, scaled(original), rtol=1e-12, atol=1e-16)
        aliases = {"no": "no", "cdm": "sphere", "axion": "vort"}
        assert row["class"] == aliases[row["original"].split("/")[0]]
    sets = read_reference_layout(tmp_path / "set", size)
    assert all(images.pixels.dtype == (np.uint16 if size == 150 else np.float32) for images in sets.values())


def test_pickled_images_by_deeplensesim_have_same_pixels(tmp_path, deeplensesim_samples):
    masses = {}
    for name in ("no", "cdm", "axion"):
        for file in (deeplensesim_samples / "model_2" / name).glob("*.npy"):
            content = file.read_bytes()
            if name == "axion":
                values = json.loads((file.parent / "truth.json").read_text())
                masses[file.name] = next(row["axion_mass"] for row in values if row["file"] == file.name)
                content = pair_npy(np.load(file), np.float64(masses[file.name]), numpy_version=1)
            write_folder(tmp_path / "model", {f"{name}/{file.name}": content})
    import_images(deeplensesim_samples / "model_2", tmp_path / "plain")
    import_images(tmp_path / "model", tmp_path / "pickled")
    plain, pickled = contents(tmp_path / "plain"), contents(tmp_path / "pickled")
    assert {name for name in plain if plain[name] != pickled[name]} == {"import.json", "truth.csv"}
    found = {
        pathlib.Path(row["file"]).name: float(row["axion_mass"])
        for row in truth(tmp_path / "pickled")
        if row["axion_mass"]
    }
    assert found == masses
