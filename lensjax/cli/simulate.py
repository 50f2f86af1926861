"""The command simulate: writes simulated images in the published layout, with all true parameters."""

import concurrent.futures
import csv
import dataclasses
import tempfile
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import lensjax
from lensjax import simulation
from lensjax.cli.flags import Flag, choice, integer, parse_flags, path_to, random_seed, switch, usage
from lensjax.data.images import CLASSES, DISPLAY_NAMES, ImageSet
from lensjax.data.output_folder import claim_folder, is_written, write_image
from lensjax.errors import UserError, naming
from lensjax.runtime.progress import log, progress_bar
from lensjax.simulation.images import Split
from lensjax.weights.writing import check_output_path

SPLIT_OF_FOLDER: dict[str, Split] = {"train": "train", "val": "validation"}
CHUNK_SIZE = 512  # images simulated at a time
MOST = 10**9  # largest number of images of a split
MANIFEST, TRUTH = "simulation.json", "truth.csv"


FLAGS = {
    "preset": Flag(
        "NAME",
        "common_test (default), varied, model_1, model_2, model_3, euclid_like or hubble_like.",
        default="common_test",
    ),
    "train": integer("Number of training images, 3 or more; the classes alternate.", 0, 0, high=MOST),
    "val": integer("Number of validation images, 3 or more.", 0, 0, high=MOST),
    "seed": random_seed("of the scenes"),
    "output": path_to(
        "FOLDER",
        "Folder of the images: train/ and val/, each with the folders no, sphere and vort of .npy files, "
        "float64 of shape (1, height, width); and truth.csv with every true parameter of each image.",
    ),
    "format": choice(
        "FORMAT",
        "npy (default), or array_record for a TensorFlow Datasets data set, which "
        "--config.data.source=tfds:FOLDER reads.",
        ("npy", "array_record"),
        "npy",
    ),
    "montage": path_to("FILE", "Write a labeled contact sheet; without --output, nothing else is written."),
    "overwrite": switch("Replace an existing contact sheet."),
}
USAGE = usage(
    "Simulates images of lenses in the published layout, with all true parameters.",
    ["lensjax simulate --preset common_test --train 30000 --val 7500 --output FOLDER"],
    FLAGS,
    "Rerun the same command to resume. An output folder with other files is not changed. The images are "
    "the same as those of --config.data.source=simulated:NAME with the same seed.",
)


def main(arguments: Sequence[str]) -> None:
    """Runs the command simulate."""
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    if not values.output and not values.montage:
        raise UserError("--output or --montage is required; see --help")
    for name in ("train", "val", "format"):
        if not values.output and getattr(values, name) != FLAGS[name].default:
            raise UserError(f"--{name} needs --output, the folder of the images; see --help")
    if values.montage:
        check_output_path(values.montage, overwrite=values.overwrite)
    elif values.overwrite:
        raise UserError("--overwrite needs --montage; files in --output are not replaced")
    simulation.preset(values.preset)
    if values.output:
        numbers = {"train": values.train, "val": values.val}
        for folder, number in numbers.items():
            if number < len(CLASSES):
                raise UserError(f"--{folder} must be at least {len(CLASSES)}; see --help")
        output = values.output
        write = write_layout if values.format == "npy" else write_array_record
        try:
            claim(output, values.preset, values.seed, numbers, values.format)
            write(output, values.preset, values.seed, numbers)
            write_truth(output / TRUTH, values.preset, values.seed, numbers)
        except OSError as error:
            raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error
        log.info("%s: %s images of %s", output, f"{sum(numbers.values()):,}", values.preset)
    if values.montage:
        write_montage(values.montage, values.preset, values.seed)


def claim(output: Path, preset: str, seed: int, numbers: dict[str, int], form: str) -> None:
    """Writes the manifest of a new folder, or checks that of an existing one.

    Args:
      output: folder of the images.
      preset: name of the preset.
      seed: seed of the scenes.
      numbers: number of images in each of the folders `train` and `val`.
      form: "npy" or "array_record".

    Raises:
      UserError: if the folder has a different manifest, or other files and no manifest.
    """
    wanted = {
        **{"preset": preset, "definition": repr(simulation.preset(preset)), "seed": seed},
        **{"format": form, "lensjax": lensjax.__version__, **numbers},
    }
    claim_folder(output, MANIFEST, wanted)


def write_layout(output: Path, preset: str, seed: int, numbers: dict[str, int]) -> None:
    """Writes the images that do not exist yet; a file is written completely or not at all.

    Args:
      output, preset, seed, numbers: see `claim`.
    """
    size = simulation.preset(preset).instrument.image_size
    for folder, number in numbers.items():
        for name in CLASSES:
            (output / folder / name).mkdir(parents=True, exist_ok=True)
        starts = range(0, number, CHUNK_SIZE)
        with (
            progress_bar(number, f"writing {folder}") as bar,
            concurrent.futures.ThreadPoolExecutor() as threads,
        ):
            for first in starts:
                rows = range(first, min(first + CHUNK_SIZE, number))
                files = [output / _name(folder, row) for row in rows]
                if not all(is_written(file, size) for file in files):
                    images = simulation.simulate_split(
                        preset, seed=seed, split=SPLIT_OF_FOLDER[folder], num_images=len(rows), first=first
                    )
                    list(threads.map(_write_image, files, images.pixels, images.scale))
                bar.update(len(rows))


def write_array_record(output: Path, preset: str, seed: int, numbers: dict[str, int]) -> None:
    """Writes both splits as one TensorFlow Datasets data set, unless it exists.

    Args:
      output, preset, seed, numbers: see `claim`.
    """
    from lensjax.data.deep_lense import DeepLense  # TensorFlow Datasets is slow to import

    if (output / "deep_lense").exists():
        log.info("%s already exists", output / "deep_lense")
        return
    sets = {}
    for folder, number in numbers.items():
        with progress_bar(number, f"simulating {folder}") as bar:
            images = simulation.simulate_split(
                preset, seed=seed, split=SPLIT_OF_FOLDER[folder], num_images=number, report=bar.update
            )
        names = tuple(_name(folder, row) for row in range(number))
        sets[folder] = ImageSet(images.pixels, images.scale, images.labels, names)
    with tempfile.TemporaryDirectory() as downloads:
        DeepLense(sets=sets, data_dir=output).download_and_prepare(download_dir=downloads)


def write_truth(file: Path, preset: str, seed: int, numbers: dict[str, int]) -> None:
    """Writes a table with the file, the class and all true parameters of each image.

    Args:
      file: the table, CSV.
      preset, seed, numbers: see `claim`.
    """
    temporary = file.with_suffix(".part")
    temporary.unlink(missing_ok=True)  # a link must not be followed
    with naming(file), temporary.open("x", newline="") as stream:
        writer: Any = None
        for folder, number in numbers.items():
            scenes = simulation.draw_scenes(
                preset, seed=seed, split=SPLIT_OF_FOLDER[folder], num_images=number
            )
            for row, truth in enumerate(truth_rows(scenes)):
                named = {"file": _name(folder, row), "class": CLASSES[row % len(CLASSES)], **truth}
                if writer is None:
                    writer = csv.DictWriter(stream, named)
                    writer.writeheader()
                writer.writerow(named)
    temporary.replace(file)


def truth_rows(scenes: simulation.Scene) -> Iterator[dict[str, str]]:
    """Yields the parameters of each scene by name; masses as `mass_0_theta_E`, `mass_0_x`, `mass_0_y`..."""
    fields = {field.name: getattr(scenes, field.name) for field in dataclasses.fields(scenes)}
    masses = fields.pop("masses")
    for row in range(len(masses)):
        values = {name: f"{array[row]:.9g}" for name, array in fields.items()}
        for number, mass in enumerate(masses[row]):
            for part, value in zip(("theta_E", "x", "y"), mass, strict=True):
                values[f"mass_{number}_{part}"] = f"{value:.9g}"
        yield values


def write_montage(file: Path, preset: str, seed: int, columns: int = 6) -> None:
    """Writes a contact sheet: a row of images for each class, with their main parameters.

    Args:
      file: the contact sheet; its suffix determines the format.
      preset, seed: see `claim`.
      columns: number of images of each class.

    Raises:
      UserError: if the file cannot be written.
    """
    import matplotlib.pyplot as plt  # slow to import

    images = simulation.simulate_split(preset, seed=seed, split="test", num_images=columns * len(CLASSES))
    size = (1.7 * columns, 2.0 * len(CLASSES))
    figure, axes = plt.subplots(len(CLASSES), columns, figsize=size, layout="constrained")
    for index, (pixels, scale, label) in enumerate(
        zip(images.pixels, images.scale, images.labels, strict=True)
    ):
        axis = axes[label, index // len(CLASSES)]
        # The square root makes both arcs and noise visible.
        axis.imshow(np.sqrt(pixels / scale), origin="lower", cmap="magma")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(_caption(images.scenes, index), fontsize=6)
        if index < len(CLASSES):
            axis.set_ylabel(DISPLAY_NAMES[label])
    figure.suptitle(f"{preset}, seed {seed}: square root of the brightness", fontsize=9)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=80)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be written: {error}") from error
    finally:
        plt.close(figure)
    log.info("%s: %s images of %s", file, len(images.labels), preset)


def _caption(scenes: simulation.Scene, index: int) -> str:
    shear = np.hypot(scenes.gamma1[index], scenes.gamma2[index])
    caption = f'$\\theta_E$ {scenes.theta_E[index]:.2f}", shear {shear:.2f}'
    if scenes.axion_mass[index]:
        return f"{caption}\naxion {scenes.axion_mass[index]:.1e} eV"
    strongest = scenes.masses[index, :, 0].max()
    return f'{caption}\nmasses up to {strongest:.3f}"' if strongest else f"{caption}\nsmooth"


def _name(folder: str, row: int) -> str:
    return f"{folder}/{CLASSES[row % len(CLASSES)]}/{row:07d}.npy"


def _write_image(file: Path, pixels: np.ndarray, scale: np.ndarray) -> None:
    write_image(file, pixels.astype(np.float64) / float(scale))
