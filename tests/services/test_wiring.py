"""What a producer tells of itself, counts and guards: `Registered`, undelivered events, depth; and races."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from torchsystem.errors import DispatchTooDeep, InvalidEvent, InvalidOption
from torchsystem.services import Consumer, HandlerFailed, Producer, Registered, background, deferred, event, handler


@event
class Ticked:
    """Something happened."""

    number: int = 0


@event
class Tocked:
    """Something else happened."""


# Registered


def test_a_listener_is_told_where_it_was_plugged_in() -> None:
    """`Registered` goes to that listener alone, once, at once, also in the background and before anything else."""
    producer, heard = Producer(), []

    class Prepared(Consumer):
        @handler
        def prepare(self, event: Registered) -> None:
            heard.append((self.name, event.producer, threading.current_thread() is threading.main_thread()))

    first, second = Prepared("first"), Prepared("second")
    producer.register(first)
    producer.register(second, delivery=background())
    producer.register(first, second)
    assert heard == [("first", producer, True), ("second", producer, True)]
    producer.unregister(first)
    producer.register(first)
    assert heard[2:] == [("first", producer, True)]


def test_only_handlers_that_name_it_hear_of_it() -> None:
    """A handler of everything hears what is dispatched; its own wiring is nothing that happened in the run."""
    producer, consumer, heard = Producer(), Consumer(), []

    @consumer.handler
    def on_anything(event: object) -> None:
        heard.append(event)

    @consumer.handler(order=1)
    def second(event: Registered | Ticked) -> None:
        heard.append("second")

    @consumer.handler
    def first(event: Registered) -> None:
        heard.append("first")

    producer.register(consumer)
    assert heard == ["first", "second"]


def test_a_listener_may_prepare_itself_with_the_producer() -> None:
    """It may look around, dispatch, and plug others in."""
    producer, helper, heard = Producer(), Consumer(), []

    @helper.handler
    def on_ticked(event: Ticked) -> None:
        heard.append(event.number)

    class Leading(Consumer):
        @handler
        def prepare(self, event: Registered) -> None:
            assert event.producer.listeners() == [self]
            event.producer.register(helper)
            event.producer.dispatch(Ticked(3))

    producer.register(Leading())
    assert heard == [3]


def test_a_listener_that_cannot_prepare_itself_is_not_registered() -> None:
    """What it raises is raised by `register`, and none of those that came with it stays."""

    class Unprepared(Consumer):
        @handler
        def prepare(self, _event: Registered) -> None:
            raise ValueError

    producer = Producer(failures="finish")
    with pytest.raises(ValueError):  # noqa: PT011 - there is no other
        producer.register(Consumer(), Unprepared())
    assert producer.listeners() == []


# counting what nobody hears


def test_what_nobody_hears_is_counted_by_type() -> None:
    """Asked to, a producer counts undelivered events; those that somebody hears, or could, are not counted."""
    producer, consumer = Producer(count_undelivered=True), Consumer()

    @consumer.handler(every=10)
    def on_ticked(event: Ticked) -> None:
        """Do nothing."""

    producer.register(consumer)
    for _ in range(3):
        producer.dispatch(Ticked())
        producer.dispatch(Tocked())
    producer.dispatch(3)
    assert producer.undelivered == {Tocked: 3, int: 1}
    assert not producer.wants(Tocked)
    assert producer.wants(Ticked)
    producer.unregister(consumer)
    producer.dispatch(Ticked())
    assert producer.undelivered == {Tocked: 3, int: 1, Ticked: 1}


def test_counting_goes_with_every_policy_and_mode() -> None:
    """The count is of events, whatever else is to be done for one that nobody hears."""
    for options in ({}, {"failures": "finish"}, {"max_depth": 3}):
        consumer = Consumer()
        consumer.handler(annotated(Ticked, lambda _event: None))
        with Producer(count_undelivered=True, **options) as producer:
            producer.register(consumer, delivery=background())
            producer.dispatch(Tocked())
            producer.dispatch(Ticked())
        assert producer.undelivered == {Tocked: 1}
        assert not producer.wants(Tocked)


def annotated(kind: type, function: Any) -> Any:
    """Return a function as a handler of a type."""
    function.__annotations__[function.__code__.co_varnames[0]] = kind
    return function


def test_by_default_nothing_is_counted() -> None:
    """Counting costs; nobody pays who did not ask."""
    producer = Producer()
    producer.dispatch(Tocked())
    assert not producer.undelivered


# depth


def test_a_cycle_is_named_when_it_runs_away() -> None:
    """`max_depth=` ends handlers that dispatch each other's events, and says which they are."""
    producer, consumer, heard = Producer(max_depth=7), Consumer(), []

    @consumer.handler
    def begin(event: int) -> None:
        producer.dispatch(Ticked())

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        heard.append(event)
        producer.dispatch(Tocked())

    @consumer.handler
    def on_tocked(event: Tocked) -> None:
        heard.append(event)
        producer.dispatch(Ticked())

    producer.register(consumer)
    with pytest.raises(DispatchTooDeep, match=r"max_depth=7: Ticked → Tocked → Ticked\.") as caught:
        producer.dispatch(3)
    assert isinstance(caught.value, RecursionError)
    assert len(heard) == 6


def test_depth_is_allowed_up_to_the_limit() -> None:
    """Depth counts events within one another, not events after one another; failures leave no trace."""
    producer, consumer, heard = Producer(max_depth=3), Consumer(), []

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        heard.append(event.number)
        if event.number:
            producer.dispatch(Ticked(event.number - 1))
            producer.dispatch(Ticked(event.number - 1))
        else:
            raise ValueError

    producer.register(consumer)
    for _ in range(5):
        with pytest.raises(ValueError):  # noqa: PT011 - there is no other
            producer.dispatch(Ticked(2))
    with pytest.raises(DispatchTooDeep, match="Ticked → Ticked"):
        producer.dispatch(Ticked(3))


def test_a_cycle_through_the_background_is_noticed() -> None:
    """A handler in the background goes on from where the event was dispatched."""
    producer, consumer, heard = Producer(max_depth=5), Consumer(), []

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        heard.append(event)
        producer.dispatch(Ticked())

    producer.register(consumer, delivery=background())
    producer.dispatch(Ticked())
    with pytest.raises(DispatchTooDeep):
        producer.close()


@pytest.mark.parametrize("depth", [0, -1, 1.5, True, "deep"])
def test_a_depth_without_a_meaning_is_refused(depth: Any) -> None:
    """Depths are positive."""
    with pytest.raises(InvalidOption, match="max_depth="):
        Producer(max_depth=depth)


# process managers


def test_a_process_manager_dispatches_what_follows() -> None:
    """Handlers may dispatch from inside to any depth, by every policy, also while a failure is announced."""
    for policy in ("stop", "finish"):
        producer, consumer, heard = Producer(failures=policy), Consumer(), []

        @consumer.handler
        def on_ticked(event: Ticked, producer: Producer = producer) -> None:
            if event.number:
                producer.dispatch(Ticked(event.number - 1))
            else:
                producer.dispatch(Tocked())

        @consumer.handler
        def on_tocked(event: Tocked, heard: list[Any] = heard) -> None:
            heard.append(event)

        producer.register(consumer)
        producer.dispatch(Ticked(50))
        assert heard == [Tocked()]


def test_a_failure_deep_within_is_announced_once_for_each_handler_that_failed() -> None:
    """What an inner dispatch raises is a failure of the handler that dispatched."""
    producer, consumer, failed = Producer(failures="finish"), Consumer(), []

    @consumer.handler
    def outer(event: Ticked) -> None:
        producer.dispatch(Tocked())

    @consumer.handler
    def inner(event: Tocked) -> None:
        raise ValueError

    @consumer.handler
    def on_failed(event: HandlerFailed) -> None:
        failed.append(event.handler)

    producer.register(consumer)
    with pytest.raises(ExceptionGroup) as caught:
        producer.dispatch(Ticked())
    assert failed == [inner, outer]
    assert [type(error) for error in caught.value.exceptions[0].exceptions] == [ValueError]


# races


class Meddling(type):
    """A class of classes whose subclass check runs something else in between: so a race is made to happen."""

    meddle: Any = None

    def __subclasscheck__(cls, subclass: type) -> bool:
        meddle, Meddling.meddle = Meddling.meddle, None
        if meddle is not None:
            meddle()
        return super().__subclasscheck__(subclass)


class Base(metaclass=Meddling):
    """A base that takes its time to say who its subclasses are."""


class Derived(Base):
    """An event."""


def test_a_listener_that_comes_while_a_route_is_looked_for_is_heard_of() -> None:
    """Whoever registers in the middle hears the next event: no outdated route stays in the table."""
    producer, first, second, heard = Producer(), Consumer(), Consumer(), []
    for consumer in (first, second):
        consumer.handler(annotated(Base, lambda _event, consumer=consumer: heard.append(consumer)))
    producer.register(first)
    Meddling.meddle = lambda: producer.register(second)
    producer.dispatch(Derived())
    heard.clear()
    producer.dispatch(Derived())
    assert heard == [first, second]


def test_a_handler_that_comes_while_a_route_is_looked_for_is_heard_of() -> None:
    """The same for a handler that is added in the middle, in a consumer by itself too."""
    consumer, heard = Consumer(), []
    consumer.handler(annotated(Base, lambda _event: heard.append(1)))
    Meddling.meddle = lambda: consumer.handler(annotated(Base, lambda _event: heard.append(2)))
    consumer.consume(Derived())
    heard.clear()
    consumer.consume(Derived())
    assert heard == [1, 2]


def test_listeners_may_come_and_go_in_other_threads() -> None:
    """Threads that register, unregister and dispatch at once disturb nobody: who stays hears every event."""
    producer, stays, count = Producer(), Consumer(), 0
    stays.handler(annotated(Ticked, lambda event: heard.append(event.number)))
    heard: list[int] = []
    producer.register(stays)
    stop = threading.Event()

    def meddle() -> None:
        while not stop.is_set():
            guest = Consumer()
            guest.handler(annotated(Ticked, lambda _event: None))
            with producer.connected(guest):
                producer.wants(Ticked)

    threads = [threading.Thread(target=meddle) for _ in range(3)]
    for thread in threads:
        thread.start()
    for count in range(500):
        producer.dispatch(Ticked(count))
    stop.set()
    for thread in threads:
        thread.join()
    assert heard == list(range(500))
    assert producer.listeners() == [stays]


def test_a_cycle_of_deferred_events_is_named() -> None:
    """How deep events have led is remembered with what is deferred: `flush` ends."""
    producer, consumer = Producer(max_depth=20), Consumer()
    consumer.handler(annotated(Ticked, lambda event: producer.dispatch(Ticked(event.number + 1))))
    producer.register(consumer, delivery=deferred)
    producer.dispatch(Ticked())
    with pytest.raises(DispatchTooDeep, match="Ticked → Ticked"):
        producer.flush()


def test_a_class_is_refused_also_when_somebody_asked_for_classes() -> None:
    """Asking whether anybody wants classes does not make a forgotten pair of parentheses go unnoticed."""
    producer = Producer()
    assert not producer.wants(type)
    with pytest.raises(InvalidEvent, match=r"Ticked\(\.\.\.\)"):
        producer.dispatch(Ticked)


def test_an_interrupt_leaves_no_lock_behind() -> None:
    """Interrupts come where functions begin and end: wherever that is, the next event finds everything free."""
    consumer = Consumer()
    consumer.handler(every=2)(annotated(Ticked, lambda _event: None))
    (gate,) = next(iter(consumer.handlers)).gates
    consumer.consume(Ticked())
    for moment in itertools.count():
        steps = itertools.count()

        def trace(
            _frame: object, what: str, _argument: object, steps: Iterator[int] = steps, moment: int = moment
        ) -> Any:
            if what in {"call", "return"} and next(steps) == moment:
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        try:
            sys.settrace(trace)
            consumer.consume(Ticked())
        except KeyboardInterrupt:
            pass
        else:
            break  # it was over before the moment came
        finally:
            sys.settrace(before)
        assert not gate._guard.lock.locked()  # noqa: SLF001 - who waits for it would wait for ever
    assert moment > 5


def test_who_leaves_while_it_is_welcomed_may_still_fail() -> None:
    """A listener that takes itself out when it comes, and then fails, is heard to have failed."""
    producer, consumer, error = Producer(), Consumer(), ValueError()

    @consumer.handler
    def prepare(event: Registered) -> None:
        event.producer.unregister(consumer)
        raise error

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - it is that very one
        producer.register(consumer)
    assert caught.value is error
    assert producer.listeners() == []
