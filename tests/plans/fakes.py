"""What stands in, in the tests of plans, for services that do real work, and for machines that die."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torchsystem.plans import JournalPort, MemoryJournal, Plan
from torchsystem.services import Consumer, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torchsystem.plans.ports import Pages


class Crash(BaseException):
    """What ends a process that is killed, as far as a test can do that to itself."""


class Calls:
    """A service that writes down what it was called with.

    `work(number, after)` returns a number made of its own and of those it comes after; what is in `behaviour` by number
    is called before that.
    """

    def __init__(self) -> None:
        self.made: list[int] = []
        self.behaviour: dict[int, Callable[[], object]] = {}
        self.service = Service("calls")

        @self.service.handler
        def work(number: int, after: list[Any] | None = None) -> Any:
            self.made.append(number)
            self.behaviour.get(number, int)()
            return {"number": number, "sum": number + sum(one["sum"] for one in after or ())}

    def plan(self, graph: list[list[int]], **options: Any) -> Plan:
        """Plan a step for each list, which says after which other steps it comes."""
        plan = Plan("graph", [self.service], **options)
        references: list[Any] = []
        for number, after in enumerate(graph):
            references.append(plan.add("work", number=number, after=[references[one] for one in after]))
        return plan


def expected(graph: list[list[int]]) -> list[dict[str, int]]:
    """Return the results of such a plan."""
    results: list[dict[str, int]] = []
    for number, after in enumerate(graph):
        results.append({"number": number, "sum": number + sum(results[one]["sum"] for one in after)})
    return results


def heard(plan: Plan) -> list[Any]:
    """Return the list in which everything will be that a plan tells from now on."""
    events: list[Any] = []
    consumer = Consumer()

    @consumer.handler
    def hear(event: object) -> None:
        events.append(event)

    plan.producer.register(consumer)
    return events


class Crashing(JournalPort):
    """A journal whose process dies at one of its transactions, before or after that is durable.

    Args:
        kept: Where everything is really kept.
        at: The number of the transaction, from 1, that is the last.
        after: Whether it is durable.
    """

    def __init__(self, kept: MemoryJournal, at: int, *, after: bool) -> None:
        self.kept = kept
        self.left = at
        self.after = after

    @contextmanager
    def transaction(self) -> Generator[Pages]:
        """Open a block, or die."""
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self.after):
            raise Crash
        with self.kept.transaction() as pages:
            yield pages
        if self.left == 0:
            raise Crash

    def close(self) -> None:
        """Do nothing."""


class Clock:
    """A clock that goes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.slept.append(seconds)
        self.now += seconds
