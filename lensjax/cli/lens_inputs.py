"""Input files of `lensjax fit`, `substructure` and `predict --psf`: one lens, a folder, or a table."""

import csv
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from lensjax.data.file_tree import is_hidden
from lensjax.errors import UserError
from lensjax.prediction.readers import SUFFIXES

PARTS = ("image", "noise", "psf", "mask")
REDSHIFTS = ("z_lens", "z_source")  # columns of a table for `lensjax substructure`
RESERVED = ("index", "fits", "settings", "substructure")  # base names of other output files
_FITS = tuple(suffix for suffix in SUFFIXES if suffix.startswith((".fit", ".fts")))
_MAX_LENGTH = 100  # of a name, characters


@dataclasses.dataclass(frozen=True)
class LensFiles:
    """Files of one lens.

    Attributes:
      name: base name of its results, unique within an output.
      image: file of the image.
      noise, psf, mask: other files; None if the part is an extension of the image's file or missing.
      z_lens, z_source: redshifts, if the table has them.
    """

    name: str
    image: Path
    noise: Path | None = None
    psf: Path | None = None
    mask: Path | None = None
    z_lens: float | None = None
    z_source: float | None = None

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file that exists, by part, and the redshifts; "" for a file that cannot be read."""
        files = {part: getattr(self, part) for part in PARTS}
        redshifts = {name: str(getattr(self, name)) for name in REDSHIFTS if getattr(self, name) is not None}
        return redshifts | {
            part: _digest(file) for part, file in files.items() if file is not None and file.is_file()
        }


def find_lenses(
    image: Path, noise: Path | None = None, psf: Path | None = None, mask: Path | None = None
) -> list[LensFiles]:
    """Finds the lenses that the command names.

    Args:
      image: a FITS file, a folder or a CSV table.
      noise, psf, mask: files for all lenses that have none of their own.

    Returns:
      The files of each lens, with unique names.

    Raises:
      UserError: if there is no lens, or the table cannot be read or is invalid.
    """
    if not image.exists():
        raise UserError(f"{image}: no such file or folder; check the path")
    if image.is_dir():
        found = list(_in_folder(image))
        if not found:
            raise UserError(
                f"{image}: contains neither FITS files nor folders with image.fits; choose another folder"
            )
    elif image.suffix.lower() == ".csv":
        found = _in_table(image)
    else:
        found = [LensFiles(_stem(image), image)]
    taken = set(RESERVED)
    lenses = []
    for lens in found:
        name = _unique(lens.name, taken)
        lenses.append(
            dataclasses.replace(
                lens, name=name, noise=lens.noise or noise, psf=lens.psf or psf, mask=lens.mask or mask
            )
        )
    return lenses


def _in_folder(folder: Path) -> Iterator[LensFiles]:
    if _part(folder, "image"):
        yield _in_subfolder(folder)
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if _part(path, "image"):
                yield _in_subfolder(path)
        # A broken link or a pipe gets a row with its error.
        elif path.name.lower().endswith(_FITS) and not is_hidden(path.name):
            yield LensFiles(_stem(path), path)


def _in_subfolder(folder: Path) -> LensFiles:
    image, noise, psf, mask = (_part(folder, part) for part in PARTS)
    assert image is not None
    return LensFiles(folder.absolute().name, image, noise, psf, mask)


def _part(folder: Path, part: str) -> Path | None:
    """The file of a part of the lens in a folder, such as image.fits, in any case and also compressed.

    A broken link counts, too: it is an error of its lens, and ignoring it would change the result.

    Raises:
      UserError: if there are several.
    """
    names = {f"{part}{ending}" for ending in _FITS}
    found = sorted(path for path in folder.iterdir() if path.name.lower() in names and not path.is_dir())
    if len(found) > 1:
        raise UserError(f"{folder}: contains {found[0].name} and {found[1].name}; remove one of them")
    return found[0] if found else None


def _in_table(table: Path) -> list[LensFiles]:
    if not table.is_file():  # opening a pipe would block
        raise UserError(f"{table}: is not a regular file; specify a CSV table, a FITS file or a folder")
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read as CSV: {error}") from None
    names = list(reader.fieldnames or ())
    unknown = [name for name in names if name not in ("name", *PARTS, *REDSHIFTS)]
    if "image" not in names or unknown:
        raise UserError(
            f"{table}: has the columns {', '.join(names)[:200] or 'none'}; expected image, and optionally "
            "name, noise, psf, mask, z_lens and z_source"
        )
    lenses = []
    for number, row in enumerate(rows, 2):
        if not row["image"] or None in row:
            raise UserError(f"{table}: row {number} has no image, or too many cells; correct it")
        image = table.parent / row["image"]
        noise, psf, mask = (table.parent / row[part] if row.get(part) else None for part in PARTS[1:])
        try:
            redshifts = [float(row[part]) if row.get(part) else None for part in REDSHIFTS]
        except ValueError:
            raise UserError(f"{table}: a redshift in row {number} is not a number; correct it") from None
        name = row.get("name") or _stem(image)
        lenses.append(LensFiles(name, image, noise, psf, mask, *redshifts))
    if not lenses:
        raise UserError(f"{table}: has no rows; list at least one image")
    return lenses


def _stem(path: Path) -> str:
    """Name of a file without the suffix of a FITS file, or another suffix."""
    suffix = next((suffix for suffix in _FITS if path.name.lower().endswith(suffix)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def _unique(name: str, taken: set[str]) -> str:
    """A name that is not taken even if the file system ignores case; it is added to `taken`."""
    name = re.sub(r"[^\w.+-]", "_", name)[:_MAX_LENGTH].lstrip(".-+") or "lens"
    candidate, number = name, 2
    while candidate.casefold() in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate.casefold())
    return candidate


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""  # the fit reports the error of this lens
