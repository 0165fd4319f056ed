"""Disks that lose power, are full, or are slow: real files, and what would be left of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event
from typing import NamedTuple

from torchsystem.storage.ports import Chunk, LocalFiles


class PowerLoss(BaseException):
    """The machine went off: no code of this process runs any more."""


class Change(NamedTuple):
    """A change of a folder that is not on the disk until the folder is synced.

    Attributes:
        folder: The number of the folder.
        kind: `"make"`, `"rename"` or `"remove"`.
        name: What was made, renamed or removed.
        new: What it was renamed to.
        data: What was in it, if it was a file that was removed.
    """

    folder: int
    kind: str
    name: str
    new: str = ""
    data: bytes | None = None


class Disk(LocalFiles):
    """Real files, with a note of what is not on the disk yet.

    Args:
        fails_at: Which of the operations that change something fails; it is half done, if it can be.
        failure: What makes the error.
        for_good: Whether all operations fail from there on.
    """

    def __init__(
        self,
        fails_at: int | None = None,
        failure: Callable[[], BaseException] = PowerLoss,
        *,
        for_good: bool = True,
    ) -> None:
        self.done: list[str] = []
        self._fails_at = fails_at
        self._failure = failure
        self._for_good = for_good
        self._is_off = False
        self._changes: list[Change] = []
        self._wet: dict[int, Path] = {}

    def make_folder(self, folder: Path) -> None:
        self._step(f"make {folder.name}")
        super().make_folder(folder)

    def list(self, folder: Path) -> list[str]:
        self._read()
        return super().list(folder)

    def read(self, path: Path) -> bytes:
        self._read()
        return super().read(path)

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        data = b"".join(bytes(chunk) for chunk in chunks)
        try:
            self._step(f"write {path.name}")
        except BaseException:
            super().write(path, [data[: len(data) // 2]])
            self._wrote(path)
            raise
        super().write(path, [data])
        self._wrote(path)

    def sync(self, path: Path) -> None:
        self._step(f"sync {path.name}")
        self._wet.pop(path.stat().st_ino, None)

    def sync_folder(self, folder: Path) -> None:
        self._step(f"sync folder {folder.name}")
        number = folder.stat().st_ino
        self._changes = [change for change in self._changes if change.folder != number]

    def rename(self, old: Path, new: Path) -> None:
        self._step(f"rename {old.name}")
        assert old.parent == new.parent
        assert not new.exists(), "rename to a fresh name"
        super().rename(old, new)
        self._changes.append(Change(old.parent.stat().st_ino, "rename", old.name, new.name))

    def remove(self, path: Path) -> None:
        self._step(f"remove {path.name}")
        data = None if path.is_dir() else path.read_bytes()
        number = path.stat().st_ino  # of which there will be another file or folder, as soon as the system likes
        super().remove(path)
        self._wet.pop(number, None)
        self._changes = [change for change in self._changes if change.folder != number]
        self._changes.append(Change(path.parent.stat().st_ino, "remove", path.name, data=data))

    def lose(self, root: Path, *, survives: Callable[[], bool]) -> None:
        """Leave of what was not synced only what happens to survive."""
        folders = {folder.stat().st_ino: folder for folder in [root, *root.rglob("*")] if folder.is_dir()}
        for file in [file for file in root.rglob("*") if file.is_file()]:
            if file.stat().st_ino in self._wet and not survives():
                os.truncate(file, file.stat().st_size // 2)
        for change in reversed(self._changes):
            folder = folders.get(change.folder)
            if folder is None or not folder.exists() or survives():
                continue
            self._undo(folder, change)
            folders = {folder.stat().st_ino: folder for folder in [root, *root.rglob("*")] if folder.is_dir()}

    def _undo(self, folder: Path, change: Change) -> None:
        path = folder / change.name
        if change.kind == "rename" and (folder / change.new).exists():
            (folder / change.new).rename(path)
        elif change.kind == "make" and path.exists():
            path.unlink()
        elif change.kind == "remove" and not path.exists():
            path.mkdir() if change.data is None else path.write_bytes(change.data)

    def _wrote(self, path: Path) -> None:
        self._wet[path.stat().st_ino] = path
        self._changes.append(Change(path.parent.stat().st_ino, "make", path.name))

    def _step(self, what: str) -> None:
        self._read()
        self.done.append(what)
        if self._fails_at == len(self.done) - 1:
            self._is_off = self._for_good
            raise self._failure()

    def _read(self) -> None:
        if self._is_off:
            raise self._failure()


class Slow(LocalFiles):
    """A disk that writes when it is told to."""

    def __init__(self) -> None:
        self.begun = Event()
        self.go = Event()

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        """Say that it has begun, and wait."""
        self.begun.set()
        assert self.go.wait(200)
        super().write(path, chunks)


def full() -> OSError:
    """Make the error of a disk without room."""
    return OSError(errno.ENOSPC, "No space left on device", "somewhere")
