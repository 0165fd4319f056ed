"""Triggers: when something fires, told from the progress before and the progress now."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchsystem.errors import InvalidTrigger
from torchsystem.progress import Progress
from torchsystem.triggers import Trigger, after, at, every, once


def firings(trigger: Trigger, run: list[Progress]) -> list[int]:
    """Return at which points of a run, asked at each of them, a trigger fires."""
    return [i for i, now in enumerate(run) if trigger(run[i - 1] if i else None, now)]


def batches(count: int) -> list[Progress]:
    """Return the progress at the end of each of the first batches: a step every two, four to an epoch."""
    return [
        Progress(epoch=n // 4, batch=n, batch_in_epoch=n % 4, step=n // 2, samples=32 * n, elapsed=0.25 * n)
        for n in range(1, count + 1)
    ]


def at_batches(trigger: Trigger, count: int = 24) -> list[int]:
    """Return after which batches a trigger fires in a run of so many."""
    return [index + 1 for index in firings(trigger, batches(count))]


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (every(10, "batches"), [10, 20]),
        (every(5, "steps"), [10, 20]),
        (every(2, "epochs"), [8, 16, 24]),
        (every(256, "samples"), [8, 16, 24]),
        (every(seconds=3), [12, 24]),
        (every(1, "batches"), [*range(1, 25)]),
        (at(3, "batches"), [3]),
        (at(3, "epochs"), [12]),
        (at(seconds=1.1), [5]),
        (after(11, "steps"), [22, 23, 24]),
        (after(5, "epochs"), [20, 21, 22, 23, 24]),
        (once(), [1]),
        (every(10, "batches") | at(3, "epochs"), [10, 12, 20]),
        (every(2, "batches") & after(5, "epochs"), [20, 22, 24]),
        (every(2, "batches") & after(5, "epochs") | once(), [1, 20, 22, 24]),
        (once() & after(5, "epochs"), [20]),
        (every(10, "batches") & once(), [10]),
        (once() & (every(10, "batches") | at(2, "epochs")), [8]),
    ],
    ids=repr,
)
def test_a_trigger_fires_where_it_says(trigger: Trigger, expected: list[int]) -> None:
    """Each trigger and each combination fires at these batches, and at no others."""
    assert at_batches(trigger) == expected


@pytest.mark.parametrize(("size", "expected"), [(3, [12, 21, 30]), (7, [14, 21]), (25, [25])])
def test_a_trigger_that_is_asked_rarely_fires_as_soon_as_it_is_asked(size: int, expected: list[int]) -> None:
    """An interval that ends between two questions is not lost, and several that end there fire once."""
    asked = batches(30)[size - 1 :: size]
    assert [asked[i].batch for i in firings(every(10, "batches"), asked)] == expected


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 12), st.data())
def test_asking_less_often_never_loses_a_firing(strides: list[int], interval: int, data: st.DataObject) -> None:
    """Over a longer stretch a trigger fires exactly if it fires somewhere in it."""
    batch, run = 0, [Progress()]
    for stride in strides:
        batch += stride
        run.append(Progress(batch=batch))
    start = data.draw(st.integers(0, len(run) - 1))
    stop = data.draw(st.integers(start, len(run) - 1))
    for trigger in (every(interval, "batches"), at(interval, "batches")):
        parts = [trigger(run[i], run[i + 1]) for i in range(start, stop)]
        assert trigger(run[start], run[stop]) == any(parts)


def test_the_first_question_counts_from_the_beginning() -> None:
    """Whoever asks for the first time has missed nothing: an interval that is over fires."""
    assert every(10, "batches")(None, Progress(batch=10))
    assert every(30, "batches")(None, Progress(batch=100))
    assert not every(30, "batches")(None, Progress(batch=29))
    assert at(3, "epochs")(None, Progress(epoch=5))


def test_a_new_run_begins_anew() -> None:
    """When the present lies before the past, a new run has begun, and its intervals count from its beginning."""
    assert every(30, "batches")(Progress(batch=500), Progress(batch=100))
    assert not every(30, "batches")(Progress(batch=500), Progress(batch=29))
    assert at(10, "batches")(Progress(batch=500), Progress(batch=10))


def test_a_trigger_says_whether_it_counts() -> None:
    """Only what counts batches, steps, epochs or samples needs to see the progress of a run."""
    assert every(1, "batches").counts
    assert (every(seconds=1) | at(1, "samples")).counts
    assert (once() & after(1, "steps")).counts
    assert not (every(seconds=1) & after(seconds=60) | once()).counts


def test_triggers_are_values() -> None:
    """They compare by what they say, show it as it was written, and can be copied and pickled."""
    assert once() & once() == once()
    trigger = every(10, "batches") & after(100, "steps") | once()
    assert trigger == every(10, "batches") & after(100, "steps") | once() != every(11, "batches")
    assert copy.deepcopy(trigger) == pickle.loads(pickle.dumps(trigger)) == trigger  # noqa: S301
    assert repr(trigger) == "((every(10, 'batches') & after(100, 'steps')) | once())"
    assert repr(once() & at(seconds=0.5)) == "(once() & at(seconds=0.5))"


MISTAKES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((0, "batches"), {}),
    ((-1, "batches"), {}),
    ((2.5, "batches"), {}),
    ((True, "batches"), {}),
    (("10", "batches"), {}),
    ((10, "batch"), {}),
    ((10, "seconds"), {}),
    ((10, ["batches"]), {}),
    ((10,), {}),
    ((), {}),
    ((10, "batches"), {"seconds": 5}),
    ((), {"seconds": 0}),
    ((), {"seconds": -1}),
    ((), {"seconds": math.inf}),
    ((), {"seconds": math.nan}),
    ((), {"seconds": True}),
    ((), {"seconds": "5"}),
]


@pytest.mark.parametrize("make", [every, at, after])
@pytest.mark.parametrize(("args", "kwargs"), MISTAKES, ids=repr)
def test_what_is_no_positive_amount_of_a_unit_is_refused(make: Any, args: Any, kwargs: Any) -> None:
    """Zero, negatives, fractions of a batch and unknown units are refused, showing what was written."""
    with pytest.raises(InvalidTrigger, match=make.__name__):
        make(*args, **kwargs)
    assert issubclass(InvalidTrigger, ValueError)


def test_triggers_combine_with_triggers_only() -> None:
    """A predicate is no trigger; `once()` goes with one trigger, because nobody could tell what it would mean."""
    for combine in (lambda a, b: a | b, lambda a, b: a & b):
        with pytest.raises(InvalidTrigger, match="predicate"):
            combine(every(1, "batches"), lambda _event: True)
        with pytest.raises(InvalidTrigger, match="predicate"):
            combine(once(), lambda _event: True)
    with pytest.raises(InvalidTrigger, match="at\\(amount, unit\\)"):
        once() & (every(10, "batches") & after(2, "steps"))
    with pytest.raises(InvalidTrigger, match="at\\(amount, unit\\)"):
        once() & every(10, "batches") & after(2, "steps")
