"""Folders and zip archives looked at in the same way: what lies where, and its first bytes."""

import dataclasses
import lzma
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import Protocol, runtime_checkable

from lensjax.errors import UserError

ENCRYPTED = 0x1  # flag bit of a zip entry


@dataclasses.dataclass
class Contents:
    """What one folder holds, hidden files left out.

    Attributes:
      folders, files: names, in natural order.
      others: names of what is neither: pipes, sockets, broken links.
    """

    folders: list[str] = dataclasses.field(default_factory=list)
    files: list[str] = dataclasses.field(default_factory=list)
    others: list[str] = dataclasses.field(default_factory=list)

    def sort(self) -> None:
        """Puts the names in natural order."""
        for names in (self.folders, self.files, self.others):
            names.sort(key=natural_key)


@runtime_checkable
class FileTree(Protocol):
    """A read-only tree of files. Paths are relative to its top, with forward slashes."""

    path: Path

    def contents(self, folder: str) -> Contents:
        """What lies in `folder`; the top is the empty string."""

    def read(self, file: str, limit: int) -> bytes:
        """The first `limit` bytes of `file`; may be called from several threads."""


def open_tree(path: Path) -> FileTree:
    """The folder or zip archive at `path`.

    Raises:
      UserError: nothing is there, it cannot be read, or it is neither.
    """
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check config.data.source")
    return ZipArchive(path)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorting by it puts 2.npy before 10.npy."""
    return [
        (int(digits) if digits else -1, text)
        for text, digits in re.findall(r"([^0-9]+)|([0-9]+)", name)
    ]


def is_hidden(name: str) -> bool:
    """Files of the operating system, which are no part of a data set."""
    return name.startswith((".", "__MACOSX")) or name in ("Thumbs.db", "desktop.ini")


class Subtree:
    """The part of a tree below one of its folders."""

    def __init__(self, tree: FileTree, top: str) -> None:
        self.path = tree.path / top
        self._tree = tree
        self._prefix = f"{top}/"

    def contents(self, folder: str) -> Contents:
        """What lies in `folder`; the top is the empty string."""
        return self._tree.contents((self._prefix + folder).rstrip("/"))

    def read(self, file: str, limit: int) -> bytes:
        """The first `limit` bytes of `file`; may be called from several threads."""
        return self._tree.read(self._prefix + file, limit)


class Folder:
    """A folder on disk. Links are followed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def contents(self, folder: str) -> Contents:
        """What lies in `folder`; the top is the empty string."""
        contents = Contents()
        try:
            with os.scandir(self.path / folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_file():
                        contents.files.append(entry.name)
                    elif entry.is_dir():
                        contents.folders.append(entry.name)
                    else:
                        contents.others.append(entry.name)
        except OSError as error:
            raise UserError(f"{self.path / folder}: cannot be read: {error.strerror}") from error
        contents.sort()
        return contents

    def read(self, file: str, limit: int) -> bytes:
        """The first `limit` bytes of `file`; may be called from several threads."""
        try:
            with (self.path / file).open("rb") as stream:
                return stream.read(limit)
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}") from error


class ZipArchive:
    """A zip archive, read in place: nothing is unpacked to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{path}: not a zip archive, or one cut short ({error}); give a dataset.zip or a folder "
                "with train/ and val/"
            ) from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self._contents: dict[str, Contents] = {"": Contents()}
        for entry in self._archive.infolist():
            self._add(entry)
        for contents in self._contents.values():
            contents.sort()

    def contents(self, folder: str) -> Contents:
        """What lies in `folder`; the top is the empty string."""
        return self._contents[folder]

    def read(self, file: str, limit: int) -> bytes:
        """The first `limit` bytes of `file`; may be called from several threads."""
        entry = self._entries[file]
        if entry.flag_bits & ENCRYPTED:
            raise UserError("is encrypted; make the archive again without a password")
        try:
            with self._archive.open(entry) as stream:
                return stream.read(limit)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise UserError(
                f"is damaged inside the archive ({error}); copy or download the archive again"
            ) from error
        except NotImplementedError as error:  # what zipfile says of methods it does not know
            raise UserError(
                f"cannot be unpacked ({error}); make the archive with deflate"
            ) from error

    def _add(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename.replace("\\", "/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
            raise UserError(
                f"{self.path}: refused, because its entry {entry.filename!r} points outside the archive; "
                "make the archive again from a folder you trust"
            )
        if not parts or any(is_hidden(part) for part in parts):
            return
        folders = parts if name.endswith("/") else parts[:-1]
        for depth, folder in enumerate(folders):
            path = "/".join(folders[: depth + 1])
            if path not in self._contents:
                self._contents[path] = Contents()
                self._contents["/".join(folders[:depth])].folders.append(folder)
        if name.endswith("/"):
            return
        file = "/".join(parts)
        if file in self._entries:
            raise UserError(
                f"{self.path}: has two entries named {file}; make the archive again with one of them"
            )
        self._entries[file] = entry
        self._contents["/".join(folders)].files.append(parts[-1])
