"""Predictions for image files, written as a table while they are made."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lensjax.console import progress
from lensjax.data.file_tree import FileTree, Folder, open_tree
from lensjax.data.fitted import VALUES
from lensjax.data.images import CLASSES, ImageSet
from lensjax.data.npy import bytes_to_read, parse_image
from lensjax.errors import UserError
from lensjax.evaluation.trained import Trained


def predict_files(classifier: Trained, source: Path, output: Path) -> tuple[int, int]:
    """Classifies the .npy files at `source` and writes one row a file to `output`, as CSV.

    The columns are `file`, `class`, `probability_<class>` for each class, what the fit of a smooth lens
    found (`lensjax.data.fitted.VALUES`) if the classifier needs one, and `error`: what is wrong with a
    file that could not be classified.

    Args:
      classifier: the trained classifier.
      source: a .npy file, or a folder or zip with such files at any depth.
      output: the table; an existing file is not overwritten.

    Returns:
      How many files were classified, and how many could not be.

    Raises:
      UserError: `source` has no .npy file, or `output` exists or cannot be written.
    """
    tree, files = npy_files(source)
    batch_size = classifier.config.eval_batch_size
    num_bad = 0
    try:
        stream = output.open("x", newline="")
    except FileExistsError:
        raise UserError(f"{output} exists; name another file with --output") from None
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None
    with stream, progress(len(files), "predicting") as bar:
        writer = csv.writer(stream)
        fitted = () if classifier.config.data.fit == "none" else VALUES
        numbers = [*(f"probability_{name}" for name in CLASSES), *fitted]
        writer.writerow(["file", "class", *numbers, "error"])
        for start in range(0, len(files), batch_size):
            names = files[start : start + batch_size]
            answers = classify(classifier, tree, names)
            for name, answer in zip(names, answers, strict=True):
                if isinstance(answer, str):
                    writer.writerow([name, *[""] * (1 + len(numbers)), answer])
                    num_bad += 1
                else:
                    best = CLASSES[answer[: len(CLASSES)].argmax()]
                    values = [f"{value:.6f}" for value in answer]
                    values[len(CLASSES) :] = [f"{value:.6g}" for value in answer[len(CLASSES) :]]
                    writer.writerow([name, best, *values, ""])
            bar.update(len(names))
    return len(files) - num_bad, num_bad


def classify(classifier: Trained, tree: FileTree, names: Sequence[str]) -> list[np.ndarray | str]:
    """For each file its class probabilities and what a fit found, or in words what is wrong with it."""
    image_size = classifier.config.data.image_size
    answers: list[np.ndarray | str] = []
    good: list[int] = []
    images: list[np.ndarray] = []
    for index, name in enumerate(names):
        try:
            image = parse_image(tree.read(name, bytes_to_read(image_size)), image_size)
        except UserError as error:
            answers.append(str(error))
            continue
        answers.append("")
        good.append(index)
        images.append(image.astype(np.float32))
    if images:
        image_set = ImageSet(
            pixels=np.stack(images),
            scale=np.ones(len(images), np.float32),
            labels=np.zeros(len(images), np.int32),
            names=tuple(names[index] for index in good),
        )
        image_set = classifier.with_residuals(image_set)
        columns = [*classifier.predict(image_set).probabilities.T, *(image_set.fit or {}).values()]
        for index, row in zip(good, np.stack(columns, axis=1), strict=True):
            answers[index] = row
    return answers


def npy_files(source: Path) -> tuple[FileTree, list[str]]:
    """The tree at `source` and the paths of the .npy files in it, in a fixed order.

    Args:
      source: a .npy file, or a folder or zip with such files at any depth.

    Raises:
      UserError: nothing is there, or no .npy file.
    """
    if source.is_file() and source.suffix == ".npy":
        return Folder(source.parent), [source.name]
    if source.is_dir():
        # Unlike a walk by hand, rglob does not follow links to folders, so it always ends.
        found = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.npy"))
        tree: FileTree = Folder(source)
    else:
        tree = open_tree(source)
        found = []
        folders = [""]
        for folder in folders:
            contents = tree.contents(folder)
            prefix = f"{folder}/" if folder else ""
            folders += [prefix + name for name in contents.folders]
            found += [prefix + name for name in contents.files if name.endswith(".npy")]
    if not found:
        raise UserError(
            f"{source} has no .npy file; give a .npy file, or a folder or zip with some"
        )
    return tree, found
