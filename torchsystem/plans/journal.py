"""The journal: a SQLite file in which plans are written down, durably, while they are worked on."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Self

from torchsystem.errors import InvalidPlan, UnreadableJournal
from torchsystem.plans.ports import JournalPort, Lease, Pages, Record
from torchsystem.services.processes import ForkSafeLock

APPLICATION = 0x74737031  # "tsp1", in the header of the file
VERSION = 1
LOG = 64  # pages of 4 KiB

_COLUMNS = ", ".join(Record._fields)
_PLACES = ", ".join("?" for _ in Record._fields)
_CHANGES = ", ".join(f"{name} = excluded.{name}" for name in Record._fields if name != "key")
_SCHEMA = f"""
CREATE TABLE leases (
    plan TEXT PRIMARY KEY, number INTEGER NOT NULL, owner TEXT, since REAL NOT NULL, heartbeat REAL NOT NULL
);
CREATE TABLE steps (plan TEXT NOT NULL, {_COLUMNS}, PRIMARY KEY (plan, key)) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
_GET_LEASE = "SELECT number, owner, since, heartbeat FROM leases WHERE plan = ?"
_PUT_LEASE = "INSERT OR REPLACE INTO leases (plan, number, owner, since, heartbeat) VALUES (?, ?, ?, ?, ?)"
_ALL = f"SELECT {_COLUMNS} FROM steps WHERE plan = ? ORDER BY position IS NULL, position"  # noqa: S608 - our own names
_GET = f"SELECT {_COLUMNS} FROM steps WHERE plan = ? AND key = ?"  # noqa: S608
_PUT = f"INSERT INTO steps (plan, {_COLUMNS}) VALUES (?, {_PLACES}) ON CONFLICT (plan, key) DO UPDATE SET {_CHANGES}"  # noqa: S608
_MOVE = (
    "UPDATE steps SET state = ?, attempts = ?, worker = ?, result = ?, error = ?, started = ?, finished = ? "
    "WHERE plan = ? AND key = ?"
)


class Journal(JournalPort):
    """A journal in a file, of one plan or of several. What it has been told survives a crash of the machine.

    Threads and processes of one machine may use it at the same time; so may objects that are copied to other processes
    by pickling. The file must lie on a disk of the machine: SQLite does not share files over a network.

    Args:
        path: The file; made, with its folders, when it is first used.
        timeout: How many seconds to wait while others write.

    Raises:
        InvalidPlan: The path is that of no file, or the time is none.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem.plans import Journal, Plan
        >>> from torchsystem.services import Service
        >>> service = Service()
        >>> @service.handler
        ... def square(number: int) -> int:
        ...     print(f"squaring {number}")
        ...     return number**2
        >>> plan = Plan("squares", services=[service])
        >>> three = plan.add("square", number=3)
        >>> with TemporaryDirectory() as folder:
        ...     with Journal(f"{folder}/squares.db") as journal:
        ...         first = plan.run(journal)
        ...     with Journal(f"{folder}/squares.db") as journal:
        ...         again = plan.run(journal)
        squaring 3
        >>> first == again == 9
        True
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 60.0) -> None:
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(text, str) or not text or text.startswith((":memory:", "file:")):
            message = f"Journal({path!r}): a journal is a file. Write its path, or MemoryJournal() for tests."
            raise InvalidPlan(message)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout < math.inf:
            message = f"Journal({path!r}, timeout={timeout!r}): write a number of seconds, 0 or more."
            raise InvalidPlan(message)
        self.path = Path(text).absolute()  # also for who changes the folder later
        self.timeout = timeout
        self._guard = ForkSafeLock()
        self._opened: _Connection | None = None
        self._inherited: list[_Connection] = []

    @contextmanager
    def transaction(self) -> Generator[Pages]:
        """Open a block that alone reads and writes, among all threads and processes; at its end it is on the disk."""
        with self._guard.lock:
            connection = self._connect()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield _Pages(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):  # it may not have begun, or have been rolled back already
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    _say_where(error, self.path)
                raise

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._guard.lock:
            opened, self._opened = self._opened, None
            if opened is not None and opened.process == os.getpid():
                opened.connection.close()

    def _let_go_of_another(self) -> None:
        """Close the file if another has taken its place: whoever is given the journal from now on means that one."""
        with self._guard.lock:
            opened = self._opened
            if opened is not None and opened.process == os.getpid() and not opened.is_there():
                self._opened = None
                opened.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        """Close the file when nobody can use it any more."""
        opened = getattr(self, "_opened", None)
        if opened is not None and opened.process == os.getpid():
            opened.connection.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Be opened anew wherever it is sent."""
        return _reopen, (type(self), str(self.path), self.timeout)

    def __repr__(self) -> str:
        """Show where it is."""
        return f"{type(self).__name__}({str(self.path)!r})"

    def _connect(self) -> sqlite3.Connection:
        opened = self._opened
        if opened is not None and opened.process != os.getpid():
            # A connection does not survive a fork, and SQLite does not want it to be closed in the child.
            self._inherited.append(opened)
            opened = None
        if opened is None:
            opened = self._opened = _Connection(self.path, self.timeout)
        elif not opened.is_there():
            message = (
                f"{self.path} was taken away while it was in use: what is written now would be lost. "
                f"Put it back and run the plan again."
            )
            raise UnreadableJournal(message)
        return opened.connection


def _reopen(kind: type[Journal], path: str, timeout: float) -> Journal:
    """Return the journal of a path, one for all that is sent to this process; of the file that is there now."""
    journal = _journal(kind, path, timeout)
    journal._let_go_of_another()  # noqa: SLF001 - our own
    return journal


@lru_cache(maxsize=8)
def _journal(kind: type[Journal], path: str, timeout: float) -> Journal:
    return kind(path, timeout=timeout)


class _Connection:
    """An open file, and the process that opened it."""

    def __init__(self, path: Path, timeout: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.process = os.getpid()
        self._path = path
        try:
            self.connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:  # as where it is a folder
            _say_where(error, path)
            raise
        try:
            self._prepare(time.monotonic() + timeout)
        except sqlite3.DatabaseError as error:
            self.connection.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
                message = f"{path} is no journal: {error}. Give a journal a file of its own."
                raise UnreadableJournal(message) from error
            _say_where(error, path)
            raise
        except BaseException:
            self.connection.close()
            raise
        self._file = self._identity()

    def is_there(self) -> bool:
        """Tell whether the file is still the one that was opened."""
        try:
            return self._identity() == self._file
        except FileNotFoundError:
            return False

    def _identity(self) -> tuple[int, int]:
        found = os.stat(self._path)  # noqa: PTH116 - at each step, and twice as fast
        return found.st_dev, found.st_ino

    def _prepare(self, deadline: float) -> None:
        execute = self.connection.execute
        # SQLite does not wait for others when it changes the mode of a file; two that make it at once meet here.
        while True:
            try:
                self._look()
                execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA fullfsync = ON")
        # A log that is soon begun anew is overwritten; where it grows, its new length costs each commit another write.
        execute(f"PRAGMA wal_autocheckpoint = {LOG}")
        execute("BEGIN IMMEDIATE")
        if not self._check():
            for statement in filter(str.strip, _SCHEMA.split(";")):
                execute(statement)
        execute("COMMIT")

    def _look(self) -> None:
        """Check it before anything is written, at one moment: another may be making a journal of it just now."""
        self.connection.execute("BEGIN")
        try:
            self._check()
        finally:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def _check(self) -> bool:
        """Tell whether it is a journal already; refuse what is something else."""
        (application,) = self.connection.execute("PRAGMA application_id").fetchone()
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if application == APPLICATION and version == VERSION:
            return True
        if application == APPLICATION:
            message = (
                f"{self._path} is a journal of version {version}, and this torchsystem knows {VERSION}. Update it."
            )
            raise UnreadableJournal(message)
        if self.connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() or application or version:
            message = f"{self._path} is a database of something else. Give a journal a file of its own."
            raise UnreadableJournal(message)
        return False


def _say_where(error: sqlite3.Error, path: Path) -> None:
    """Note in which file it happened; refuse a file that is damaged.

    Raises:
        UnreadableJournal: It is.
    """
    if type(error) is sqlite3.DatabaseError:
        message = f"{path} is damaged: {error}. Put back a copy of it, or begin the plan anew in another file."
        raise UnreadableJournal(message) from error
    error.add_note(f"in the journal {path}")


class _Pages:
    """The tables, inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._execute_many = connection.executemany

    def lease(self, plan: str) -> Lease:
        row = self._execute(_GET_LEASE, (plan,)).fetchone()
        return Lease() if row is None else Lease(*row)

    def put_lease(self, plan: str, lease: Lease) -> None:
        self._execute(_PUT_LEASE, (plan, *lease))

    def records(self, plan: str) -> list[Record]:
        return [Record._make(row) for row in self._execute(_ALL, (plan,))]

    def record(self, plan: str, key: str) -> Record | None:
        row = self._execute(_GET, (plan, key)).fetchone()
        return None if row is None else Record._make(row)

    def put(self, plan: str, records: Iterable[Record]) -> None:
        self._execute_many(_PUT, [(plan, *record) for record in records])

    def move(self, plan: str, record: Record) -> None:
        values = (record.state, record.attempts, record.worker, record.result, record.error)
        self._execute(_MOVE, (*values, record.started, record.finished, plan, record.key))
