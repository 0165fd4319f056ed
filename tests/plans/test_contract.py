"""The contract of journals: one that keeps it passes, and each that breaks it in one way is found out."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

import pytest

from torchsystem.plans import JournalPort
from torchsystem.plans.ports import Lease
from torchsystem.testing import JournalContract

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from torchsystem.plans.ports import Pages, Record

MOVED = ("state", "attempts", "worker", "result", "error", "started", "finished")


class Server:
    """What keeps everything, as a database does: the journals that are opened on it are only ways to it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.leases: dict[str, Lease] = {}
        self.steps: dict[tuple[str, str], Record] = {}


class Tables:
    """The pages of such a journal, as whoever writes another kind would begin."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def lease(self, plan: str) -> Lease:
        return self.server.leases.get(plan, Lease())

    def put_lease(self, plan: str, lease: Lease) -> None:
        self.server.leases[plan] = lease

    def records(self, plan: str) -> list[Record]:
        found = [record for (name, _), record in self.server.steps.items() if name == plan]
        return sorted(found, key=lambda record: (record.position is None, record.position))

    def record(self, plan: str, key: str) -> Record | None:
        return self.server.steps.get((plan, key))

    def put(self, plan: str, records: Iterable[Record]) -> None:
        self.server.steps.update({(plan, record.key): record for record in records})

    def move(self, plan: str, record: Record) -> None:
        known = self.server.steps[plan, record.key]
        self.server.steps[plan, record.key] = known._replace(**{name: getattr(record, name) for name in MOVED})


class Served(JournalPort):
    """A journal in a server."""

    tables: type[Tables] = Tables

    def __init__(self, server: Server | None = None) -> None:
        self.server = server or Server()

    @contextmanager
    def transaction(self) -> Generator[Pages]:
        with self.server.lock, self.undone_on(BaseException):
            yield self.tables(self.server)

    @contextmanager
    def undone_on(self, kind: type[BaseException]) -> Generator[None]:
        """Let what was written be gone after an error of a kind."""
        leases, steps = dict(self.server.leases), dict(self.server.steps)
        try:
            yield
        except kind:
            self.server.leases, self.server.steps = leases, steps
            raise

    def close(self) -> None:
        pass


class ServedContract(JournalContract):
    """The contract, for journals of a kind."""

    def __init__(self, kind: type[Served], meeting: float = 0.2) -> None:
        self.kind = kind
        self.meeting = meeting

    def make(self) -> JournalPort:
        return self.kind()

    def reopen(self, journal: JournalPort) -> JournalPort | None:
        assert isinstance(journal, Served)
        return self.kind(journal.server)

    def broken(self) -> str | None:
        """Return the first rule that the kind breaks."""
        for rule in dir(self):
            if rule.startswith("test_"):
                try:
                    getattr(self, rule)()
                except (AssertionError, LookupError):
                    return rule
        return None


class Unlocked(Served):
    """Transactions that are open together."""

    @contextmanager
    def transaction(self) -> Generator[Pages]:
        with self.undone_on(BaseException):
            yield self.tables(self.server)


class LockedHere(Served):
    """Those of one process take turns, those of others do not."""

    def __init__(self, server: Server | None = None) -> None:
        super().__init__(server)
        self.lock = Lock()

    @contextmanager
    def transaction(self) -> Generator[Pages]:
        with self.lock, self.undone_on(BaseException):
            yield self.tables(self.server)


class Written(Served):
    """What is written stays, whatever happens then."""

    @contextmanager
    def transaction(self) -> Generator[Pages]:
        with self.server.lock:
            yield self.tables(self.server)


class Interrupted(Served):
    """What is written stays if the block is interrupted."""

    @contextmanager
    def transaction(self) -> Generator[Pages]:
        with self.server.lock, self.undone_on(Exception):
            yield self.tables(self.server)


class Silent(Served):
    """An exception that ends the block goes no further."""

    @contextmanager
    def transaction(self) -> Generator[Pages]:
        try:
            with self.server.lock, self.undone_on(BaseException):
                yield self.tables(self.server)
        except LookupError:
            pass


class Private(Served):
    """Each has a server of its own."""

    def __init__(self, _: Server | None = None) -> None:
        super().__init__()


class Forgetful(Served):
    """Closing is losing."""

    def close(self) -> None:
        self.server.steps.clear()


def order(key: Callable[[Record], Any]) -> dict[str, Any]:
    """Sort records in another way."""
    return {"records": lambda self, plan: sorted(Tables.records(self, plan), key=key)}


def moving(change: Callable[[Record], Record]) -> dict[str, Any]:
    """Change records when they are moved."""
    return {"move": lambda self, plan, record: Tables.move(self, plan, change(record))}


def putting(change: Callable[[Record], Record]) -> dict[str, Any]:
    """Change records when they are put."""
    return {"put": lambda self, plan, records: Tables.put(self, plan, map(change, records))}


def keeping(self: Tables, plan: str, record: Record) -> None:
    """Move a record to something, and never to nothing."""
    known = self.server.steps[plan, record.key]
    changes = {name: getattr(record, name) for name in MOVED if getattr(record, name) is not None}
    self.server.steps[plan, record.key] = known._replace(**changes)


def short(time: float) -> float:
    """Keep a number in 32 bits."""
    return float(struct.unpack("f", struct.pack("f", time))[0])


def under(name: Callable[[str], str]) -> dict[str, Any]:
    """Take different names for the same."""
    return {
        "record": lambda self, plan, key: Tables.record(self, plan, name(key)),
        "put": lambda self, plan, records: Tables.put(self, plan, [one._replace(key=name(one.key)) for one in records]),
        "move": lambda self, plan, record: Tables.move(self, plan, record._replace(key=name(record.key))),
    }


FAULTS: dict[str, dict[str, Any]] = {
    "steps in the order of their keys": order(lambda record: (record.position is None, record.key)),
    "positions that are text": order(lambda record: (record.position is None, str(record.position))),
    "steps without a position first": order(lambda record: (record.position is not None, record.position or 0)),
    "steps of any plan": {
        "record": lambda self, _, key: next((one for one in self.server.steps.values() if one.key == key), None)
    },
    "moves that clear nothing": {"move": keeping},
    "moves that leave the worker": moving(lambda record: record._replace(worker="worker")),
    "short results": moving(lambda record: record._replace(result=record.result and record.result[:255])),
    "short arguments": putting(lambda record: record._replace(arguments=record.arguments[:255])),
    "few letters": putting(lambda record: record._replace(note=record.note and ascii(record.note)[1:-1])),
    "a null that is nothing": moving(
        lambda record: record._replace(result=None if record.result == "null" else record.result)
    ),
    "empty text that is nothing": moving(lambda record: record._replace(error=record.error or None)),
    "whole seconds": moving(lambda record: record._replace(started=record.started and int(record.started))),
    "short times": {
        "put_lease": lambda self, plan, lease: Tables.put_lease(self, plan, lease._replace(since=short(lease.since)))
    },
    "a lease for all plans": {
        "lease": lambda self, _: Tables.lease(self, "plan"),
        "put_lease": lambda self, _, lease: Tables.put_lease(self, "plan", lease),
    },
    "keys whatever the case": under(str.lower),
    "keys without blanks": under(str.strip),
    "puts that keep a result": {
        "put": lambda self, plan, records: Tables.put(
            self, plan, [one._replace(result=(self.record(plan, one.key) or one).result) for one in records]
        )
    },
    "puts of a thousand at most": {"put": lambda self, plan, records: Tables.put(self, plan, list(records)[:1000])},
    "versions that are lost": putting(lambda record: record._replace(version="1")),
    "steps that are made up": {
        "record": lambda self, plan, key: Tables.record(self, plan, key) or next(iter(self.records(plan)), None)
    },
}


def test_a_journal_that_keeps_the_contract_passes() -> None:
    """Whatever it keeps everything in."""
    assert ServedContract(Served).broken() is None


@pytest.mark.parametrize("fault", FAULTS)
def test_pages_with_a_fault_are_found_out(fault: str) -> None:
    """The suite is all that others have to go by."""
    tables = type("Faulty", (Tables,), FAULTS[fault])
    assert ServedContract(type("Faulty", (Served,), {"tables": tables})).broken()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", [Unlocked, LockedHere, Written, Interrupted, Silent, Private, Forgetful])
def test_transactions_with_a_fault_are_found_out(kind: type[Served]) -> None:
    """However busy the machine is: those that can meet, do."""
    assert ServedContract(kind, meeting=30).broken()


def test_a_journal_that_cannot_be_sent_is_told_what_to_write() -> None:
    """Steps in other processes write it there."""

    class Sent(ServedContract):
        def reopen(self, journal: JournalPort) -> JournalPort | None:
            return JournalContract.reopen(self, journal)

    with pytest.raises(
        AssertionError, match=r"cannot be sent .* Write __reduce__, or let reopen\(journal\) open it anew"
    ):
        Sent(Served).test_others_see_at_once_what_was_written()
