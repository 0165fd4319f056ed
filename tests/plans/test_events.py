"""Events: what a plan tells, in which order, whatever fails and however steps are done."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from tests.plans.fakes import Calls, heard
from tests.plans.test_crashes import graphs
from torchsystem.errors import NoResult
from torchsystem.plans import MemoryJournal, PlanFinished, PlanStarted, Retry, StepFailed, StepFinished, StepStarted

if TYPE_CHECKING:
    from collections.abc import Callable

POLICIES: list[Any] = ["stop", "skip", Retry(2, wait=0), Retry(1, wait=0, then="skip")]


def failing(times: int) -> Callable[[], None]:
    """Return what fails so many times, in all runs together."""
    left = iter(range(times))

    def fail() -> None:
        if next(left, None) is not None:
            raise RuntimeError("a step")

    return fail


def finished(journal: MemoryJournal) -> set[str]:
    """Return the keys of the steps that have a result."""
    return {record.key for record in journal.records("graph") if record.state == "finished"}


def follow(steps: list[Any], done: set[str]) -> None:
    """See that each step begins once for each attempt, and ends before it begins again; collect what gets done."""
    begun, attempts = set[str](), Counter[str]()
    for event in steps:
        if isinstance(event, StepStarted):
            assert event.step not in begun | done
            attempts[event.step] += 1
            begun.add(event.step)
        else:
            begun.remove(event.step)
        if isinstance(event, StepFinished):
            done.add(event.step)
        else:
            assert event.attempt == attempts[event.step]


@given(graphs(), st.dictionaries(st.integers(0, 7), st.integers(1, 4)), st.sampled_from(POLICIES), st.integers(0, 3))
def test_what_is_told_is_what_happens(
    graph: list[list[int]], failures: dict[int, int], policy: Any, threads: int
) -> None:
    """Start, then each step's attempts one after the other, then the end, unless a failure stops the plan."""
    calls, journal = Calls(), MemoryJournal()
    calls.behaviour = {number: failing(times) for number, times in failures.items()}
    for _ in range(3):
        plan, done = calls.plan(graph), finished(journal)
        events, error = heard(plan), None
        try:
            plan.run(journal, failures=policy, executor=(lambda: ThreadPoolExecutor(threads)) if threads else None)
        except RuntimeError as raised:  # of a step, or for want of a result
            error = raised
        stopped = [event for event in events if isinstance(event, StepFailed) and event.then == "stop"]
        assert events[0] == PlanStarted("graph", len(graph), len(done))
        assert isinstance(events[-1], PlanFinished) is not bool(stopped)
        assert error in [event.error for event in stopped] or (not stopped and isinstance(error, NoResult | None))
        follow(events[1:] if stopped else events[1:-1], done)
        assert finished(journal) == done
        if not stopped:
            end = events[-1]
            assert (end.finished, len(end.failed) + len(end.skipped)) == (len(done), len(graph) - len(done))
