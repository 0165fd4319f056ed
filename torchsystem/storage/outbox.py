"""The outbox of a mirror: which files are still to be sent, told by what has changed since they were sent."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

logger = logging.getLogger(__name__)

RECORD = ".mirror.json"


class Signature(NamedTuple):
    """By what a file that has changed is told: none that is written again keeps all of it."""

    size: int
    changed: int
    inode: int


def signature(path: Path) -> Signature | None:
    """Return the signature of a file; None if there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Signature(status.st_size, status.st_mtime_ns, status.st_ino)


class Outbox:
    """Which files of a folder are still to be sent.

    What waits is bounded by number. Nothing is lost when there is more: the folder itself knows what is in it, and is
    looked through again when the outbox is empty.

    Args:
        folder: The folder.
        ignored: Tells which names, of files and of folders, are never sent.
        capacity: How many names may wait.
    """

    def __init__(self, folder: Path, ignored: Callable[[str], bool], capacity: int) -> None:
        self.folder, self._ignored, self._capacity = folder, ignored, capacity
        self._lock = Lock()
        self._waiting: deque[str] = deque()
        self._names: set[str] = set()
        self._sent: dict[str, Signature] = {}
        self._is_saved = True
        self.overflown = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, key: str) -> bool:
        """Let a file wait, if it does not yet, and tell whether there was room for it."""
        with self._lock:
            if key in self._names:
                return True
            if len(self._names) >= self._capacity:
                self.overflown = True
                return False
            self._waiting.append(key)
            self._names.add(key)
            return True

    def take(self) -> str | None:
        """Return what has waited longest, which waits no more; None if nothing does."""
        with self._lock:
            if not self._waiting:
                return None
            key = self._waiting.popleft()
            self._names.discard(key)
            return key

    def is_sent(self, key: str) -> bool:
        """Tell whether a file was sent as it is now."""
        now = signature(self.folder / key)
        return now is not None and self._sent.get(key) == now

    def mark(self, key: str, sent: Signature) -> None:
        """Remember as what a file was sent."""
        self._sent[key] = sent
        self._is_saved = False

    def files(self, below: str = "") -> Iterator[str]:
        """Yield the files of the folder, or below one in it."""
        for where, folders, names in os.walk(self.folder / below):
            folders[:] = sorted(name for name in folders if not self._ignored(name))
            for name in sorted(names):
                path = Path(where, name)
                if not self._ignored(name) and not path.is_symlink():
                    yield path.relative_to(self.folder).as_posix()

    def unsent(self, below: str = "") -> list[str]:
        """Return the files that were not sent as they are now."""
        return [key for key in self.files(below) if not self.is_sent(key)]

    def scan(self) -> None:
        """Let all files wait that were not sent as they are now."""
        self.overflown = False
        for key in self.unsent():
            if not self.put(key):
                break
        for key in [key for key in self._sent if signature(self.folder / key) is None]:
            del self._sent[key]  # it is gone here; what was sent of it stays

    def load(self, target: str, there: dict[str, int]) -> None:
        """Remember what an earlier process has sent, as far as it is still there, with its size.

        Args:
            target: Where the files are sent to.
            there: The sizes of those that are there.
        """
        with suppress(FileNotFoundError):
            try:
                record = json.loads((self.folder / RECORD).read_bytes())
                known = {key: Signature(*map(int, entry)) for key, entry in record["sent"].items()}
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                logger.warning("%s cannot be read (%s), so everything is sent again.", self.folder / RECORD, error)
                return
            if record.get("target") == target:
                own = {key: sent for key, sent in known.items() if there.get(key) == sent.size}
                self._sent = {**own, **self._sent}

    def save(self, target: str) -> None:
        """Leave a record of what was sent for the process that goes on here."""
        if self._is_saved:
            return
        draft = self.folder / f"{RECORD}.draft"
        try:
            draft.write_text(json.dumps({"target": target, "sent": self._sent}))
            draft.replace(self.folder / RECORD)
        except OSError as error:
            logger.warning("%s cannot be written (%s): the next process will send everything again.", draft, error)
        self._is_saved = True
