"""Elsewhere: places that fsspec can reach, as a bucket of S3, behind what a store needs of a place."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from torchsystem.errors import InvalidStore, MissingExtra, NotExclusive
from torchsystem.services.processes import ForkSafeLock
from torchsystem.storage.places import Folder, Place, Source, is_address
from torchsystem.storage.segments import OURS

# Where `pipe_file(mode="create")` was measured to let one of several through. Elsewhere, fsspec may look first and
# then write all the same, and two may look before either writes.
EXCLUSIVE = {"memory", "s3", "s3a"}
ATTEMPTS = 10  # to create a file while others do, before what the server says is raised
IN_THIS_PROCESS = ForkSafeLock()  # the memory of this process looks first and then writes, so one after the other


class Elsewhere:
    """A place behind an address that fsspec understands.

    Args:
        url: The address: `"s3://bucket/folder"`.
        options: What the file system of fsspec takes, such as credentials. They are never shown.
        exclusive: Whether to trust that it can create a file so that of several who try, one does. It is tried once.

    Raises:
        InvalidStore: fsspec knows no such address.
        MissingExtra: The package that reaches such an address is not installed.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, exclusive: bool = False) -> None:
        self._url, self._options, self._vouched = url, dict(options), exclusive
        self.name = re.sub(r"//[^/@]*@", "//", url).partition("?")[0].rstrip("/")
        self._opened: tuple[int, Any, str] | None = None
        self._tried = False
        self._open()

    def create(self, key: str, source: Source) -> bool:
        """Write a file that is not there yet, whole, and tell whether it was not.

        When the answer of the other side was lost and the file was sent again, it may find itself, and tell that it
        was there: nobody has created it then, and never two.

        Raises:
            NotExclusive: The file system cannot do that.
        """
        self._try()
        return self._create(key, source)

    def write(self, key: str, source: Source) -> None:
        """Write a file, or replace it."""
        fs, path = self._to(key)
        if isinstance(source, Path):
            fs.put_file(str(source), path)
        else:
            fs.pipe_file(path, source)

    def append(self, key: str, data: bytes, before: bytes) -> None:
        """Write a file anew, with what it held; objects cannot be added to."""
        self.write(key, before + data)

    def read(self, key: str) -> bytes:
        """Return what is in a file."""
        fs, path = self._at(key)
        data: bytes = fs.cat_file(path)
        return data

    def fetch(self, key: str, path: Path) -> None:
        """Copy a file to a local path."""
        fs, there = self._at(key)
        fs.get_file(there, str(path))

    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the files below a folder, as they are now."""
        fs, root = self._open()
        path = f"{root}/{folder}".rstrip("/")
        fs.invalidate_cache()  # what others have written since is not in the listings that are kept
        with suppress(FileNotFoundError):
            for name, info in sorted(fs.find(path, detail=True).items()):
                key = name.removeprefix(root).lstrip("/")
                if key and not key.endswith("/"):
                    yield key, int(info["size"] or 0)

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        fs, path = self._at(key)
        with suppress(FileNotFoundError):
            fs.rm_file(path)

    def temporary(self) -> Path:
        """Make a folder on this machine."""
        return Path(tempfile.mkdtemp(prefix="torchsystem-"))

    def _at(self, key: str) -> tuple[Any, str]:
        fs, root = self._open()
        return fs, f"{root}/{key}"

    def _to(self, key: str) -> tuple[Any, str]:
        """Return the file system, and a path in it that can be written to."""
        fs, path = self._at(key)
        if not _is_exclusive(fs):  # those that are need no folders
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return fs, path

    def _open(self) -> tuple[Any, str]:
        """Return the file system, opened anew in a process that was forked off, and the path of the root in it."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                fsspec = import_module("fsspec")
                _check_protocol(fsspec, self._url)
                fs, root = fsspec.url_to_fs(self._url, **self._options)
            except ImportError as error:
                message = f"{self.name} cannot be reached: {error}. {_remedy(self._url)}"
                raise MissingExtra(message) from error
            self._opened = os.getpid(), fs, root.rstrip("/")
        return self._opened[1:]

    def _create(self, key: str, source: Source) -> bool:
        for attempt in range(ATTEMPTS):
            try:
                self._write_new(key, source)
            except FileExistsError:
                return False
            except OSError as error:
                if not _is_conflict(error) or attempt == ATTEMPTS - 1:
                    raise
            else:
                return True
        return False

    def _write_new(self, key: str, source: Source) -> None:
        fs, path = self._to(key)
        if fs.protocol == "memory":
            with IN_THIS_PROCESS.lock:
                fs.pipe_file(path, source.read_bytes() if isinstance(source, Path) else source, mode="create")
        elif isinstance(source, Path):
            fs.put_file(str(source), path, mode="create")
        else:
            fs.pipe_file(path, source, mode="create")

    def _try(self) -> None:
        """See once that a second file of one name is refused: some servers do not know the condition, and obey."""
        if self._tried:
            return
        if not self._vouched and not _is_exclusive(self._open()[0]):
            message = (
                f"Whether {self.name} lets one of several create a file is not known, and so nothing can be numbered "
                f"or locked there. If you know that it does, write Store(..., exclusive=True)."
            )
            raise NotExclusive(message)
        key = f"{OURS}/trial-{uuid4().hex}"
        try:
            if not self._create(key, b"1") or self._create(key, b"2"):
                message = (
                    f"{self.name} overwrites a file that is to be created only if it is not there (If-None-Match), so "
                    f"nothing can be numbered or locked there. Write to a store that can, and mirror it there."
                )
                raise NotExclusive(message)
        finally:
            self.remove(key)
        self._tried = True


def place_of(root: str | Path, options: Mapping[str, Any], *, exclusive: bool) -> Place:
    """Return the place that a root is: a folder, or one behind an address.

    Args:
        root: The folder, or the address.
        options: What the file system of an address takes.
        exclusive: As for `Elsewhere`.

    Raises:
        InvalidStore: It is neither, or a folder that takes no options.
        MissingExtra: The package that reaches such an address is not installed.
    """
    if isinstance(root, str) and "://" in root and not root.startswith(("file://", "local://")):
        return Elsewhere(root, options, exclusive=exclusive)
    path = Path(root.partition("://")[2]) if isinstance(root, str) and "://" in root else Path(root)
    if is_address(path):
        message = f"{root!r} is no folder. Write the address as a text, with two slashes: 's3://bucket/folder'."
        raise InvalidStore(message)
    if options:
        message = f"{root!r} is a folder, and takes no options. Leave out {', '.join(options)}."
        raise InvalidStore(message)
    return Folder(path)


def _check_protocol(fsspec: Any, url: str) -> None:
    """Refuse an address that nobody knows; one without a protocol would become an oddly named folder here.

    Raises:
        InvalidStore: fsspec does not know its protocol.
    """
    protocol = url.partition("://")[0].partition("::")[0]
    try:
        is_known = protocol != "" and fsspec.get_filesystem_class(protocol) is not None
    except ValueError:
        is_known = False
    if not is_known:
        message = f"fsspec knows no {protocol!r}. Write an address like 's3://bucket/folder', or the path of a folder."
        raise InvalidStore(message)


def _remedy(url: str) -> str:
    """Say what to install, where an extra brings it."""
    if find_spec("fsspec") is not None and not url.startswith("s3"):
        return "Install that package; torchsystem has no extra for it."
    return f"Write: pip install 'torchsystem[{'s3,storage' if url.startswith('s3') else 'storage'}]'"


def _is_exclusive(fs: Any) -> bool:
    """Tell whether a file system is known to create a file for one of several alone."""
    protocol: str | tuple[str, ...] = fs.protocol
    return not EXCLUSIVE.isdisjoint((protocol,) if isinstance(protocol, str) else protocol)


def _is_conflict(error: OSError) -> bool:
    """Tell whether a server had two conditional writes at once, and asks for this one to be sent again."""
    response: Mapping[str, Any] = getattr(error.__cause__, "response", {})
    return bool(response.get("Error", {}).get("Code") == "ConditionalRequestConflict")
