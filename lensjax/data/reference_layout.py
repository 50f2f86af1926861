"""The published layout: train/ and val/, each with the folders no, sphere and vort of .npy files.

The source is a folder or a zip archive. It may also have test/.
"""

import concurrent.futures
import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from lensjax.data import npy
from lensjax.data.counts import whole_counts
from lensjax.data.file_tree import FileTree, Subtree, open_tree
from lensjax.data.images import CLASSES, ImageSet
from lensjax.data.problems import Problem, raise_problems
from lensjax.data.splits import Source
from lensjax.errors import UserError
from lensjax.runtime.progress import progress_bar

REQUIRED_SPLITS = ("train", "val")
OPTIONAL_SPLITS = {"test"}
# DeepLenseSim names the same classes by what makes the substructure.
ALIASES = {"no_sub": "no", "cdm": "sphere", "axion": "vort"}
FILES_AT_A_TIME = 32
# More threads only contend for the interpreter; fewer wait on slow disks.
THREADS = 4


class LabelledFile(NamedTuple):
    """An image still to be read: its path below the folder that holds train/, and its class."""

    name: str
    label: int


class NotWholeCountsError(Exception):
    """An image has no whole counts behind it, so its split cannot be kept as counts."""


def open_reference_layout(path: Path, image_size: int) -> Source:
    """Opens a folder or zip archive in the published layout. Images are read only on request.

    A part whose images are all whole counts becomes uint16, and any other part becomes float32. Images are
    in the order of classes, then in the natural order of file names.

    Args:
      path: the folder that contains train/ and val/, or an archive of it. Both may be inside another folder.
      image_size: expected height and width, pixels.

    Returns:
      A source with "train", "val" and, if the folder has it, "test". Reading it raises a UserError that names
      the first ten bad files and says how many there are.

    Raises:
      UserError: the path cannot be opened, or train/ or val/ is missing.
    """
    tree = _below_one_folder(open_tree(path))
    return Source(_parts(tree), functools.partial(_read_parts, tree, image_size))


def read_reference_layout(path: Path, image_size: int) -> dict[str, ImageSet]:
    """Reads all images of a folder or zip archive; see `open_reference_layout`."""
    tree = _below_one_folder(open_tree(path))
    return _read_parts(tree, image_size, _parts(tree))


def _parts(tree: FileTree) -> list[str]:
    return [*REQUIRED_SPLITS, *(OPTIONAL_SPLITS & set(tree.contents("").folders))]


def _read_parts(tree: FileTree, image_size: int, splits: Collection[str]) -> dict[str, ImageSet]:
    problems: list[Problem] = []
    listing = {split: _list_split(tree, split, problems) for split in splits}
    total = sum(map(len, listing.values()))
    if any(problem.stops_reading for problem in problems):
        raise_problems(problems, tree.path, total)
    sets = {}
    for split, files in listing.items():
        sets[split], bad_files = _read_split(tree, split, files, image_size)
        problems += bad_files
    raise_problems(problems, tree.path, total)
    return sets


def _below_one_folder(tree: FileTree) -> FileTree:
    """The tree with train/ and val/ at its top; folders that hold just one other are stepped into."""
    while True:
        top = tree.contents("")
        if set(REQUIRED_SPLITS) <= set(top.folders):
            return tree
        if len(top.folders) != 1 or top.folders[0] in REQUIRED_SPLITS:
            break
        tree = Subtree(tree, top.folders[0])
    found = ", ".join(top.folders[:10]) or "no folders"
    missing = " and ".join(f"{split}/" for split in REQUIRED_SPLITS if split not in top.folders)
    hint = "give the folder or zip archive that holds train/ and val/"
    if "dataset_info.json" in top.files:
        hint = f"for a prepared data set, set config.data.source=tfds:{tree.path}"
    raise UserError(f"{tree.path}: has no {missing} (found {found}); {hint}")


def _list_split(tree: FileTree, split: str, problems: list[Problem]) -> list[LabelledFile]:
    """The images of a split; what is wrong with its folders goes into `problems`."""
    folder_of_class: dict[str, str] = {}
    contents = tree.contents(split)
    for file in contents.files:
        if file.lower().endswith(".npy"):
            problems.append(Problem(f"{split}/{file}", "is in no class folder; move it into one"))
    for folder in contents.folders:
        name = ALIASES.get(folder, folder)
        if name not in CLASSES:
            known = ", ".join((*CLASSES, *ALIASES))
            problems.append(
                Problem(f"{split}/{folder}", f"is none of the classes {known}; move it away")
            )
        elif name in folder_of_class:
            message = f"is the same class as {split}/{folder_of_class[name]}; keep one of them"
            problems.append(Problem(f"{split}/{folder}", message))
        else:
            folder_of_class[name] = folder
    files = []
    for label, name in enumerate(CLASSES):
        if name not in folder_of_class:
            alias = next(other for other, known in ALIASES.items() if known == name)
            message = (
                f"has no class folder {name} (or {alias}); each class needs images in each split"
            )
            problems.append(Problem(split, message, stops_reading=True))
            continue
        folder = f"{split}/{folder_of_class[name]}"
        images = _list_class(tree, folder, problems)
        if not images:
            message = "has no .npy files; each class needs images in each split"
            problems.append(Problem(folder, message, stops_reading=True))
        files += [LabelledFile(image, label) for image in images]
    return files


def _list_class(tree: FileTree, folder: str, problems: list[Problem]) -> list[str]:
    contents = tree.contents(folder)
    for name in contents.folders:
        problems.append(Problem(f"{folder}/{name}", "is a folder; put the images beside it"))
    for name in contents.others:
        problems.append(
            Problem(f"{folder}/{name}", "is a broken link or no file at all; remove it")
        )
    images = []
    for name in contents.files:
        if name.lower().endswith(".npy"):
            images.append(f"{folder}/{name}")
        else:
            message = "is not a .npy file; convert it with np.save(path, image) or remove it"
            problems.append(Problem(f"{folder}/{name}", message))
    return images


def _read_split(
    tree: FileTree, split: str, files: Sequence[LabelledFile], image_size: int
) -> tuple[ImageSet, list[Problem]]:
    """Reads the files of a split as counts, or all as float32 as soon as one is no counts."""
    read = functools.partial(_read_as, tree, split, files, image_size)
    try:
        return read(np.uint16)
    except NotWholeCountsError:
        return read(np.float32)


def _read_as(
    tree: FileTree,
    split: str,
    files: Sequence[LabelledFile],
    image_size: int,
    dtype: DTypeLike,
) -> tuple[ImageSet, list[Problem]]:
    pixels = np.empty((len(files), image_size, image_size), dtype)
    scale = np.ones(len(files), np.float32)
    limit = npy.bytes_to_read(image_size)

    def read_rows(start: int) -> list[Problem]:
        problems = []
        for row, file in enumerate(files[start : start + FILES_AT_A_TIME], start):
            try:
                image = npy.parse_image(tree.read(file.name, limit), image_size)
            except UserError as error:
                problems.append(Problem(file.name, str(error)))
                continue
            if dtype == np.float32:
                pixels[row] = image
                continue
            counts = whole_counts(image)
            if counts is None:
                raise NotWholeCountsError
            pixels[row], scale[row] = counts
        return problems

    problems = []
    starts = range(0, len(files), FILES_AT_A_TIME)
    executor = concurrent.futures.ThreadPoolExecutor(THREADS)
    try:
        with progress_bar(len(files), f"reading {split}") as bar:
            for start, bad_files in zip(starts, executor.map(read_rows, starts), strict=True):
                problems += bad_files
                bar.update(min(FILES_AT_A_TIME, len(files) - start))
    finally:
        executor.shutdown(cancel_futures=True)
    labels = np.array([file.label for file in files], np.int32)
    return ImageSet(pixels, scale, labels, tuple(file.name for file in files)), problems
