"""Send events without end through listeners in the background that fail at random: nothing may get lost, nor grow.

    python tests/services/soak.py            # 1,000,000 events by each policy: some minutes
    python tests/services/soak.py 10000      # fewer

Exits with 1 when an event or a failure was lost or repeated, when a listener heard events out of order, or when the
memory of the process grew.
"""

# ruff: noqa: T201 - a program talks to whoever runs it

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from torchsystem.services import Consumer, HandlerFailed, Producer, background, event

LISTENERS = 8
GROWTH = 16 * 1024 * 1024  # bytes that a process may grow by after its first tenth

Policy = Literal["stop", "finish", "isolate"]


@event
class Ticked:
    """Something happened."""

    number: int


class Unlucky(Exception):
    """A listener failed at random."""

    def __init__(self, listener: int, number: int) -> None:
        super().__init__(listener, number)


class Listener(Consumer):
    """Checks the order of what it hears, and fails at random.

    Args:
        index: Which listener it is.
        seed: What its luck depends on.
    """

    def __init__(self, index: int, seed: int) -> None:
        super().__init__(f"listener {index}")
        self.index = index
        self.heard = 0
        self.failed = 0
        self.disorder = 0
        self._random = random.Random(seed + index)  # noqa: S311 - nobody is to be deceived
        self.handler(self.on_ticked)

    def on_ticked(self, event: Ticked) -> None:
        """Expect the next number, and fail once in a hundred times."""
        self.disorder += event.number != self.heard
        self.heard += 1
        if self._random.random() < 0.01:
            self.failed += 1
            raise Unlucky(self.index, event.number)


def soak(policy: Policy, count: int, *, seed: int = 0) -> list[str]:
    """Send so many events through the listeners by a policy; return what went wrong."""
    told: Counter[tuple[int, int]] = Counter()
    announced = 0
    producer = Producer(
        failures=policy,
        on_failure=(lambda error, _event, _handler: told.update([error.args])) if policy == "isolate" else None,
    )
    witness = Consumer("witness")

    @witness.handler
    def on_failed(_event: HandlerFailed) -> None:
        nonlocal announced
        announced += 1

    listeners = [Listener(index, seed) for index in range(LISTENERS)]
    producer.register(*listeners, delivery=background(capacity=256))
    producer.register(witness)
    memory = 0
    for number in range(count):
        if number == count // 10:
            memory = resident()
        with collecting(told):
            producer.dispatch(Ticked(number))
    with collecting(told):
        producer.close()
    grown = resident() - memory

    failed = sum(listener.failed for listener in listeners)
    checks = {
        "events lost or repeated": sum(abs(listener.heard - count) for listener in listeners),
        "events out of order": sum(listener.disorder for listener in listeners),
        "failures lost": failed - len(told),
        "failures repeated": told.total() - len(told),
        "failures announced amiss": announced - (0 if policy == "stop" else failed),
        "bytes of growth": grown if grown > GROWTH else 0,
    }
    return [f"{policy}: {wrong} {what}" for what, wrong in checks.items() if wrong]


@contextmanager
def collecting(told: Counter[tuple[int, int]]) -> Iterator[None]:
    """Count the failures that a block raises, each by itself."""
    try:
        yield
    except* Unlucky as group:
        told.update(error.args for error in leaves(group))


def leaves(group: BaseExceptionGroup[Unlucky]) -> Iterator[Unlucky]:
    """Yield the exceptions of a group, also of groups within it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def resident() -> int:
    """Return how much memory the process has, in bytes; 0 where that cannot be read."""
    statistics = Path("/proc/self/statm")
    return int(statistics.read_text().split()[1]) * 4096 if statistics.exists() else 0


def main() -> int:
    """Soak by each policy, and return the exit status."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    wrong: list[str] = []
    for policy in get_args(Policy):
        start = time.monotonic()
        found = soak(policy, count)
        spent = time.monotonic() - start
        print(
            f"{policy}: {count:,} events through {LISTENERS} listeners, {spent:.0f} s, {resident() >> 20} MB",
            flush=True,
        )
        print(*(f"  {each}" for each in found), sep="\n", end="\n" if found else "", flush=True)
        wrong += found
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
