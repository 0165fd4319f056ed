"""A journal in memory, for tests: it lives as long as the process."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from threading import Lock
from typing import NoReturn

from torchsystem.errors import UnreachableHandler
from torchsystem.plans.ports import JournalPort, Lease, Pages, Record


class MemoryJournal(JournalPort):
    """A journal that forgets everything when the process ends.

    Examples:
        >>> from torchsystem.plans import MemoryJournal, Plan
        >>> from torchsystem.services import Service
        >>> service = Service()
        >>> @service.handler
        ... def add(a: int, b: int) -> int:
        ...     return a + b
        >>> plan = Plan("sum", services=[service])
        >>> three = plan.add("add", a=1, b=2)
        >>> last = plan.add("add", a=three, b=4)
        >>> plan.run(MemoryJournal())
        7
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._leases: dict[str, Lease] = {}
        self._steps: dict[str, dict[str, Record]] = {}

    @contextmanager
    def transaction(self) -> Generator[Pages]:
        """Open a block that alone reads and writes."""
        with self._lock:
            draft = _Draft(self._leases, self._steps)
            yield draft
            self._leases.update(draft.new_leases)
            for plan, records in draft.new_steps.items():
                self._steps.setdefault(plan, {}).update(records)

    def close(self) -> None:
        """Do nothing: what is in memory stays there."""

    def __reduce__(self) -> NoReturn:
        """Refuse to be sent to another process, which would write into a copy.

        Raises:
            UnreachableHandler: Always.
        """
        message = "a MemoryJournal lives in one process alone. Write Journal(path) where steps run in other processes."
        raise UnreachableHandler(message)


class _Draft:
    """What is written in a transaction, over what was there before."""

    def __init__(self, leases: dict[str, Lease], steps: dict[str, dict[str, Record]]) -> None:
        self._leases = leases
        self._steps = steps
        self.new_leases: dict[str, Lease] = {}
        self.new_steps: dict[str, dict[str, Record]] = {}

    def lease(self, plan: str) -> Lease:
        return self.new_leases.get(plan, self._leases.get(plan, Lease()))

    def put_lease(self, plan: str, lease: Lease) -> None:
        self.new_leases[plan] = lease

    def records(self, plan: str) -> list[Record]:
        known = self._steps.get(plan, {}) | self.new_steps.get(plan, {})
        return sorted(known.values(), key=lambda record: (record.position is None, record.position))

    def record(self, plan: str, key: str) -> Record | None:
        return self.new_steps.get(plan, {}).get(key) or self._steps.get(plan, {}).get(key)

    def put(self, plan: str, records: Iterable[Record]) -> None:
        self.new_steps.setdefault(plan, {}).update({record.key: record for record in records})

    def move(self, plan: str, record: Record) -> None:
        self.put(plan, [record])
