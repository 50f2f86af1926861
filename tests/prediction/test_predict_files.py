"""Prediction for image files: all formats, damaged files, and interruptions."""

import csv
import json
import logging
import pathlib
import shutil
import sys
import tracemalloc

import numpy as np
import pytest
from helpers.image_files import (
    bad_files,
    bars,
    every_kind,
    fits_bytes,
    h5_bytes,
    npy_bytes,
    npz_bytes,
    picture_bytes,
    write,
)
from pyarrow import parquet

import lensjax
from lensjax.errors import Interrupted, UserError
from lensjax.main import main
from lensjax.prediction import export, files, part_file, readers
from lensjax.prediction.files import predict_files
from lensjax.prediction.table_files import encode_rows


@pytest.fixture(scope="module")
def classifier(run):
    return lensjax.load(run)


def table(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def probability(row):
    return float(row["probability_no"])


def test_prediction_does_not_depend_on_file_format(classifier, tmp_path):
    image = bars(0)
    folder = write(tmp_path / "in", every_kind(image))
    assert predict_files(classifier, str(folder), tmp_path / "out.csv") == (15, 0)
    expected = classifier.predict(image)
    other = classifier.predict(bars(1)).probabilities[0, 0]
    assert abs(expected.probabilities[0, 0] - other) > 1e-3  # predictions of different images differ
    for row in table(tmp_path / "out.csv").values():
        assert probability(row) == pytest.approx(expected.probabilities[0, 0], abs=1e-6), row
        assert float(row["entropy"]) == pytest.approx(expected.entropy[0], abs=1e-6)
        assert row["class"] == expected.classes[0]


def test_stacks_have_one_row_per_image_in_order(classifier, tmp_path):
    images = np.stack([bars(seed) for seed in range(3)])
    files = {
        "a.npy": npy_bytes(images),
        "b.npy": npy_bytes(images[:, None]),
        "c.npz": npz_bytes(images=images[..., None], table=np.zeros((3, 5))),
        "d.h5": h5_bytes(**{"group/images": images, "labels": np.zeros(3), "x": np.zeros((3, 2))}),
        "e.fits": fits_bytes(*images, names=("", "", "")),
        "f.fits": fits_bytes(images),
        "g.tif": picture_bytes("TIFF", *images),
    }
    folder = write(tmp_path / "in", files)
    assert predict_files(classifier, str(folder), tmp_path / "out.csv") == (21, 0)
    expected = classifier.predict(images).probabilities[:, 0]
    rows = table(tmp_path / "out.csv")
    assert list(rows) == [
        *("a.npy[0]", "a.npy[1]", "a.npy[2]", "b.npy[0]", "b.npy[1]", "b.npy[2]"),
        *("c.npz:images[0]", "c.npz:images[1]", "c.npz:images[2]"),
        *("d.h5:group/images[0]", "d.h5:group/images[1]", "d.h5:group/images[2]"),
        *("e.fits:1", "e.fits:2", "e.fits:3", "f.fits[0]", "f.fits[1]", "f.fits[2]"),
        *("g.tif[0]", "g.tif[1]", "g.tif[2]"),
    ]
    found = np.array([probability(row) for row in rows.values()]).reshape(7, 3)
    np.testing.assert_allclose(found, np.tile(expected, (7, 1)), atol=1e-6)


def test_mixed_folder_gives_one_row_per_image(run, tmp_path, capsys, caplog):
    files = {}
    for seed in range(89):
        kinds = every_kind(bars(seed))
        files |= {f"{seed}/{name}": content for name, content in kinds.items()}
    wrong = {}
    for seed in range(35):
        for name, (content, message) in bad_files(bars(seed)).items():
            files[f"bad {seed}/{name}"] = content
            wrong[f"bad {seed}/{name}"] = message
    folder = write(tmp_path / "in", files)
    (folder / "notes.txt").write_text("not an image, no row")
    (folder / "._0.npy").write_text("hidden, no row")
    (folder / "self.npy").symlink_to("self.npy")
    for name in ("gone.npy", "gone.fits", "gone.h5"):
        (folder / name).symlink_to("nowhere")
        wrong[name] = "No such file"
    (folder / "0" / "up").symlink_to("..")
    (folder / "again").symlink_to("1")
    wrong |= {"self.npy": "symbolic links", "0/up": "link to a parent folder or"}
    words = ["--mode=predict", f"--workdir={run}", f"--input={folder}"]
    assert main([*words, f"--output={tmp_path / 'out.csv'}"]) == 1
    rows = table(tmp_path / "out.csv")
    assert len(rows) == 89 * 15 + 35 * 21 + 5 + 15 == 2090
    assert [row["file"] for row in rows.values()] == sorted(rows)
    for name, row in rows.items():
        if name in wrong:
            assert wrong[name] in row["error"], row
            assert row["class"] == row["probability_no"] == ""
        else:
            assert row["error"] == ""
            assert row["class"] in ("no", "sphere", "vort")
    assert "Traceback" not in capsys.readouterr().err
    assert sum("evaluate --split validation" in message for message in caplog.messages) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out.csv"}


def test_model_file_without_domain_is_reported(run, tmp_path, caplog):
    export.write_safetensors(export.load_model_function(run), tmp_path / "model.safetensors")
    folder = write(tmp_path / "in", {"0.npy": npy_bytes(bars(0))})
    with caplog.at_level(logging.WARNING, "lensjax"):
        predict_files(lensjax.load(tmp_path / "model.safetensors"), str(folder), tmp_path / "out.csv")
    (message,) = caplog.messages
    assert "model.safetensors has no record of its validation images" in message
    assert "export it again" in message


def test_csv_json_lines_and_parquet_are_equal(classifier, tmp_path):
    names = {"a.npy": npy_bytes(bars(0)), "b.npy": b"", 'c,"\n.npy': npy_bytes(bars(2))}
    folder = write(tmp_path / "in", names)
    for suffix in ("csv", "jsonl", "parquet"):
        assert predict_files(classifier, str(folder), tmp_path / f"out.{suffix}") == (2, 1)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == lines
    rows = list(table(tmp_path / "out.csv").values())
    assert [row["file"] for row in rows] == [line["file"] for line in lines] == sorted(names)
    for row, line in zip(rows, lines, strict=True):
        assert list(row) == list(line)
        assert row["error"] == (line["error"] or "")
        if not line["error"]:
            assert probability(row) == pytest.approx(line["probability_no"], abs=1e-6)


def test_formulas_in_names_are_text(classifier, tmp_path):
    names = {f"{start}cmd()|x.npy": b"" for start in "=+-@\t\r\n"} | {"a=b.npy": npy_bytes(bars(0))}
    folder = write(tmp_path / "in", names)
    for suffix in ("csv", "jsonl"):
        assert predict_files(classifier, str(folder), tmp_path / f"out.{suffix}") == (1, 7)
    rows = table(tmp_path / "out.csv")
    assert set(rows) == {name if name == "a=b.npy" else f"'{name}" for name in names}
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert {json.loads(line)["file"] for line in lines} == set(names)
    numbers = {"file": "=x", "class": None, "theta_E": -1.5, "gamma1": -0.25, "error": "-y"}
    assert encode_rows([numbers], list(numbers), ".csv") == b"'=x,,-1.5,-0.25,'-y\r\n"


def test_undecodable_bytes_are_escaped_in_every_column():
    row = {"file": "\udcff", "error": "\udcff.fits: is not a FITS file"}
    assert encode_rows([row], list(row), ".csv") == b"\\udcff,\\udcff.fits: is not a FITS file\r\n"
    (read,) = map(json.loads, encode_rows([row], list(row), ".jsonl").splitlines())
    assert read == {"file": "\\udcff", "error": "\\udcff.fits: is not a FITS file"}


class InterruptedFile:
    """A file in which every second write is interrupted halfway; after a kill, flushing fails too."""

    def __init__(self, stream, writes, killed):
        self.stream, self.writes, self.killed, self.interrupted = stream, writes, killed, False

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stream.close()

    def write(self, content):
        self.writes.append(content)
        if len(self.writes) % 2 == 0:
            self.stream.write(content[: len(content) // 2])
            self.stream.flush()
            self.interrupted = True
            raise KeyboardInterrupt
        return self.stream.write(content)

    def flush(self):
        if self.killed and self.interrupted:
            raise KeyboardInterrupt
        self.stream.flush()


@pytest.mark.parametrize(("suffix", "killed"), [("csv", False), ("csv", True), ("parquet", False)])
def test_interrupted_prediction_resumes_to_identical_file(classifier, tmp_path, monkeypatch, suffix, killed):
    images = np.stack([bars(seed) for seed in range(11)])
    files = {f"{seed}.npy": npy_bytes(bars(seed)) for seed in range(9)} | {"2.npy": b""}
    files = {f"={name}": content for name, content in files.items()}  # escaped in CSV
    folder = write(tmp_path / "in", files | {"b.h5": h5_bytes(x=images)})
    whole, output = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    assert predict_files(classifier, str(folder), whole) == (19, 1)
    open_file, writes = pathlib.Path.open, []

    def open_interrupted(path, mode="r", *arguments, **options):
        stream = open_file(path, mode, *arguments, **options)
        to_table = path == part_file.part_path(output) and mode in ("xb", "r+b")
        return InterruptedFile(stream, writes, killed) if to_table else stream

    if killed:  # progress cannot be saved on a kill, so it is saved after every write
        monkeypatch.setattr(part_file, "SAVE_INTERVAL", 0)
    monkeypatch.setattr(pathlib.Path, "open", open_interrupted)
    for _ in range(3):
        with pytest.raises(Interrupted):
            predict_files(classifier, str(folder), output)
        assert not output.exists()
    assert predict_files(classifier, str(folder), output) == (19, 1)
    assert output.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("out*.part*"))


def unfinished(classifier, folder, output):
    """Interrupts a prediction in its third batch."""
    batches = iter(range(2))
    predict = files.predict_batch

    def stop(*arguments):
        if next(batches, None) is None:
            raise KeyboardInterrupt
        return predict(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "predict_batch", stop)
        with pytest.raises(Interrupted):
            predict_files(classifier, str(folder), output)
    return part_file.part_path(output), output.with_name(output.name + ".part.json")


@pytest.mark.parametrize("damage", ["byte", "count", "minus", "type", "nested", "link"])
def test_changed_part_of_table_is_refused(classifier, tmp_path, damage):
    folder = write(tmp_path / "in", {"a.npy": npy_bytes(np.stack([bars(seed) for seed in range(20)]))})
    part, record = unfinished(classifier, folder, tmp_path / "out.csv")
    if damage == "byte":
        content = bytearray(part.read_bytes())
        content[-5] ^= 1
        part.write_bytes(content)
    elif damage == "link":
        part.rename(tmp_path / "mine")
        part.symlink_to(tmp_path / "mine")
    else:
        new = {"count": 10**9, "minus": -1, "type": "2", "nested": []}[damage]
        content = json.loads(record.read_text())
        content["done"]["image"] = new
        record.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"out\.csv\.part.*(delete it to start again|is a link)"):
        predict_files(classifier, str(folder), tmp_path / "out.csv")


def test_existing_table_is_kept_until_replacement_is_complete(classifier, tmp_path, monkeypatch):
    folder = write(tmp_path / "in", {"a.npy": npy_bytes(bars(0))})
    other = write(tmp_path / "other", {"a.npy": npy_bytes(bars(1)), "b.npy": npy_bytes(bars(2))})
    output = tmp_path / "out.csv"
    predict_files(classifier, str(folder), output)
    before = output.read_bytes()
    with pytest.raises(UserError, match=r"out\.csv exists; .* add --overwrite"):
        predict_files(classifier, str(other), output)
    assert output.read_bytes() == before

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lensjax.prediction.files.predict_batch", stop)
        with pytest.raises(Interrupted):
            predict_files(classifier, str(folder), output, overwrite=True)
    assert output.read_bytes() == before  # until the new table is complete
    output.unlink()
    with pytest.raises(UserError, match=r"another prediction: .*files was 1 and is 2"):
        predict_files(classifier, str(other), output)
    assert predict_files(classifier, str(other), output, overwrite=True) == (2, 0)


def test_zip_glob_and_folder_give_identical_predictions(classifier, tmp_path):
    folder = write(tmp_path / "in", every_kind(bars(0)) | {"deep/er/one.fits": fits_bytes(bars(1))})
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    sources = {"folder": folder, "zip": tmp_path / "packed.zip", "glob": f"{folder}/**/*"}
    found = {}
    for name, source in sources.items():
        assert predict_files(classifier, str(source), tmp_path / f"{name}.csv") == (16, 0)
        rows = table(tmp_path / f"{name}.csv")
        found[name] = {key.removeprefix(f"{folder}/"): row["probability_no"] for key, row in rows.items()}
    assert found["zip"] == found["folder"] == found["glob"]


def test_row_names_missing_package(classifier, tmp_path, monkeypatch):
    kinds = every_kind(bars(0))
    files = {name: kinds[name] for name in ("one.h5", "one.fits", "sixteen.png", "plain.npy")}
    folder = write(tmp_path / "in", files)
    for name in ("h5py", "astropy", "astropy.io", "PIL"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("hdf5", "fits_files", "pictures"):
        monkeypatch.delitem(sys.modules, f"lensjax.prediction.readers.{name}", raising=False)
    assert predict_files(classifier, str(folder), tmp_path / "out.csv") == (1, 3)
    rows = table(tmp_path / "out.csv")
    for file, package in {"one.h5": "h5py", "one.fits": "astropy", "sixteen.png": "pillow"}.items():
        assert rows[file]["error"] == f'needs {package}: pip install "lensjax[formats]"'


def test_stack_is_read_one_image_at_a_time(tmp_path):
    file = tmp_path / "stack.npy"
    number = 100_000  # 400 MB as a sparse file
    header = npy_bytes(np.zeros((1, 32, 32), np.float32))[:128]
    head = header.replace(b"(1, 32, 32)", f"({number}, 32, 32)".encode())[:127] + b"\n"
    with file.open("wb") as stream:
        stream.write(head)
        stream.truncate(128 + number * 4096)
    tracemalloc.start()
    with file.open("rb") as stream:
        for index, entry in zip(range(1000), readers.entries(stream, file.name), strict=False):
            assert entry.part == f"[{index}]"
            assert readers.load(entry).shape == (32, 32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "no such file or folder; check the path"),
        ("in/notes.jpg", r"the suffix must be one of \.npy"),
        ("in/*.fits", "contains no image files"),
    ],
)
def test_input_without_images_is_rejected(classifier, tmp_path, source, message):
    write(tmp_path / "in", {"notes.jpg": b""})
    with pytest.raises(UserError, match=message):
        predict_files(classifier, str(tmp_path / source), tmp_path / "out.csv")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("output", "message"), [("out.txt", "the suffix must be one of"), ("no/out.csv", "no folder")]
)
def test_unwritable_output_is_rejected(classifier, tmp_path, output, message):
    write(tmp_path / "in", {"a.npy": npy_bytes(bars(0))})
    with pytest.raises(UserError, match=message):
        predict_files(classifier, str(tmp_path / "in"), tmp_path / output)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
