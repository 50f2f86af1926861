"""Reads the published layout: train/ and val/, each with the folders no, sphere and vort of .npy files.

The source is a folder or a zip archive. It may also contain test/.
"""

import concurrent.futures
import difflib
import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from lensjax.data import npy
from lensjax.data.counts import recover_counts
from lensjax.data.file_tree import FileTree, Subtree, open_tree
from lensjax.data.images import CLASSES, ImageSet
from lensjax.data.problems import Problem, raise_problems
from lensjax.data.splits import Source
from lensjax.errors import UserError
from lensjax.runtime.progress import progress_bar

REQUIRED_SPLITS = ("train", "val")
OPTIONAL_SPLITS = {"test"}
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
MAX_WRAPPERS = 20  # folders that contain only one folder, around train/ and val/
# DeepLenseSim names the classes after the type of dark matter.
ALIASES = {"no_sub": "no", "cdm": "sphere", "axion": "vort"}
FILES_PER_TASK = 32
# More threads contend for the interpreter; fewer leave slow disks idle.
THREADS = 4


class LabeledFile(NamedTuple):
    """Path of an image, relative to the folder that contains train/, and its class."""

    name: str
    label: int


class NotCountsError(Exception):
    """The pixels of an image are not photon counts, so its split must be stored as float32."""


def open_reference_layout(path: Path, image_size: int) -> Source:
    """Opens a folder or zip archive in the published layout. Images are read only on request.

    A part whose images are all photon counts becomes uint16, and any other part becomes float32. Images are
    sorted by class, then by file name in natural order.

    Args:
      path: the folder that contains train/ and val/, or an archive of it. They may be inside another folder.
      image_size: expected height and width, pixels.

    Returns:
      A source with "train", "val" and, if the folder has it, "test". If files are invalid, reading it raises
      a UserError that lists the first ten of them and states their total number.

    Raises:
      UserError: if the path cannot be opened, or train/ or val/ is missing.
    """
    tree = _find_root(open_tree(path))
    return Source(_parts(tree), functools.partial(_read_parts, tree, image_size))


def read_reference_layout(path: Path, image_size: int) -> dict[str, ImageSet]:
    """Reads all images of a folder or zip archive; see `open_reference_layout`."""
    tree = _find_root(open_tree(path))
    return _read_parts(tree, image_size, _parts(tree))


def read_class_folders(path: Path, image_size: int) -> ImageSet:
    """Reads all images of a folder with the folders no, sphere and vort; see `open_reference_layout`.

    Raises:
      UserError: if the folder or an image cannot be read.
    """
    path = path.absolute()
    return _read_parts(open_tree(path.parent), image_size, [path.name])[path.name]


def _parts(tree: FileTree) -> list[str]:
    return [*REQUIRED_SPLITS, *(OPTIONAL_SPLITS & set(tree.contents("").folders))]


def _read_parts(tree: FileTree, image_size: int, splits: Collection[str]) -> dict[str, ImageSet]:
    problems: list[Problem] = []
    listing = {split: list_images(tree, split, problems) for split in splits}
    total = sum(map(len, listing.values()))
    if any(problem.stops_reading for problem in problems):
        raise_problems(problems, tree.path, total)
    sets = {}
    for split, files in listing.items():
        sets[split], bad_files = _read_split(tree, split, files, image_size)
        problems += bad_files
    raise_problems(problems, tree.path, total)
    return sets


def _find_root(tree: FileTree) -> FileTree:
    """Descends through folders that contain only one folder, to the tree with train/ and val/."""
    for _ in range(MAX_WRAPPERS):
        contents = tree.contents("")
        folders = contents.folders
        if set(REQUIRED_SPLITS) <= set(folders):
            return tree
        if len(folders) != 1 or folders[0] in REQUIRED_SPLITS:
            break
        tree = Subtree(tree, folders[0])
    found = ", ".join(folders[:10]) or "no folders"
    missing = " and ".join(f"{split}/" for split in REQUIRED_SPLITS if split not in folders)
    hint = "specify the folder or zip archive that contains train/ and val/"
    if set(folders) & {*CLASSES, *ALIASES}:
        hint = "divide the images into splits with lensjax import, and use its output"
    others = {folder: SPLIT_NAMES.get(folder.casefold().strip()) for folder in folders}
    if renamed := [f"{old} to {new}" for old, new in others.items() if new not in (None, old)]:
        hint = f"rename {', '.join(renamed)}"
    if "dataset_info.json" in contents.files:
        hint = f"for a prepared data set, set config.data.source=tfds:{tree.path}"
    raise UserError(f"{tree.path}: no {missing} (found {found}); {hint}")


def list_images(
    tree: FileTree, parent: str, problems: list[Problem], *, skip_other_files: bool = False
) -> list[LabeledFile]:
    """Lists the images in the class folders of a folder.

    Args:
      tree: the files.
      parent: the folder, such as "train"; the root of the tree is the empty string.
      problems: list to which the problems of the folders are appended.
      skip_other_files: whether files that are not .npy files are skipped; they are problems by default.

    Returns:
      The images, sorted by class.
    """
    prefix = f"{parent}/" if parent else ""
    folder_of_class: dict[str, str] = {}
    contents = tree.contents(parent)
    for file in contents.files:
        if file.lower().endswith(".npy"):
            problems.append(Problem(f"{prefix}{file}", "not in a class folder; move it into one"))
    for folder in contents.folders:
        name = ALIASES.get(folder, folder)
        if name not in CLASSES:
            known = (*CLASSES, *ALIASES)
            near = difflib.get_close_matches(folder.casefold().strip(), known, n=1, cutoff=0.7)
            advice = f"rename it to {near[0]}" if near else "move it elsewhere"
            message = f"not one of the classes {', '.join(known)}; {advice}"
            problems.append(Problem(f"{prefix}{folder}", message, stops_reading=bool(near)))
        elif name in folder_of_class:
            message = f"same class as {prefix}{folder_of_class[name]}; keep only one of them"
            problems.append(Problem(f"{prefix}{folder}", message))
        else:
            folder_of_class[name] = folder
    files = []
    for label, name in enumerate(CLASSES):
        if name not in folder_of_class:
            alias = next(other for other, known in ALIASES.items() if known == name)
            message = f"no class folder {name} (or {alias}); each class needs images in each split"
            problems.append(Problem(parent or ".", message, stops_reading=True))
            continue
        folder = f"{prefix}{folder_of_class[name]}"
        images = _list_class(tree, folder, problems, skip_other_files)
        if not images:
            message = "no .npy files; each class needs images in each split"
            problems.append(Problem(folder, message, stops_reading=True))
        files += [LabeledFile(image, label) for image in images]
    return files


def _list_class(tree: FileTree, folder: str, problems: list[Problem], skip_other_files: bool) -> list[str]:
    contents = tree.contents(folder)
    for name in contents.folders:
        problems.append(Problem(f"{folder}/{name}", "unexpected folder; move its images up"))
    for name in contents.others:
        problems.append(Problem(f"{folder}/{name}", "broken link or not a regular file; remove it"))
    images = []
    for name in contents.files:
        if name.lower().endswith(".npy"):
            images.append(f"{folder}/{name}")
        elif not skip_other_files:
            message = "not a .npy file; convert it with np.save(path, image) or remove it"
            problems.append(Problem(f"{folder}/{name}", message))
    return images


def _read_split(
    tree: FileTree, split: str, files: Sequence[LabeledFile], image_size: int
) -> tuple[ImageSet, list[Problem]]:
    """Reads the images of a split as counts, or all as float32 if one of them has no counts."""
    read = functools.partial(_read_as, tree, split, files, image_size)
    try:
        return read(np.uint16)
    except NotCountsError:
        return read(np.float32)


def _read_as(
    tree: FileTree, split: str, files: Sequence[LabeledFile], image_size: int, dtype: DTypeLike
) -> tuple[ImageSet, list[Problem]]:
    pixels = np.empty((len(files), image_size, image_size), dtype)
    scale = np.ones(len(files), np.float32)
    limit = npy.bytes_to_read(image_size)

    def read_rows(start: int) -> list[Problem]:
        problems = []
        for row, file in enumerate(files[start : start + FILES_PER_TASK], start):
            try:
                image = npy.parse_image(tree.read(file.name, limit), image_size)
            except UserError as error:
                problems.append(Problem(file.name, str(error)))
                continue
            if dtype == np.float32:
                pixels[row] = image
                continue
            counts = recover_counts(image)
            if counts is None:
                raise NotCountsError
            pixels[row], scale[row] = counts
        return problems

    problems = []
    starts = range(0, len(files), FILES_PER_TASK)
    executor = concurrent.futures.ThreadPoolExecutor(THREADS)
    try:
        with progress_bar(len(files), f"reading {split}") as bar:
            for start, bad_files in zip(starts, executor.map(read_rows, starts), strict=True):
                problems += bad_files
                bar.update(min(FILES_PER_TASK, len(files) - start))
    finally:
        executor.shutdown(cancel_futures=True)
    labels = np.array([file.label for file in files], np.int32)
    return ImageSet(pixels, scale, labels, tuple(file.name for file in files)), problems
