"""A common read-only interface to folders and zip archives."""

import dataclasses
import os
import re
import zipfile
from pathlib import Path
from typing import Protocol, runtime_checkable

from lensjax.errors import UserError

MAX_DEPTH = 100  # folders in the path of a zip entry
ENCRYPTED = 0x1  # flag bit of a zip entry


@dataclasses.dataclass
class Contents:
    """Contents of one folder, without hidden files.

    Attributes:
      folders, files: names, in natural order.
      others: names of entries that are neither, such as pipes, sockets and broken links.
    """

    folders: list[str] = dataclasses.field(default_factory=list)
    files: list[str] = dataclasses.field(default_factory=list)
    others: list[str] = dataclasses.field(default_factory=list)

    def sort(self) -> None:
        """Sorts the names in natural order."""
        for names in (self.folders, self.files, self.others):
            names.sort(key=natural_key)


@runtime_checkable
class FileTree(Protocol):
    """A read-only tree of files. Paths are relative to its root, with forward slashes."""

    path: Path

    def contents(self, folder: str) -> Contents:
        """Contents of `folder`; the root is the empty string.

        Raises:
          UserError: if the folder cannot be read.
        """

    def read(self, file: str, limit: int) -> bytes:
        """First `limit` bytes of `file`. Safe to call from several threads.

        Raises:
          UserError: if the file cannot be read. The message does not contain the file's name.
        """


def open_tree(path: Path) -> FileTree:
    """Opens the folder or zip archive at `path`.

    Raises:
      UserError: if the path does not exist, cannot be read, or is neither a folder nor a zip archive.
    """
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path")
    if not path.is_file():  # opening a pipe would block
        raise UserError(f"{path}: not a regular file; specify a folder or a zip archive")
    if re.search(r"\.(tar(\.\w+)?|t[bgx]z2?)$", path.name.lower()):
        raise UserError(
            f"{path}: tar archives are not supported; unpack it with tar -xf and specify the folder"
        )
    return ZipArchive(path)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 2.npy before 10.npy; the order of different names is always defined."""
    key = []
    for text, digits in re.findall(r"([^0-9]+)|([0-9]+)", name):
        number = digits.lstrip("0")  # numbers sort by their length, then by their digits
        key.append((len(number), number) if digits else (-1, text))
    return [*key, (-2, name)]


def is_hidden(name: str) -> bool:
    """Returns whether a name belongs to a hidden file, such as those that operating systems create."""
    return name.startswith((".", "__MACOSX")) or name in ("Thumbs.db", "desktop.ini")


class Subtree:
    """Part of a tree below one of its folders."""

    def __init__(self, tree: FileTree, root: str) -> None:
        self.path = tree.path / root
        self._tree = tree
        self._prefix = f"{root}/"

    def contents(self, folder: str) -> Contents:
        """Contents of `folder`; the root is the empty string."""
        return self._tree.contents((self._prefix + folder).rstrip("/"))

    def read(self, file: str, limit: int) -> bytes:
        """First `limit` bytes of `file`. Safe to call from several threads."""
        return self._tree.read(self._prefix + file, limit)


class Folder:
    """A folder on disk. Links are followed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def contents(self, folder: str) -> Contents:
        """Contents of `folder`; the root is the empty string."""
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
            raise UserError(f"{self.path / folder}: cannot read: {error.strerror}") from error
        contents.sort()
        return contents

    def read(self, file: str, limit: int) -> bytes:
        """First `limit` bytes of `file`. Safe to call from several threads."""
        try:
            with (self.path / file).open("rb") as stream:
                return stream.read(limit)
        except OSError as error:
            raise UserError(f"cannot read: {error.strerror}") from error


class ZipArchive:
    """A zip archive, read in place without unpacking it to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except OSError as error:
            raise UserError(f"{path}: cannot read: {error.strerror}") from error
        except Exception as error:  # zipfile raises many kinds of errors for a damaged archive
            raise UserError(
                f"{path}: not a zip archive, or truncated ({error}); copy or download it again, or specify a "
                "folder"
            ) from error
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self._contents: dict[str, Contents] = {"": Contents()}
        for entry in self._archive.infolist():
            self._add(entry)
        for contents in self._contents.values():
            contents.sort()

    def contents(self, folder: str) -> Contents:
        """Contents of `folder`; the root is the empty string."""
        return self._contents[folder]

    def read(self, file: str, limit: int) -> bytes:
        """First `limit` bytes of `file`. Safe to call from several threads."""
        entry = self._entries[file]
        if entry.flag_bits & ENCRYPTED:
            raise UserError("encrypted; create the archive again without a password")
        try:
            with self._archive.open(entry) as stream:
                return stream.read(limit)
        except NotImplementedError as error:  # raised by zipfile for unknown compression methods
            raise UserError(
                f"cannot decompress ({error}); create the archive again with deflate compression"
            ) from error
        except Exception as error:  # zipfile and its decompressors raise many kinds of errors
            raise UserError(
                f"damaged in the archive ({error}); copy or download the archive again"
            ) from error

    def sizes(self, file: str) -> tuple[int, int]:
        """Length of `file` and of its compressed form, bytes, according to the archive."""
        entry = self._entries[file]
        return entry.file_size, entry.compress_size

    def _add(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename.replace("\\", "/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
            raise UserError(
                f"{self.path}: the entry {entry.filename!r} points outside the archive; "
                "create the archive again from a folder that you trust"
            )
        if not parts or any(is_hidden(part) for part in parts):
            return
        folders = parts if name.endswith("/") else parts[:-1]
        if len(folders) > MAX_DEPTH:
            raise UserError(
                f"{self.path}: the path of the entry {entry.filename[:40]!r}... has more than {MAX_DEPTH} "
                "folders; create the archive again"
            )
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
                f"{self.path}: two entries are named {file}; create the archive again with only one"
            )
        self._entries[file] = entry
        self._contents["/".join(folders)].files.append(parts[-1])
