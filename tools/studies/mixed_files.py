"""Gives commands a folder of good, damaged and other files, and checks every row of the table.

    python tools/studies/mixed_files.py --number 2000

The folder has subfolders with unusual names, links, pipes, empty files and files of other kinds. A file
passes if it is

- good, and its row has the true class of the simulated image and the probabilities of its pixels,
- bad, and its row has an error of one line,
- of another kind, and has no row, or
- damaged, and it is read or its row has such an error. If it is cut, or its format has a checksum, a row
  without an error must be that of the undamaged file.

`lensjax fit` gets a smaller folder; each lens must have its true Einstein radius.
"""

import csv
import importlib
import json
import os
import subprocess
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kill_runs import print_table

import lensjax
from lensjax import simulation
from lensjax.cli import runner
from lensjax.cli.flags import Flag, integer, parse_flags, random_seed, usage
from lensjax.data.images import CLASSES

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
MODEL = "common_test"
MAX_LINES = 20  # on standard error
FOLDERS = (
    *("", "plain", "with space", "ünïcødé", "=formula", "-dash", "new\nline", "*glob[1]?", "'quote\""),
    *("deep/" * 20, "a.npy", "x.zip", "long" * 50, os.fsdecode(b"not-utf-8-\xff")),
    *("\N{RIGHT-TO-LEFT OVERRIDE}txt", "%s{0}"),
)
CHECKED = (".npz", ".png", ".gz", ".bz2")  # formats with a checksum of the pixels
TOLERANCE = 1e-3  # of probabilities, which depend slightly on the size of the batch
RADIUS_TOLERANCE = 0.02  # arcsec

FLAGS: dict[str, Flag] = {
    "number": integer("Files for lensjax predict; 2,000 if not given.", 2_000, 50),
    "seed": random_seed("of the images and of the damage"),
}
USAGE = usage(
    "Gives commands a folder of good, damaged and other files, and checks every row of the table.",
    ["python tools/studies/mixed_files.py --number 2000"],
    FLAGS,
)


def main(words: Sequence[str]) -> None:
    """Runs the study and prints its result."""
    options = types.SimpleNamespace(**parse_flags(FLAGS, words))
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for study in (predict_mixed, fit_mixed):
            rows.append(study(Path(folder), options.number, options.seed))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print_table(rows)


def predict_mixed(folder: Path, number: int, seed: int) -> dict[str, Any]:
    """Row of the table for `lensjax predict`.

    Args:
      folder: a folder for the files.
      number: number of files.
      seed: seed of the images and of the damage.
    """
    simulated = simulation.simulate_split(MODEL, seed=seed, split="test", num_images=12)
    answer = lensjax.load(MODEL).predict(simulated.pixels)
    right = answer.classes == np.array(CLASSES)[simulated.labels]  # errors of the model are not counted
    labels, probabilities = simulated.labels[right], answer.probabilities[right]
    expected = write_files(folder / "mixed", simulated.pixels[right].astype(np.uint16), number, seed)
    table = folder / "mixed.jsonl"
    problems = run_command("predict", "--model", MODEL, "--input", folder / "mixed", "--output", table)
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["file"], []).append(row)

    def is_right(row: dict[str, Any], index: int) -> bool:
        stored = [row[f"probability_{name}"] for name in CLASSES]
        return (
            row["error"] is None
            and row["class"] == CLASSES[labels[index]]
            and np.allclose(stored, probabilities[index], rtol=0, atol=TOLERANCE)
        )

    for name, (kind, index) in expected.items():
        shown = name.encode("utf-8", "backslashreplace").decode()
        parts = [each for each in by_name if each == shown or each.startswith((f"{shown}:", f"{shown}["))]
        found = [row for part in parts for row in by_name.pop(part)]
        errors = [row["error"] or "" for row in found]
        passed = (
            not any("\n" in error for error in errors)
            and {
                "good": len(found) == 1 and is_right(found[0], index),
                "bad": len(found) == 1 and bool(errors[0]) and found[0]["class"] is None,
                "absent": not found,
                "damaged": bool(found),
                "checked": bool(found) and all(row["error"] or is_right(row, index) for row in found),
            }[kind]
        )
        if not passed:
            problems.append(f"{shown!r} ({kind}): {found}")
    problems += [f"unexpected row {name!r}" for name in by_name]
    counts = Counter(kind for kind, _ in expected.values())
    return {
        "fault": "mixed files, lensjax predict",
        "trials": len(expected),
        "passed": len(expected) - len(problems),
        "kinds": counts,
        "problems": problems,
    }


def write_files(folder: Path, images: np.ndarray, number: int, seed: int) -> dict[str, tuple[str, int]]:
    """Writes the files.

    Args:
      folder: a new folder.
      images: images in whole counts.
      number: number of files.
      seed: seed of the choices.

    Returns:
      What each file is, by its name: "good", "bad", "damaged", "checked" (if damage must be reported or
      leave the pixels unchanged) or "absent"; and the index of its image.
    """
    image_files = importlib.import_module("helpers.image_files")
    mutations = importlib.import_module("helpers.mutations")
    formats = [image_files.every_kind(image) for image in images]
    bad = {name: content for name, (content, _) in image_files.bad_files(images[0]).items()}
    del bad["cut.fits"]  # of an image of this size, only the padding is cut
    others = {
        "notes.txt": b"text",
        "photo.jpg": b"\xff\xd8\xff",
        "table.csv": b"a,b",
        "no suffix": b"",
        ".x.npy": b"",
    }
    generator = np.random.default_rng(seed)
    expected: dict[str, tuple[str, int]] = {}
    for number_before in range(number):
        place = FOLDERS[number_before % len(FOLDERS)].strip("/")
        (folder / place).mkdir(parents=True, exist_ok=True)
        sort = ("good", "damaged", "bad", "good", "empty", "link", "damaged", "other")[generator.integers(8)]
        index = int(generator.integers(len(formats)))
        files = {"bad": bad, "other": others}.get(sort, formats[index])
        form = str(generator.choice(list(files)))
        content = files[form]
        leaf = f"{form}-{number_before}" if "." not in form else f"{number_before}-{form}"
        if form.startswith("."):
            leaf = f".{leaf}"
        path = folder / place / leaf
        name = f"{place}/{leaf}" if place else leaf
        if sort == "link":
            expected[name] = write_link(path, content, number_before), index
            continue
        kind = {"good": "good", "other": "absent"}.get(sort, "bad")
        if sort == "damaged":
            damage = str(generator.choice(list(mutations.MUTATIONS)))
            content = mutations.mutate(content, damage, seed + number_before)
            kind = "checked" if damage == "truncate" or form.endswith(CHECKED) else "damaged"
        path.write_bytes(b"" if sort == "empty" else content)
        expected[name] = kind, index
    return expected


def write_link(path: Path, content: bytes, number: int) -> str:
    """Writes a link or a pipe, and returns whether it is "good" or "bad"."""
    if number % 4 == 0:  # to a good file in a hidden folder
        target = path.parent / ".targets" / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        path.symlink_to(target)
        return "good"
    if number % 4 == 1:
        os.mkfifo(path)
    else:  # to nothing, or to itself
        path.symlink_to("missing" if number % 4 == 2 else path.name)
    return "bad"


def fit_mixed(folder: Path, number: int, seed: int) -> dict[str, Any]:
    """Row of the table for `lensjax fit`: two lenses among files that cannot be fitted.

    Args:
      folder: a folder for the files.
      number: not used.
      seed: seed of the images.
    """
    del number
    small = importlib.import_module("helpers.small_cutout")
    image_files = importlib.import_module("helpers.image_files")
    top = folder / "lenses"
    lenses = ("lens", "ünï lens")
    for index, name in enumerate(lenses):
        small.write_lens(top / name, size=41, seed=seed + index)
    for name, (content, _) in image_files.bad_files(image_files.bars(seed)).items():
        if ".fits" in name:
            (top / name).write_bytes(content)
    (top / "empty.fits").write_bytes(b"")
    (top / "folder.fits").mkdir()
    (top / "notes.txt").write_text("text")
    (top / "missing.fits").symlink_to("nothing")
    os.mkfifo(top / "pipe.fits")
    small.write_fits(top / "nan.fits", np.full((41, 41), np.nan))
    small.write_fits(top / "flat.fits", np.ones((41, 41)))
    files = sorted(path.name for path in top.iterdir() if path.suffix in (".fits", ".gz"))
    files.remove("folder.fits")
    # The table names lenses by their file; a second file of a name gets a number.
    failed = [f"{file.partition('.')[0]}{'_2' * file.endswith('.gz')}" for file in files]
    problems = run_command("fit", "--image", top, "--output", folder / "fits", "--order", 2, code=0)
    rows = read_fits(folder / "fits")
    for name in lenses:
        row = rows.pop(name.replace(" ", "_"), {"mass.0.theta_E": "nan"})
        if not abs(float(row["mass.0.theta_E"]) - small.THETA_E) < RADIUS_TOLERANCE:
            problems.append(f"{name}: {row}")
    for name in failed:
        row = rows.pop(name, {"verdict": "no row", "reasons": ""})
        if row["verdict"] != "failed" or not row["reasons"] or "\n" in row["reasons"]:
            problems.append(f"{name}: {row}")
    problems += [f"unexpected row {name!r}" for name in rows]
    trials = len(lenses) + len(failed)
    return {
        "fault": "mixed files, lensjax fit",
        "trials": trials,
        "passed": trials - len(problems),
        "problems": problems,
    }


def read_fits(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of the table of fits by name."""
    if not (folder / "fits.csv").exists():
        return {}
    with (folder / "fits.csv").open(encoding="utf-8", newline="") as stream:
        return {row.pop("name"): row for row in csv.DictReader(stream)}


def run_command(*words: object, code: int = 1) -> list[str]:
    """Runs a command of lensjax, and returns the problems with its exit code and messages."""
    line = [sys.executable, "-m", "lensjax.main", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    if done.returncode != code or "Traceback" in done.stderr or len(lines) > MAX_LINES:
        return [f"{words[0]}: exit code {done.returncode}, {len(lines)} lines: {' / '.join(lines[-3:])}"]
    return []


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="mixed_files"))
