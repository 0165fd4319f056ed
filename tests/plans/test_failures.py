"""Failing steps: the plan stops, the step is run again, or it is skipped, and it is told."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.plans.fakes import Calls, Clock, expected, heard
from torchsystem.errors import InvalidPlan, NoResult
from torchsystem.plans import MemoryJournal, PlanFinished, Retry, StepFailed
from torchsystem.services import Consumer

EXECUTORS = pytest.mark.parametrize("executor", [None, lambda: ThreadPoolExecutor(2)], ids=["here", "threads"])


def failing(times: float, error: type[BaseException] = LookupError) -> Any:
    """Return what fails so many times."""
    count = 0

    def fail() -> None:
        nonlocal count
        count += 1
        if count <= times:
            raise error(f"time {count}")

    return fail


@EXECUTORS
def test_a_failing_step_stops_the_plan(executor: Any) -> None:
    """Its exception is raised as itself, with the step named; the next run tries it again, and nothing before it."""
    calls, journal = Calls(), MemoryJournal()
    calls.behaviour[1] = failing(1)
    plan = calls.plan([[], [0], [1]])
    events = heard(plan)
    with pytest.raises(LookupError, match="time 1") as caught:
        plan.run(journal, executor=executor)
    assert caught.value.__notes__ == ["step work/1 of plan 'graph' failed, in attempt 1 of this run"]
    assert journal.records("graph")[1].error == "LookupError: time 1"
    assert events[-1] == StepFailed("graph", "work/1", "work", caught.value, 1, "stop")
    assert plan.run(journal, executor=executor) == expected([[], [0], [1]])[-1]
    assert calls.made == [0, 1, 1, 2]


@EXECUTORS
def test_a_step_is_run_again_after_longer_and_longer_waits(executor: Any) -> None:
    """Until it succeeds; each failure is told."""
    calls, clock = Calls(), Clock()
    calls.behaviour[0] = failing(3)
    plan = calls.plan([[], [0]], clock=clock, sleep=clock.sleep)
    events = heard(plan)
    result = plan.run(MemoryJournal(), executor=executor, failures=Retry(3, wait=0.25, factor=2, most=0.9))
    assert result == expected([[], [0]])[-1]
    assert clock.slept == pytest.approx([0.25, 0.5, 0.9])
    failures = [event for event in events if isinstance(event, StepFailed)]
    assert [(event.attempt, event.then) for event in failures] == [(1, "retry"), (2, "retry"), (3, "retry")]


def test_a_long_wait_is_interrupted_to_look_after_the_lease() -> None:
    """A runner that waits for an hour still learns in time that another has taken over."""
    calls, clock = Calls(), Clock()
    calls.behaviour[0] = failing(1)
    plan = calls.plan([[]], clock=clock, sleep=clock.sleep)
    plan.run(MemoryJournal(), failures=Retry(1, wait=10))
    assert sum(clock.slept) == 10
    assert max(clock.slept) <= 1


def test_when_no_retry_is_left_the_plan_stops_or_goes_on() -> None:
    """As `then` says."""
    calls, clock = Calls(), Clock()
    calls.behaviour[0] = failing(math.inf)
    plan = calls.plan([[], []], clock=clock, sleep=clock.sleep)
    with pytest.raises(LookupError, match="time 3"):
        plan.run(MemoryJournal(), failures=Retry(2, wait=0))
    assert calls.made == [0, 0, 0]
    assert plan.run(MemoryJournal(), failures=Retry(2, wait=0, then="skip")) == {"number": 1, "sum": 1}


def test_a_failure_that_no_wait_mends_is_not_tried_again() -> None:
    """`on` says after which exceptions it is worth it."""
    calls = Calls()
    calls.behaviour[0] = failing(math.inf)
    with pytest.raises(LookupError, match="time 1"):
        calls.plan([[]]).run(MemoryJournal(), failures=Retry(5, on=(OSError, ValueError)))


@EXECUTORS
def test_a_skipped_step_is_told_and_what_refers_to_it_is_not_done(executor: Any) -> None:
    """The rest is; the next run tries again what is left."""
    calls, journal = Calls(), MemoryJournal()
    calls.behaviour[0] = failing(1)
    graph = [[], [0], [1], []]
    plan = calls.plan(graph)
    events = heard(plan)
    assert plan.run(journal, executor=executor, failures="skip") == {"number": 3, "sum": 3}
    assert sorted(calls.made) == [0, 3]
    assert events[-1] == PlanFinished("graph", {"number": 3, "sum": 3}, 1, ("work/0",), ("work/1", "work/2"))
    plan.run(journal, executor=executor)
    assert sorted(calls.made) == [0, 0, 1, 2, 3]


def test_a_result_that_a_skipped_step_withholds_is_an_error() -> None:
    """None in its place would be taken for a result; the failed step is named."""
    calls = Calls()
    calls.behaviour[0] = failing(math.inf)
    plan = calls.plan([[], [], [0, 1]])
    with pytest.raises(NoResult, match=r"work/2 of plan 'graph' has no result: work/0 failed and was skipped"):
        plan.run(MemoryJournal(), failures="skip")
    assert calls.made == [0, 1]


def test_what_happens_is_said_by_action() -> None:
    """An action that is not mentioned stops."""
    calls = Calls()
    calls.behaviour[0] = failing(math.inf)
    plan = calls.plan([[], []])
    assert plan.run(MemoryJournal(), failures={"work": "skip"}) == {"number": 1, "sum": 1}
    with pytest.raises(LookupError):
        plan.run(MemoryJournal(), failures={})


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_failure(error: type[BaseException]) -> None:
    """It is raised at once, nothing is tried again, and the step counts as interrupted."""
    calls, journal = Calls(), MemoryJournal()
    calls.behaviour[0] = failing(1, error)
    plan = calls.plan([[], []])
    with pytest.raises(error):
        plan.run(journal, failures=Retry(5, then="skip"))
    assert journal.records("graph")[0].state == "started"
    assert "interrupted" in plan.show()
    assert plan.run(journal) == {"number": 1, "sum": 1}
    assert calls.made == [0, 0, 1]


def test_a_stop_that_is_asked_for_is_a_failure_like_any() -> None:
    """`StopIteration` and `GeneratorExit` get through as themselves."""
    calls = Calls()
    calls.behaviour[0] = failing(1, StopIteration)
    with pytest.raises(StopIteration):
        calls.plan([[]]).run(MemoryJournal())


@pytest.mark.parametrize(
    "options",
    [
        {"times": 0},
        {"times": True},
        {"then": ["stop"]},
        {"on": ()},
        {"wait": -1},
        {"factor": 0.5},
        {"most": math.inf},
        {"then": "go on"},
        {"on": KeyboardInterrupt},
    ],
    ids=str,
)
def test_a_retry_that_has_no_meaning_is_refused(options: dict[str, Any]) -> None:
    """When it is made."""
    with pytest.raises(InvalidPlan, match=f"{next(iter(options))} has no meaning"):
        Retry(**{"times": 1, **options})


def test_waits_stay_below_the_longest_however_many_there_are() -> None:
    """Also where the number would be too large to write."""
    assert Retry(10**6, wait=1, factor=10, most=60).delay(10**6) == 60


def test_a_listener_that_fails_does_not_hide_why_the_step_did() -> None:
    """Its exception ends the run, and says what it was told of."""
    calls, listener = Calls(), Consumer()

    @listener.handler
    def tell(event: StepFailed) -> None:
        raise ConnectionError("nobody to tell")

    calls.behaviour[0] = lambda: 1 / 0
    plan = calls.plan([[]])
    with plan.producer.connected(listener), pytest.raises(ConnectionError) as caught:
        plan.run(MemoryJournal())
    assert any("step work/0 had failed with ZeroDivisionError" in note for note in caught.value.__notes__)


def test_a_clock_that_is_set_back_makes_no_step_wait_longer() -> None:
    """By an hour, in the middle of the wait; and by a minute while the step is tried again."""
    calls, clock = Calls(), Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 2:
            clock.now -= 3600

    fail = failing(2)

    def fail_later() -> None:
        clock.now -= 60
        fail()

    calls.behaviour[0] = fail_later
    plan = calls.plan([[]], clock=clock, sleep=sleep)
    assert plan.run(MemoryJournal(), failures=Retry(5, wait=4, factor=1)) == expected([[]])[0]
    assert sum(clock.slept) <= 9
