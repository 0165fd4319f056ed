"""The ledger: what was written into a store, by whom, and with which content."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from torchsystem.services.processes import ForkSafeLock
from torchsystem.storage.places import Place
from torchsystem.storage.segments import OURS

logger = logging.getLogger(__name__)

FOLDER = f"{OURS}/ledger"
LINES = 100  # of one file; where files cannot be added to, each line is a file written anew

Action = Literal["written", "reused", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the ledger.

    Attributes:
        action: What happened: `"written"`, `"reused"` or `"removed"`.
        key: To what: its path in the store.
        kind: Its kind.
        size: Its size in bytes.
        sha256: The digest of its content; None of what was removed.
        source: Of which path it is a copy, if it was reused.
        by: Who did it: the writer's name, if it has one.
        host: On which machine.
        process: In which process of that.
        at: When, in UTC.
    """

    action: Action
    key: str
    kind: str
    size: int
    sha256: str | None
    source: str | None
    by: str | None
    host: str
    process: int
    at: str


class Ledger:
    """What was written, in lines of JSON that are only ever added to.

    Each process writes files of its own, so that no two get between one another, wherever the store is. A line that
    was cut off when a process was killed is said, and skipped.

    Args:
        place: The place whose ledger it is.
        by: The name of the writer.
        clock: What tells the time, in seconds since 1970.
    """

    def __init__(self, place: Place, *, by: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self._place, self._by, self._clock = place, by, clock
        self._guard = ForkSafeLock()
        self._own: _Own | None = None
        self._read: dict[str, tuple[int, list[Entry]]] = {}

    def add(  # noqa: PLR0913 - the columns of a line
        self, action: Action, key: str, kind: str, *, size: int, sha256: str | None, source: str | None = None
    ) -> Entry:
        """Add a line. When this returns, it survives."""
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat()
        host, process = platform.node(), os.getpid()
        entry = Entry(
            action=action, key=key, kind=kind, size=size, sha256=sha256, source=source,
            by=self._by, host=host, process=process, at=at,
        )  # fmt: skip
        with self._guard.lock:
            own = self._own
            if own is None or own.process != process or own.lines >= LINES:
                own = _Own(f"{FOLDER}/{at[:19].replace(':', '')}-{uuid4().hex}.jsonl", process)
            self._own = None  # a line that fails may be half written: the next one goes elsewhere
            line = json.dumps({name: value for name, value in asdict(entry).items() if value is not None}).encode()
            self._place.append(own.key, line + b"\n", own.text)
            own.text += line + b"\n"
            own.lines += 1
            self._own = own
        return entry

    def entries(self) -> list[Entry]:
        """Return all lines of all processes, in the order of time."""
        with self._guard.lock:
            for key, size in self._place.keys(FOLDER):
                if self._read.get(key, (None,))[0] != size:
                    data = self._place.read(key)
                    self._read[key] = len(data), list(_entries(key, data))
            found = [entry for _, entries in self._read.values() for entry in entries]
        return sorted(found, key=lambda entry: entry.at)


@dataclass(slots=True)
class _Own:
    """The file that this process adds to."""

    key: str
    process: int
    text: bytes = b""
    lines: int = 0


def _entries(key: str, data: bytes) -> Iterator[Entry]:
    *lines, torn = data.split(b"\n")
    if torn:
        logger.warning("The last line of %s is cut off, and skipped: %r", key, torn[:80])
    optional: dict[str, Any] = {"sha256": None, "source": None, "by": None}
    for number, line in enumerate(lines, start=1):
        try:
            entry = Entry(**{**optional, **json.loads(line)})
            _check(entry)
            yield entry
        except (TypeError, ValueError):
            logger.warning("Line %d of %s cannot be read, and is skipped: %r", number, key, line[:80])


def _check(entry: Entry) -> None:
    """Refuse a line that could not be sorted, or looked up, among the others.

    Raises:
        TypeError: A column is not of its type.
    """
    texts = [entry.action, entry.key, entry.kind, entry.host, entry.at]
    may_be_missing = [text for text in (entry.sha256, entry.source, entry.by) if text is not None]
    if not all(isinstance(text, str) for text in [*texts, *may_be_missing]) or not isinstance(entry.size, int):
        raise TypeError
