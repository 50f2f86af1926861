"""Finds image files: a single file, matches of a glob pattern, or all files in a folder or zip archive."""

import dataclasses
import fnmatch
import glob
import hashlib
import io
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path

from lensjax.data.file_tree import ZipArchive, is_hidden
from lensjax.decoding import check_expansion
from lensjax.errors import UserError
from lensjax.prediction.readers import SUFFIXES
from lensjax.runtime.paths import user_path

_MAX_MEMBER_SIZE = 2**30  # bytes; a file inside a zip archive is read into memory
_KINDS = ".npz, .fits, .png, .tif or .h5"
_LOSSY = (".jpg", ".jpeg", ".webp", ".gif")


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files to read, in sorted order.

    Attributes:
      top: the folder that the names are relative to, or the zip archive.
      names: names of the files, with forward slashes.
      archive: the zip archive with the files; None for files on disk.
      skipped: number of files that are not in a supported format, by suffix.
    """

    top: Path
    names: list[str]
    archive: ZipArchive | None = None
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)

    def open(self, name: str) -> BufferedIOBase:
        """Opens a file as a seekable stream.

        Raises:
          UserError: if it cannot be read.
        """
        if self.archive is not None:
            length, packed = self.archive.sizes(name)
            if length > _MAX_MEMBER_SIZE:
                raise UserError("is larger than 1 GiB inside an archive; unpack the archive first")
            check_expansion(length, packed)
            return io.BytesIO(self.archive.read(name, _MAX_MEMBER_SIZE))
        path = self.top / name
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                link = "is a link to a parent folder or one that has already been listed; not followed"
                raise UserError(link if path.is_symlink() else "is a folder that cannot be read")
            if not stat.S_ISREG(mode):  # opening a pipe would block
                raise UserError("is not a regular file")
            return path.open("rb")
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"cannot be read: {reason}") from error

    def describe_skipped(self) -> str:
        """Describes the skipped files, such as "2 .jpg, 1 .txt"."""
        return ", ".join(f"{number:,} {suffix}" for suffix, number in self.skipped.most_common())

    def digest(self) -> str:
        """Hash of the folder and the names of the files."""
        key = hashlib.sha256(os.fsencode(self.top.absolute()))
        for name in self.names:
            key.update(os.fsencode(name) + b"\0")
        return key.hexdigest()


def find_images(source: str) -> Listing:
    """Lists the image files in a source, without hidden files.

    Args:
      source: a file, a folder, a zip archive, or a glob pattern such as `new/**/*.fits`.

    Raises:
      UserError: if the source does not exist, cannot be read or contains no image files.
    """
    path = user_path(source)
    archive = None
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise UserError(f"{source}: cannot be read: permission denied")
        top, found = path, _walk(path)
    elif path.suffix.lower() == ".zip" and path.is_file():
        top, archive = path, ZipArchive(path)
        found = _archive_members(archive)
    elif os.path.lexists(path):
        if path.suffix.lower() == ".zip":
            raise UserError(f"{source}: not a regular file; specify a zip archive or a folder")
        if not _is_image(path.name):
            known = ", ".join(SUFFIXES)
            lossy = "; its compression changes the noise" if path.suffix.lower() in _LOSSY else ""
            raise UserError(f"{source}: the suffix must be one of {known}, .zip; convert the file{lossy}")
        return Listing(path.parent, [path.name])
    elif glob.has_magic(source):
        top, found = Path(), _expand(path.as_posix())
    else:
        raise UserError(f"{source}: no such file or folder; check the path")
    everything = sorted(found)
    images = [name.removesuffix("/") for name in everything if _is_image(name)]
    skipped = Counter(_suffix(name) for name in everything if not _is_image(name))
    listing = Listing(top, images, archive, skipped)
    if not listing.names:
        others = f" ({listing.describe_skipped()})" if skipped else ""
        raise UserError(f"{source} contains no image files (.npy, {_KINDS}){others}; check the path")
    return listing


def _is_image(name: str) -> bool:
    return name.endswith("/") or name.lower().endswith(SUFFIXES)


def _suffix(name: str) -> str:
    return Path(name).suffix.lower() or "without suffix"


def _walk(top: Path) -> Iterator[str]:
    """Files below a folder; a name with a slash at its end is a folder that cannot be listed.

    Links to folders are followed, except those to a parent folder and, below a link, those to a folder that
    has already been listed; otherwise the number of paths could grow without limit.
    """
    listed: set[tuple[int, int]] = set()
    # Folders to list, in reverse order: path, name, folders above, is it below a link, is it a link.
    waiting: list[tuple[Path, str, frozenset[tuple[int, int]], bool, bool]] = []
    waiting.append((top, "", frozenset(), False, False))
    while waiting:
        folder, prefix, above, below_link, is_link = waiting.pop()
        try:
            file_id = _file_id(folder)
            if file_id in above or (below_link and is_link and file_id in listed):
                raise OSError
            with os.scandir(folder) as found:
                children = sorted((entry for entry in found if not is_hidden(entry.name)), key=_name)
        except OSError:
            yield prefix  # opening it reports the reason
            continue
        listed.add(file_id)
        for child in reversed(children):
            name = prefix + child.name
            if not _is_folder(child):
                yield name
                continue
            below = below_link or is_link
            waiting.append((folder / child.name, f"{name}/", above | {file_id}, below, child.is_symlink()))


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def _file_id(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _expand(pattern: str) -> Iterator[str]:
    """Files that match a glob pattern.

    For `**`, glob follows circular links endlessly, so `_walk` lists these folders instead.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        found = glob.iglob(pattern)  # noqa: PTH207 (Path.glob rejects absolute patterns)
        yield from (name for name in found if not Path(name).is_dir())
        return
    place = parts.index("**")
    start = "/".join(parts[:place]) or ("/" if place else "")
    rest = [*parts[place:], "*"] if parts[-1] == "**" else parts[place:]
    for folder in glob.glob(start) if start else [""]:  # noqa: PTH207
        for name in _walk(Path(folder)):
            if _matches(name.split("/"), rest):
                yield os.path.join(folder, name)  # noqa: PTH118 (keeps the form of the pattern)


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Returns whether the parts of a path match those of a pattern, of which `**` matches any number."""
    if not pattern or not names:
        return not pattern and not names
    if pattern[0] == "**":
        return _matches(names, pattern[1:]) or _matches(names[1:], pattern)
    return fnmatch.fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _archive_members(archive: ZipArchive) -> Iterator[str]:
    """Files in an archive, at any depth."""
    folders = [""]
    while folders:
        folder = folders.pop()
        contents = archive.contents(folder)
        prefix = f"{folder}/" if folder else ""
        folders += [prefix + name for name in contents.folders]
        yield from (prefix + name for name in contents.files)
