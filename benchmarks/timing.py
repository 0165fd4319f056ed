"""Ratios that can be trusted on a busy machine: everything in one process, in turns, the best of many rounds.

Each operation gets a timing loop of its own, compiled for it, so that the interpreter, which specialises the
instructions of a loop for what it calls, sees one thing per loop. The cost of the empty loop is subtracted, the best of
all rounds as well.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from itertools import repeat
from time import perf_counter_ns
from typing import Any, NamedTuple

ROUNDS = 25
ROUND_NS = 2_000_000  # how long one operation is repeated in one round


class Operation(NamedTuple):
    """Something to be timed.

    Attributes:
        name: Whose way of doing it this is.
        call: What is repeated.
        args: What it is called with.
        is_async: Whether its result is awaited.
    """

    name: str
    call: Callable[..., Any]
    args: tuple[Any, ...] = ()
    is_async: bool = False


class _Timed:
    """An operation with its loop, and how often that is to go around."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        names = ", ".join(f"a{number}" for number in range(len(operation.args)))
        head, wait = ("async def", "await ") if operation.is_async else ("def", "")
        source = (
            f"{head} loop(times, clock, call, {names}):\n    start = clock()\n"
            f"    for _ in times: {wait}call({names})\n    return clock() - start\n"
        )
        namespace: dict[str, Any] = {}
        exec(source, namespace)  # noqa: S102 - our own text
        self._loop = namespace["loop"]
        self.number = 1
        while (spent := self.run()) * 2 < ROUND_NS:
            self.number *= max(2, min(100, ROUND_NS // max(spent, 1)))
        self.best = float("inf")

    def run(self) -> int:
        """Go around once, and return the nanoseconds it took."""
        spent = self._loop(repeat(None, self.number), perf_counter_ns, self.operation.call, *self.operation.args)
        return run(spent) if self.operation.is_async else int(spent)


def run(coroutine: Coroutine[Any, Any, int]) -> int:
    """Await `coroutine` in an event loop of its own."""
    return asyncio.run(coroutine)


def measure(operations: Sequence[Operation]) -> list[float]:
    """Time operations in turns; return the nanoseconds of each, the best round of all."""
    timed = [_Timed(operation) for operation in operations]
    empty = float("inf")
    enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            empty = min(empty, _empty(20_000))
            for one in timed:
                one.best = min(one.best, one.run() / one.number)
            gc.collect()
    finally:
        if enabled:
            gc.enable()
    return [one.best - empty for one in timed]


def _empty(number: int) -> float:
    start = perf_counter_ns()
    for _ in repeat(None, number):
        pass
    return (perf_counter_ns() - start) / number


def table(title: str, cases: dict[str, list[Operation]], targets: dict[str, float]) -> bool:
    """Print, case by case, what each operation takes as a ratio to the first; tell whether ours keep the targets."""
    kept = True
    print(f"\n{title}\n")
    for case, operations in cases.items():
        times = measure(operations)
        for operation, time in zip(operations, times, strict=True):
            ratio = time / times[0]
            note = ""
            if operation.name == "torchsystem" and case in targets:
                good = ratio <= targets[case]
                kept = kept and good
                note = f"   ≤ {targets[case]:g} {'✓' if good else '✗'}"
            print(f"  {case:26} {operation.name:16} {time:10.0f} ns {ratio:8.2f}x{note}")
        print()
    return kept
