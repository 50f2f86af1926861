"""Finds image files at any depth of a folder or zip archive, from a glob pattern, or a single file."""

import dataclasses
import glob
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

from lensjax.data.file_tree import FileTree, is_hidden, open_tree
from lensjax.errors import UserError
from lensjax.prediction.readers import SUFFIXES

_MAX_MEMBER_SIZE = 2**30  # bytes; a file inside a zip archive is read into memory
_KINDS = ".npz, .fits, .png, .tif or .h5"


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files to read, in sorted order.

    Attributes:
      top: the folder that the names are relative to, or the zip archive.
      names: names of the files, with forward slashes.
      archive: the zip archive with the files; None for files on disk.
    """

    top: Path
    names: list[str]
    archive: FileTree | None = None

    def open(self, name: str) -> BufferedIOBase:
        """Opens a file as a seekable stream.

        Raises:
          UserError: if it cannot be read.
        """
        if self.archive is not None:
            content = self.archive.read(name, _MAX_MEMBER_SIZE + 1)
            if len(content) > _MAX_MEMBER_SIZE:
                raise UserError("is larger than 1 GiB inside an archive; unpack the archive first")
            return io.BytesIO(content)
        path = self.top / name
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                link = "is a link to a parent folder, which is not followed"
                raise UserError(link if path.is_symlink() else "is a folder that cannot be read")
            if not stat.S_ISREG(mode):  # opening a pipe would block
                raise UserError("is not a regular file")
            return path.open("rb")
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"cannot be read: {reason}") from error

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
    path = Path(source).expanduser()
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise UserError(f"{source}: cannot be read: permission denied")
        listing = Listing(path, sorted(_walk(path, "", ())))
    elif path.suffix.lower() == ".zip" and path.is_file():
        archive = open_tree(path)
        listing = Listing(path, sorted(_archive_members(archive)), archive)
    elif os.path.lexists(path):
        if not _is_image(path.name):
            known = ", ".join(SUFFIXES)
            raise UserError(f"{source}: the suffix must be one of {known}, .zip; convert the file")
        return Listing(path.parent, [path.name])
    elif glob.has_magic(source):
        found = glob.iglob(str(path), recursive=True)  # noqa: PTH207 (Path.glob rejects absolute patterns)
        listing = Listing(Path(), sorted(name for name in found if _is_file(name)))
    else:
        raise UserError(f"{source}: no such file or folder; check the path")
    if not listing.names:
        raise UserError(f"{source} contains no image files (.npy, {_KINDS}); check the path")
    return listing


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_file(name: str) -> bool:
    return _is_image(name) and not Path(name).is_dir()


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Image files below a folder. Links to folders are followed, except those to a parent folder."""
    try:
        status = folder.stat()
        file_id = (status.st_dev, status.st_ino)
        with os.scandir(folder) as found:
            children = [entry for entry in found if not is_hidden(entry.name)]
    except OSError:
        yield prefix.rstrip("/")  # opening it reports the reason
        return
    for child in children:
        name = prefix + child.name
        if not _is_folder(child):
            if _is_image(child.name):
                yield name
        elif child.is_symlink() and _file_id(child) in (*above, file_id):
            yield name
        else:
            yield from _walk(folder / child.name, f"{name}/", (*above, file_id))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def _file_id(entry: os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino


def _archive_members(archive: FileTree) -> Iterator[str]:
    """Image files in an archive, at any depth."""
    folders = [""]
    while folders:
        folder = folders.pop()
        contents = archive.contents(folder)
        prefix = f"{folder}/" if folder else ""
        folders += [prefix + name for name in contents.folders]
        yield from (prefix + name for name in contents.files if _is_image(name))
