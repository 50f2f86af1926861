"""Imports the files of DeepLenseSim (https://github.com/mwt5345/DeepLenseSim) as a data set with splits.

DeepLenseSim writes the images of each class to one folder, and pickles those of axion vortices together with
the mass of the axion: `np.array([image, axion_mass], dtype=object)`.
"""

import concurrent.futures
import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

import lensjax
from lensjax.data import npy
from lensjax.data.array_pickle import load_object_array
from lensjax.data.file_tree import FileTree, Subtree, natural_key, open_tree
from lensjax.data.images import CLASSES
from lensjax.data.output_folder import check_folder, claim_folder, is_written, write_file, write_image
from lensjax.data.problems import Problem, raise_problems
from lensjax.data.reference_layout import (
    ALIASES,
    FILES_PER_TASK,
    MAX_WRAPPERS,
    THREADS,
    LabeledFile,
    list_images,
)
from lensjax.errors import UserError
from lensjax.runtime.progress import progress_bar

MAX_SIDE = 1_024  # height and width of the largest images, pixels
PICKLE_OVERHEAD = 10_000  # bytes of a pickled image other than its pixels; NumPy's have less than 1,000
LIMIT = npy.bytes_to_read(MAX_SIDE) + PICKLE_OVERHEAD
VALIDATION = 0.125  # default fraction of validation images
MANIFEST, TRUTH, UNFINISHED = "import.json", "truth.csv", ".unfinished"
SPLITS = ("train", "val", "test")


class LensImage(NamedTuple):
    """Contents of a file.

    Attributes:
      pixels: the image, from 0 to 1.
      axion_mass: mass of the axion, eV; None if the file does not contain it.
    """

    pixels: Float[np.ndarray, "height width"]
    axion_mass: float | None


class ImportedSet(NamedTuple):
    """Summary of an import.

    Attributes:
      image_size: height and width of the images, pixels.
      num_images: number of images in each split, by folder.
    """

    image_size: int
    num_images: dict[str, int]


class _CheckedFile(NamedTuple):
    image_size: int
    axion_mass: float | None
    digest: bytes


def import_images(
    source: Path, output: Path, *, validation: float | None = None, test: float | None = None, seed: int = 0
) -> ImportedSet:
    """Writes images of DeepLenseSim as a data set in the published layout.

    All files are checked before the first image is written. `output` then contains `train/`, `val/` and, if
    requested, `test/`, each with the folders no, sphere and vort of images from 0 to 1. `truth.csv` lists the
    class, the axion mass and the original file of each image. The same call resumes an interrupted import;
    each split is in a hidden folder until it is complete.

    Args:
      source: a folder or zip archive with the class folders no_sub, cdm and axion, or no, sphere and vort. If
        it contains train/ and val/ with such folders, these splits are kept.
      output: a new folder, or the folder of an interrupted import.
      validation: validation images of each class: a fraction below 1, or a number; `VALIDATION` if None.
      test: test images of each class, in the same way; 0 if None.
      seed: seed of the random splits.

    Returns:
      The size of the images, and their number in each split.

    Raises:
      UserError: if the source does not exist or has no class folders, if files are not valid (the message
        lists the first ten), if the source cannot be divided, or if `output` contains other files or cannot
        be written.
    """
    tree, parts = _find_classes(source)
    if parts == [""]:
        validation, test = VALIDATION if validation is None else validation, test or 0.0
    elif (validation, test) != (None, None):
        raise UserError(f"{tree.path}: already divided into splits; omit --validation and --test")
    wanted = {"lensjax": lensjax.__version__, "validation": validation, "test": test, "seed": seed}
    problems: list[Problem] = []
    listing = {part: _list_sorted(tree, part, problems) for part in parts}
    files = [file for listed in listing.values() for file in listed]
    if any(problem.stops_reading for problem in problems):
        raise_problems(problems, tree.path, len(files))
    if validation is not None and test is not None:
        labels = np.array([file.label for file in files], np.int32)
        rows = draw_splits(labels, validation=validation, test=test, seed=seed)
    else:
        ends = np.cumsum([len(listed) for listed in listing.values()])
        rows = dict(zip(parts, np.split(np.arange(len(files)), ends[:-1]), strict=True))
    try:
        check_folder(output, MANIFEST, wanted)  # before all files are read
        checked = _check_files(tree, files, problems)
        claim_folder(output, MANIFEST, {**wanted, "input": _digest(files, checked)})
        _write_truth(output / TRUTH, files, checked, rows)
        # train/ is moved into place last: without it, no command reads an incomplete data set.
        for split in reversed(rows):
            chosen = [files[row] for row in rows[split]]
            _write_split(tree, output, split, chosen, checked[0].image_size)
        if (output / UNFINISHED).is_dir():
            (output / UNFINISHED).rmdir()
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error
    return ImportedSet(checked[0].image_size, {split: len(some) for split, some in rows.items()})


def parse_file(data: bytes) -> LensImage:
    """Parses a file of DeepLenseSim: an image, or a pickled pair of an image and an axion mass.

    Nothing in a pickle is executed, see `lensjax.data.array_pickle`.

    Args:
      data: the file, or its first `LIMIT` bytes.

    Returns:
      The image, scaled to the range 0 to 1, and the axion mass.

    Raises:
      UserError: if the file is not valid. The message does not contain the file's name.
    """
    if len(data) >= LIMIT:
        raise UserError(f"larger than images of {MAX_SIDE:,} x {MAX_SIDE:,} pixels; crop the image")
    shape, _, dtype, offset = npy.parse_header(data)
    if not dtype.hasobject:
        return LensImage(npy.parse_image(data, _image_size(shape)), None)
    elements = load_object_array(data[offset:])
    if len(elements) != 2 or not isinstance(elements[0], np.ndarray):
        raise UserError(
            "its pickle is not an image and an axion mass, as in DeepLenseSim's files; save only the image "
            "with np.save"
        )
    image, mass = elements
    size = _image_size(image.shape)
    image = image.reshape(size, size).astype(image.dtype.newbyteorder("="))
    return LensImage(npy.min_max_scale(image), _axion_mass(mass))


def draw_splits(
    labels: Int[np.ndarray, " n"], *, validation: float, test: float, seed: int
) -> dict[str, Int[np.ndarray, " split"]]:
    """Divides images at random, each class in the same way.

    Args:
      labels: class of each image.
      validation: validation images of each class: a fraction below 1, or a number.
      test: test images of each class, in the same way; if it is 0, there is no test split.
      seed: seed of the random choice.

    Returns:
      Sorted indices of the images in "train", "val" and "test". Those in "val" do not depend on `test`.

    Raises:
      UserError: if a fraction or number is not valid, or no image of a class remains in train.
    """
    for name, amount in (("validation", validation), ("test", test)):
        if not 0 <= amount < math.inf or (amount >= 1 and amount != int(amount)):
            raise UserError(
                f"--{name}={amount:g}: must be a fraction below 1, or a number of images per class"
            )
    if validation == 0:
        raise UserError("--validation=0: a data set needs validation images; use at least 1 per class")
    parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label, name in enumerate(CLASSES):
        order = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        num_validation, num_test = (_number(amount, len(order)) for amount in (validation, test))
        held_out = num_validation + num_test
        if held_out >= len(order):
            raise UserError(
                f"class {name}: no images are left for training if {held_out:,} of {len(order):,} are held "
                "out; reduce --validation or --test"
            )
        parts["val"].append(order[:num_validation])
        parts["test"].append(order[num_validation:held_out])
        parts["train"].append(order[held_out:])
    rows = {split: np.sort(np.concatenate(chosen)) for split, chosen in parts.items()}
    return {split: chosen for split, chosen in rows.items() if chosen.size}


def _number(amount: float, total: int) -> int:
    """Number of images of a class, from their fraction or number."""
    return max(1, round(amount * total)) if 0 < amount < 1 else int(amount)


def _find_classes(source: Path) -> tuple[FileTree, list[str]]:
    """Descends to the class folders or splits; the splits are [""] if there are none."""
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; check --input")
    tree = open_tree(source)
    for _ in range(MAX_WRAPPERS):
        folders = tree.contents("").folders
        if {"train", "val"} <= set(folders):
            return tree, [split for split in SPLITS if split in folders]
        if set(folders) & {*CLASSES, *ALIASES}:
            return tree, [""]
        if len(folders) != 1:
            break
        tree = Subtree(tree, folders[0])
    found = ", ".join(folders[:10]) or "no folders"
    raise UserError(
        f"{tree.path}: no class folders {', '.join(ALIASES)} (found {found}); specify the folder or zip "
        "archive of one model, which contains them"
    )


def _list_sorted(tree: FileTree, part: str, problems: list[Problem]) -> list[LabeledFile]:
    files = list_images(tree, part, problems, skip_other_files=True)
    # The name itself decides between names such as 1.npy and 01.npy.
    return sorted(files, key=lambda file: (file.label, natural_key(file.name)))


def _check_files(tree: FileTree, files: Sequence[LabeledFile], problems: list[Problem]) -> list[_CheckedFile]:
    """Parses all files.

    Raises:
      UserError: if a file is not valid, or `problems` is not empty.
    """

    def check(file: LabeledFile) -> _CheckedFile | Problem:
        try:
            data = tree.read(file.name, LIMIT)
            image = parse_file(data)
        except UserError as error:
            return Problem(file.name, str(error))
        return _CheckedFile(len(image.pixels), image.axion_mass, hashlib.blake2b(data).digest())

    results = _run_threads(check, files, "checking")
    checked = [result for result in results if isinstance(result, _CheckedFile)]
    usual = Counter(result.image_size for result in checked).most_common(1)
    for file, result in zip(files, results, strict=True):
        if isinstance(result, Problem):
            problems.append(result)
        elif result.image_size != usual[0][0]:
            found, expected = (result.image_size,) * 2, (usual[0][0],) * 2
            message = f"shape {found}, expected {expected}, the shape of most images; remove it"
            problems.append(Problem(file.name, message))
    raise_problems(problems, tree.path, len(files))
    return checked


def _digest(files: Sequence[LabeledFile], checked: Sequence[_CheckedFile]) -> str:
    """Digest of the names and contents of all files."""
    digest = hashlib.blake2b(digest_size=16)
    for file, result in zip(files, checked, strict=True):
        digest.update(_encode(file.name) + b"\0" + result.digest)
    return digest.hexdigest()


def _write_truth(
    path: Path,
    files: Sequence[LabeledFile],
    checked: Sequence[_CheckedFile],
    rows: Mapping[str, Int[np.ndarray, " _"]],
) -> None:
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["file", "class", "axion_mass", "original"])
    for split, chosen in rows.items():
        for row in chosen:
            file, mass = files[row], checked[row].axion_mass
            written = "" if mass is None else repr(mass)
            writer.writerow([_output_name(split, file), CLASSES[file.label], written, file.name])
    write_file(path, _encode(table.getvalue()))


def _write_split(tree: FileTree, output: Path, split: str, files: Sequence[LabeledFile], size: int) -> None:
    """Writes the images of a split that do not exist yet."""
    if (output / split).is_dir():
        return
    unfinished = output / UNFINISHED
    for name in CLASSES:
        (unfinished / split / name).mkdir(parents=True, exist_ok=True)

    def write(file: LabeledFile) -> None:
        path = unfinished / _output_name(split, file)
        if is_written(path, size):
            return
        try:
            image = parse_file(tree.read(file.name, LIMIT))
        except UserError as error:
            raise UserError(f"{tree.path / file.name}: {error}") from error
        write_image(path, image.pixels)

    _run_threads(write, files, f"writing {split}")
    (unfinished / split).rename(output / split)


def _run_threads(
    function: Callable[[LabeledFile], Any], files: Sequence[LabeledFile], task: str
) -> list[Any]:
    """Results of a function for each file, with a progress bar."""

    def run(start: int) -> list[Any]:
        return [function(file) for file in files[start : start + FILES_PER_TASK]]

    results: list[Any] = []
    executor = concurrent.futures.ThreadPoolExecutor(THREADS)
    try:
        with progress_bar(len(files), task) as bar:
            for some in executor.map(run, range(0, len(files), FILES_PER_TASK)):
                results += some
                bar.update(len(some))
    finally:
        executor.shutdown(cancel_futures=True)
    return results


def _image_size(shape: tuple[int, ...]) -> int:
    """Height and width of an image, pixels.

    Raises:
      UserError: if the shape is not that of one square image.
    """
    plane = shape
    if len(shape) == 3:
        plane = shape[1:] if shape[0] == 1 else shape[:2] if shape[2] == 1 else shape
    if len(plane) != 2 or plane[0] != plane[1] or not 1 <= plane[0] <= MAX_SIDE:
        raise UserError(
            f"shape {shape!s:.60}, expected (n, n) or (1, n, n) with n up to {MAX_SIDE:,}; save one square "
            "image with one channel per file"
        )
    return plane[0]


def _axion_mass(value: Any) -> float:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if type(value) not in (int, float) or not 0 < value < 1e300:
        raise UserError("the axion mass is not a positive number; save only the image with np.save")
    return float(value)


def _output_name(split: str, file: LabeledFile) -> str:
    return f"{split}/{CLASSES[file.label]}/{file.name.rpartition('/')[2]}"


def _encode(text: str) -> bytes:
    """UTF-8, including the bytes of file names that are not valid UTF-8."""
    return text.encode("utf-8", "surrogateescape")
