"""The port of journals: what is known of a plan, and what may happen to it, whatever it is kept in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, NoReturn, Protocol

from torchsystem.errors import PlanTakenOver

State = Literal["left", "started", "finished", "failed"]


class Record(NamedTuple):
    """What is known of a step.

    Attributes:
        key: What the step is called: its action, and its number among the steps of that action, from 0.
        position: Where in the plan it stands; None if the plan no longer has it.
        action: What is to be done.
        arguments: With what, as JSON; a reference to a result as `{"$step": key}`.
        version: The version of the code.
        state: How far it is.
        generation: How often it was reset.
        attempts: How often it was started since.
        worker: Who started it last.
        result: What it returned, as JSON.
        error: How it failed last.
        started: When it was started last, in seconds since 1970.
        finished: When that ended.
        note: What was accepted although it changed.
    """

    key: str
    position: int | None
    action: str
    arguments: str
    version: str
    state: State = "left"
    generation: int = 0
    attempts: int = 0
    worker: str | None = None
    result: str | None = None
    error: str | None = None
    started: float | None = None
    finished: float | None = None
    note: str | None = None


class Lease(NamedTuple):
    """Who runs a plan.

    Attributes:
        number: How often the plan was taken so far.
        owner: Who runs it; None if nobody does.
        since: Since when.
        heartbeat: When it was last heard of.
    """

    number: int = 0
    owner: str | None = None
    since: float = 0.0
    heartbeat: float = 0.0


class Pages(Protocol):
    """What a journal reads and writes inside one transaction."""

    def lease(self, plan: str) -> Lease:
        """Return the lease of a plan; an empty one if it was never taken."""
        ...

    def put_lease(self, plan: str, lease: Lease) -> None:
        """Write it."""

    def records(self, plan: str) -> list[Record]:
        """Return all steps of a plan by position; those without one come last."""
        ...

    def record(self, plan: str, key: str) -> Record | None:
        """Return a step, if it is known."""

    def put(self, plan: str, records: Iterable[Record]) -> None:
        """Write steps in the place of those with their keys."""

    def move(self, plan: str, record: Record) -> None:
        """Write how far a known step is: from its state to when it was finished; the rest is as it was."""


class JournalPort(ABC):
    """A journal: where plans are written down while they are worked on.

    A new kind of journal writes `transaction` and `close`; what happens in transactions is the same for all. The suite
    `torchsystem.testing.JournalContract` tells whether it keeps the contract.
    """

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Pages]:
        """Open a block that alone reads and writes, among all threads and processes.

        At its end all of it is durable; when it is left by an exception, nothing of it was written.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open; the next use opens it again."""

    def lease(self, plan: str) -> Lease:
        """Return the lease of a plan."""
        with self.transaction() as pages:
            return pages.lease(plan)

    def acquire(self, plan: str, owner: str, now: float, *, instead_of: int | None = None) -> Lease:
        """Take the lease of a plan if nobody has it, or if it still is the one that is to be replaced.

        Returns:
            The lease that is in force now: whose owner is another if it was not to be had.
        """
        with self.transaction() as pages:
            lease = pages.lease(plan)
            if lease.owner is None or lease.number == instead_of:
                lease = Lease(lease.number + 1, owner, now, now)
                pages.put_lease(plan, lease)
            return lease

    def beat(self, plan: str, number: int, now: float) -> bool:
        """Let the holder of a lease be heard of; tell whether it is in force."""
        with self.transaction() as pages:
            lease = pages.lease(plan)
            if not _is_held(lease, number):
                return False
            pages.put_lease(plan, lease._replace(heartbeat=now))
            return True

    def release(self, plan: str, number: int) -> None:
        """Give a lease back, if it is in force."""
        with self.transaction() as pages:
            lease = pages.lease(plan)
            if _is_held(lease, number):
                pages.put_lease(plan, lease._replace(owner=None))

    def records(self, plan: str) -> list[Record]:
        """Return what is known of the steps of a plan, by position; those that it no longer has come last."""
        with self.transaction() as pages:
            return pages.records(plan)

    def enroll(self, plan: str, number: int, records: Iterable[Record]) -> None:
        """Write down what the steps of a plan are; how far known ones are stays as it is.

        Raises:
            PlanTakenOver: The lease is not in force.
        """
        with self.transaction() as pages:
            _check(pages, plan, number)
            known = {record.key: record for record in pages.records(plan)}
            pages.put(plan, [_described(record, known.get(record.key)) for record in records])

    def reset(self, plan: str, number: int, keys: Iterable[str]) -> None:
        """Forget what steps have come to, so that they are to be done anew.

        Raises:
            PlanTakenOver: The lease is not in force.
        """
        with self.transaction() as pages:
            _check(pages, plan, number)
            pages.put(plan, [_reset(_known(pages, plan, key)) for key in keys])

    def start(  # noqa: PLR0913 - what is written down
        self, plan: str, number: int, key: str, worker: str, now: float, *, instead_of: str | None = None
    ) -> Record:
        """Start a step, unless it is finished, or under way at somebody who is not to be replaced.

        Returns:
            The step as it is now: finished, or started by whoever is doing it.

        Raises:
            PlanTakenOver: The lease under which it is to be done is not in force.
        """
        with self.transaction() as pages:
            _check(pages, plan, number)
            record = _known(pages, plan, key)
            busy = record.state == "started" and record.worker != instead_of
            if record.state == "finished" or busy:
                return record
            attempts = record.attempts + 1
            record = record._replace(
                state="started", attempts=attempts, worker=worker, error=None, started=now, finished=None
            )
            pages.move(plan, record)
            return record

    def finish(self, plan: str, key: str, generation: int, result: str, now: float) -> Record:
        """Write down the result of a step, if it has none yet; the first one counts.

        Returns:
            The step as it is now. It has no result if it was reset since it was started.
        """
        with self.transaction() as pages:
            record = _known(pages, plan, key)
            if record.state != "finished" and record.generation == generation:
                record = record._replace(state="finished", result=result, error=None, finished=now)
                pages.move(plan, record)
            return record

    def fail(  # noqa: PLR0913 - what is written down
        self, plan: str, key: str, generation: int, error: str, now: float, *, worker: str | None = None
    ) -> Record:
        """Write down that a step failed, if it is still under way at this worker, or at whomever if none is given."""
        with self.transaction() as pages:
            record = _known(pages, plan, key)
            mine = worker is None or record.worker == worker
            if record.state == "started" and record.generation == generation and mine:
                record = record._replace(state="failed", error=error, finished=now)
                pages.move(plan, record)
            return record


def _is_held(lease: Lease, number: int) -> bool:
    return lease.owner is not None and lease.number == number


def _check(pages: Pages, plan: str, number: int) -> None:
    lease = pages.lease(plan)
    if not _is_held(lease, number):
        message = (
            f"the lease no. {number} of plan {plan!r} is no longer in force (the journal is at no. {lease.number}): "
            f"another runner has taken over. Leave the plan to it, or run it again when that one is done."
        )
        raise PlanTakenOver(message)


def _known(pages: Pages, plan: str, key: str) -> Record:
    record = pages.record(plan, key)
    return _lost(plan, key) if record is None else record


def _lost(plan: str, key: str) -> NoReturn:
    message = f"the journal does not know step {key} of plan {plan!r} any more. Run the plan again."
    raise PlanTakenOver(message)


def _described(record: Record, known: Record | None) -> Record:
    if known is None:
        return record
    return known._replace(
        position=record.position, arguments=record.arguments, version=record.version, note=record.note
    )


def _reset(record: Record) -> Record:
    return Record(
        key=record.key,
        position=record.position,
        action=record.action,
        arguments=record.arguments,
        version=record.version,
        generation=record.generation + 1,
    )
