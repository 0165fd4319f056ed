"""Crashes at every point, and at random ones, in plans of any shape."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plans.fakes import Calls, Crash, Crashing, expected
from torchsystem.plans import MemoryJournal, Retry

GRAPH: list[list[int]] = [[], [0], [], [1, 2]]


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    """Draw plans in which each step comes after any of those before it."""
    size = draw(st.integers(1, 8))
    return [sorted(draw(st.sets(st.integers(0, number - 1), max_size=3))) if number else [] for number in range(size)]


def lives(graph: list[list[int]], journal: MemoryJournal, *, after: bool) -> list[tuple[list[int], set[int]]]:
    """Crash a plan at its first transaction, its second in the next life, and so on until it gets through.

    Returns:
        Of each life what was done, and what had been finished before.
    """
    found: list[tuple[list[int], set[int]]] = []
    for at in count(1):
        calls = Calls()
        before = {record.position or 0 for record in journal.records("graph") if record.state == "finished"}
        try:
            result = calls.plan(graph).run(Crashing(journal, at, after=after))
        except Crash:
            found.append((calls.made, before))
        else:
            assert result == expected(graph)[-1]
            return [*found, (calls.made, before)]
    raise AssertionError


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 14))
def test_a_crash_at_any_transaction_loses_and_repeats_nothing_that_was_finished(at: int, *, after: bool) -> None:
    """Before or after it is durable: the next run does the step under way again, and none that was finished."""
    journal, first, second = MemoryJournal(), Calls(), Calls()
    try:
        first.plan(GRAPH).run(Crashing(journal, at, after=after))
    except Crash:
        pass
    else:
        assert at >= 12  # a lease, what is known, what is planned, two for each step, and the lease given back
    finished = {record.position for record in journal.records("graph") if record.state == "finished"}
    assert second.plan(GRAPH).run(journal) == expected(GRAPH)[-1]
    assert first.made[: len(finished)] == sorted(finished)
    assert len(first.made) - len(finished) in {0, 1}
    assert second.made == [number for number in range(len(GRAPH)) if number not in finished]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_plan_gets_through_however_often_it_crashes(*, after: bool) -> None:
    """Life after life, each a transaction longer than the last: no finished step is done again."""
    journal = MemoryJournal()
    for done, before in lives(GRAPH, journal, after=after):
        assert not before.intersection(done)
    records = journal.records("graph")
    assert [record.state for record in records] == ["finished"] * len(GRAPH)


@given(graphs(), st.data())
def test_any_plan_gets_through_any_crashes_and_failures(graph: list[list[int]], data: st.DataObject) -> None:
    """Each result is once in the journal, and right; each step is done after those that it refers to."""
    journal = MemoryJournal()
    finished: set[int] = set()
    for _ in range(data.draw(st.integers(0, 6), "crashes")):
        calls = Calls()
        for number in data.draw(st.sets(st.sampled_from(range(len(graph)))), "failing"):
            calls.behaviour[number] = fail
        transactions = data.draw(st.integers(1, 2 * len(graph) + 4), "transactions")
        crashing = Crashing(journal, transactions, after=data.draw(st.booleans(), "after"))
        policy: Any = data.draw(st.sampled_from(["stop", "skip", Retry(1, wait=0)]), "failures")
        with suppress(Crash, RuntimeError):  # of a failing step, or for want of a result
            calls.plan(graph).run(crashing, failures=policy)
        assert not finished.intersection(calls.made)
        for number in set(calls.made):
            done = {*finished, *calls.made[: calls.made.index(number)]}
            assert done.issuperset(graph[number])
        finished = {record.position or 0 for record in journal.records("graph") if record.state == "finished"}
    last = Calls()
    assert last.plan(graph).run(journal) == expected(graph)[-1]
    assert last.made == [number for number in range(len(graph)) if number not in finished]
    records = journal.records("graph")
    plan = last.plan(graph)
    assert [plan.run(journal, result=step) for step in steps_of(plan)] == expected(graph)
    assert len(records) == len(graph)


@given(graphs(), st.sets(st.integers(0, 7)), st.integers(1, 4))
def test_in_parallel_the_references_are_respected(graph: list[list[int]], failing: set[int], threads: int) -> None:
    """Nothing begins before what it refers to is done, in any interleaving; failures do not change that."""
    journal, calls = MemoryJournal(), Calls()
    for number in failing:
        calls.behaviour[number] = fail
    try:
        calls.plan(graph).run(journal, executor=lambda: ThreadPoolExecutor(threads))
    except RuntimeError:
        assert failing
    calls.behaviour.clear()
    assert calls.plan(graph).run(journal, executor=lambda: ThreadPoolExecutor(threads)) == expected(graph)[-1]
    for number, after in enumerate(graph):
        assert all(calls.made.index(one) < calls.made.index(number) for one in after)
        assert calls.made.count(number) == 1 or number in failing


def fail() -> None:
    """Fail, as a step may."""
    raise RuntimeError("a step")


def steps_of(plan: Any) -> list[Any]:
    """Return references to all steps of a plan."""
    from torchsystem.plans import Reference  # noqa: PLC0415

    return [Reference(plan, number, "work") for number in range(len(plan))]
