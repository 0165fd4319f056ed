"""The few operations on files that durability rests on, so that a test can stand in for the disk, and fail."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeAlias

Chunk: TypeAlias = bytes | bytearray | memoryview

UNKNOWN = {errno.EINVAL, errno.ENOTSUP}  # what file systems say to an operation that they do not have


class Files(Protocol):
    """What a disk does. What is written is sure to survive only when the file and its folder are synced."""

    def make_folder(self, folder: Path) -> None:
        """Make a folder, and those it lies in, if they are not there; they survive."""

    def list(self, folder: Path) -> list[str]:
        """Name what is in a folder, sorted; nothing if there is no such folder."""
        ...

    def read(self, path: Path) -> bytes:
        """Return what is in a file."""
        ...

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        """Write a file that is not there yet, chunk by chunk."""

    def sync(self, path: Path) -> None:
        """Return when what is in a file is on the disk."""

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in a folder are on the disk."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or a folder another name, which nothing has yet."""

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder that is empty."""


class LocalFiles:
    """The files of this machine, or of what is mounted there.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem.storage.ports import LocalFiles
        >>> files = LocalFiles()
        >>> with TemporaryDirectory() as folder:
        ...     files.write(Path(folder, "draft"), [b"one, ", b"two"])
        ...     files.sync(Path(folder, "draft"))
        ...     files.rename(Path(folder, "draft"), Path(folder, "letter"))
        ...     files.sync_folder(Path(folder))
        ...     print(files.list(Path(folder)), files.read(Path(folder, "letter")))
        ['letter'] b'one, two'
    """

    def make_folder(self, folder: Path) -> None:
        """Make a folder, and those it lies in, if they are not there; they survive."""
        if folder.is_dir():
            return
        self.make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        self.sync_folder(folder.parent)

    def list(self, folder: Path) -> list[str]:
        """Name what is in a folder, sorted; nothing if there is no such folder."""
        try:
            return sorted(path.name for path in folder.iterdir())
        except FileNotFoundError:
            return []

    def read(self, path: Path) -> bytes:
        """Return what is in a file."""
        return path.read_bytes()

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        """Write a file that is not there yet, chunk by chunk."""
        with path.open("xb", buffering=0) as file:
            try:
                for chunk in chunks:
                    rest = memoryview(chunk)
                    while rest:
                        rest = rest[file.write(rest) :]
            except OSError as error:
                error.filename = error.filename or str(path)  # Python names no file that is open already
                raise

    def sync(self, path: Path) -> None:
        """Return when what is in a file is on the disk."""
        _sync(path, os.O_RDWR)

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in a folder are on the disk; Windows, and shares without such a sync, see to it."""
        if os.name == "nt":
            return
        try:
            _sync(folder, os.O_RDONLY)
        except OSError as error:
            if error.errno not in UNKNOWN:
                raise

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or a folder another name, which nothing has yet."""
        old.rename(new)

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder that is empty."""
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def _sync(path: Path, how: int) -> None:
    number = os.open(path, how)
    try:
        os.fsync(number)
    finally:
        os.close(number)
