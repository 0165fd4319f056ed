"""Places: what a store can do with files, wherever they are; and the folders of this machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias

from torchsystem.errors import OutsideRoot
from torchsystem.services.owners import Owner, is_running, this_process
from torchsystem.storage.ports import LocalFiles
from torchsystem.storage.segments import OURS

Source: TypeAlias = bytes | Path  # what is to be written: data, or a local file


class Place(Protocol):
    """What a store needs of the place where its files are. A key is the path below the root, divided by `/`."""

    name: str

    def create(self, key: str, source: Source) -> bool:
        """Write a file that is not there yet, whole, and tell whether it was not: of several who try, one does."""
        ...

    def write(self, key: str, source: Source) -> None:
        """Write a file, or replace it; whoever reads sees all of the one or of the other."""
        ...

    def append(self, key: str, data: bytes, before: bytes) -> None:
        """Add to a file that nobody else writes, and that holds `before`; it survives when this returns."""
        ...

    def read(self, key: str) -> bytes:
        """Return what is in a file; a `FileNotFoundError` if there is none."""
        ...

    def fetch(self, key: str, path: Path) -> None:
        """Copy a file to a local path."""
        ...

    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the keys below a folder, with the size of each file; nothing if there is no such folder."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        ...

    def temporary(self) -> Path:
        """Make a local folder for files that are to be moved into the place."""
        ...


class Folder:
    """A folder of this machine, or of what is mounted there.

    Args:
        root: The folder. It is made when something is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self.name = str(root)
        self._files = LocalFiles()
        self._process: int | None = None  # the one that has cleaned up after others

    def path(self, key: str) -> Path:
        """Return where a file is, in a folder that is made.

        Raises:
            OutsideRoot: A symbolic link leads out of the root.
        """
        path = self._inside(key)
        self._files.make_folder(path.parent)
        return path

    def create(self, key: str, source: Source) -> bool:
        """Write a file that is not there yet, whole, and tell whether it was not."""
        path = self.path(key)
        if path.is_symlink() or path.exists():
            return False
        try:
            if source == b"":  # whole at once; and an empty file that is lost in a crash was not yet written to
                path.touch(exist_ok=False)
                return True
            with self._whole(source) as draft:
                _link(draft, path)
        except FileExistsError:
            return False
        self._files.sync_folder(path.parent)
        return True

    def write(self, key: str, source: Source) -> None:
        """Write a file, or replace it, at one moment."""
        path = self.path(key)
        with self._whole(source) as draft:
            draft.replace(path)
        self._files.sync_folder(path.parent)

    def append(self, key: str, data: bytes, before: bytes) -> None:  # noqa: ARG002 - folders know what they hold
        """Add to a file that nobody else writes."""
        path = self.path(key)
        is_new = not path.exists()
        with path.open("ab", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        if is_new:
            self._files.sync_folder(path.parent)

    def read(self, key: str) -> bytes:
        """Return what is in a file."""
        return self._inside(key).read_bytes()

    def fetch(self, key: str, path: Path) -> None:
        """Copy a file."""
        shutil.copyfile(self._inside(key), path)

    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the files below a folder; no links are followed, and none are listed."""
        for where, folders, names in os.walk(self._inside(folder) if folder else self.root):
            folders.sort()
            for name in sorted(names):
                path = Path(where, name)
                with suppress(FileNotFoundError):  # removed meanwhile
                    if not path.is_symlink():
                        yield path.relative_to(self.root).as_posix(), path.stat().st_size

    def remove(self, key: str) -> None:
        """Remove a file, if it is there. Its folder stays: another may be about to write there."""
        self._inside(key).unlink(missing_ok=True)

    def temporary(self) -> Path:
        """Make a folder on the same file system, from where a file can be moved to its place at one moment."""
        shared = self.root / OURS / "temporary"
        shared.mkdir(parents=True, exist_ok=True)
        me = this_process()
        if self._process != me.pid:
            self._process = me.pid
            _clean(shared, me)
        return Path(tempfile.mkdtemp(dir=shared, prefix=_mark(me)))

    def _inside(self, key: str) -> Path:
        """Return where a file is, with all links followed but its own."""
        path = self.root / key
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self.root):
            message = f"{key!r} leads out of {self.root}, to {real}. Remove the symbolic link, or open a store there."
            raise OutsideRoot(message)
        return path

    @contextmanager
    def _whole(self, source: Source) -> Generator[Path]:
        """Write a file of its own that is sure to be on the disk, to be given its name at one moment."""
        folder = self.temporary()
        try:
            draft = folder / "draft"
            if isinstance(source, Path):
                shutil.copyfile(source, draft)
            else:
                draft.write_bytes(source)
            self._files.sync(draft)
            yield draft
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def is_address(path: Path) -> bool:
    """Tell whether a path was made of an address of elsewhere, and is now that of an oddly named folder here.

    Examples:
        >>> is_address(Path("s3://bucket/folder")), is_address(Path("file:/tmp")), is_address(Path("C:/runs"))
        (True, True, False)
    """
    return bool(path.parts) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+:", path.parts[0]) is not None


def _link(draft: Path, path: Path) -> None:
    """Give a file a name that nothing has yet, also where a file can have only one."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        with path.open("xb") as file, draft.open("rb") as whole:
            shutil.copyfileobj(whole, file)
            file.flush()
            os.fsync(file.fileno())


def _mark(owner: Owner) -> str:
    """Say in a name of which process something temporary is."""
    machine = hashlib.sha256(f"{owner.host} {owner.machine}".encode()).hexdigest()[:16]
    return f"{owner.pid}-{owner.started}-{machine}-"


def _clean(shared: Path, me: Owner) -> None:
    """Remove what processes of this machine have left that are gone."""
    for path in shared.iterdir():
        found = re.fullmatch(r"([0-9]+)-([0-9]*)-[0-9a-f]{16}-[^-]*", path.name)
        owner = None if found is None else replace(me, pid=int(found[1]), started=found[2])
        if owner is not None and path.name.startswith(_mark(owner)) and is_running(owner) is False:
            shutil.rmtree(path, ignore_errors=True)
