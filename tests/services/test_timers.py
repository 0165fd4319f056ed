"""Timers: events that are due by the clock, handed out when somebody asks."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchsystem.errors import InvalidOption
from torchsystem.services import Consumer, Elapsed, Producer, Timers


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_nothing_happens_unless_somebody_polls() -> None:
    """An interval that is over is handed out at the next poll, once."""
    clock = Clock()
    timers = Timers(10, clock=clock)
    assert timers.poll() == []
    clock.now += 9.9
    assert timers.poll() == []
    clock.now += 0.1
    assert timers.poll() == [Elapsed(10)]
    assert timers.poll() == []


def test_an_interval_that_was_missed_is_handed_out_once() -> None:
    """Polling late hands out one event, and the rhythm stays."""
    clock = Clock()
    timers = Timers(10, clock=clock)
    clock.now += 35
    assert timers.poll() == [Elapsed(10)]
    clock.now += 4
    assert timers.poll() == []
    clock.now += 1
    assert timers.poll() == [Elapsed(10)]


def test_several_intervals_come_in_the_order_in_which_they_were_due() -> None:
    """Each in its own rhythm; one that is added later counts from then; adding it twice changes nothing."""
    clock = Clock()
    timers = Timers(60, clock=clock)
    clock.now += 5
    timers.every(10)
    clock.now += 5
    timers.every(10)
    assert timers.poll() == []
    clock.now += 5
    assert timers.poll() == [Elapsed(10)]
    clock.now += 45
    assert timers.poll() == [Elapsed(10), Elapsed(60)]


def test_elapsed_is_an_event_like_any_other() -> None:
    """A loop dispatches what it polls; whoever wants an interval tells it by its seconds."""
    clock, producer, consumer, heard = Clock(), Producer(), Consumer(), []
    timers = Timers(1, 60, clock=clock)

    @consumer.handler(when=lambda event: event.seconds == 60)
    def each_minute(event: Elapsed) -> None:
        heard.append(event)

    producer.register(consumer)
    for _ in range(120):
        clock.now += 1
        for elapsed in timers.poll():
            producer.dispatch(elapsed)
    assert heard == [Elapsed(60), Elapsed(60)]


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, True, "10", None])
def test_what_is_no_interval_is_refused(seconds: Any) -> None:
    """Intervals are positive and finite."""
    with pytest.raises(InvalidOption, match="interval"):
        Timers(seconds)
    with pytest.raises(InvalidOption, match="interval"):
        Timers().every(seconds)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 20))
def test_polling_hands_out_an_interval_exactly_when_it_was_crossed(strides: list[int], interval: int) -> None:
    """However polls fall, an interval is handed out at the first poll after each of its ends, once for all of them."""
    clock = Clock()
    timers, before = Timers(interval, clock=clock), 0
    for stride in strides:
        clock.now += stride
        now = before + stride
        assert timers.poll() == ([Elapsed(interval)] if now // interval > before // interval else [])
        before = now


@pytest.mark.parametrize("interval", [0.1, 0.3, 1e-3])
def test_rounding_hands_nothing_out_twice(interval: float) -> None:
    """Who polls twice at one moment gets nothing the second time, also where fractions of seconds cannot be exact."""
    clock = Clock()
    clock.now = 0.0
    timers = Timers(interval, clock=clock)
    for number in range(2000):
        clock.now = number * interval
        timers.poll()
        assert timers.poll() == []
