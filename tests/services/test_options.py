"""Options of a handler: `every`, `when` and `order`, and what a listener remembers for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchsystem.errors import InvalidOption, InvalidState
from torchsystem.progress import Progress
from torchsystem.services import Consumer, Producer, Publisher, Subscriber, event
from torchsystem.triggers import after, at, every, once


@event
class Ticked:
    """Something happened."""

    number: int = 0


@event
class Tocked:
    """Something else happened."""


@event
class BatchEnded:
    """A batch ended."""

    progress: Progress


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def batches(*counts: int) -> list[BatchEnded]:
    """Return the events at the end of these batches, two to an epoch."""
    return [BatchEnded(Progress(epoch=n // 2, batch=n, elapsed=float(n))) for n in counts]


def test_every_is_each_nth_event_of_its_handler() -> None:
    """Two intervals are independent of each other, of other events, and of when other listeners came."""
    producer, consumer, third, fifth = Producer(), Consumer(), [], []

    @consumer.handler(every=3)
    def on_third(event: Ticked) -> None:
        third.append(event.number)

    @consumer.handler(every=5)
    def on_fifth(event: Ticked) -> None:
        fifth.append(event.number)

    producer.register(consumer)
    for number in range(1, 16):
        producer.dispatch(Ticked(number))
        producer.dispatch(Tocked())
        producer.register(Consumer())
    assert third == [3, 6, 9, 12, 15]
    assert fifth == [5, 10, 15]


def test_every_counts_all_events_that_the_handler_hears() -> None:
    """For a union the count goes over all its types together."""
    consumer, heard = Consumer(), []

    @consumer.handler(every=2)
    def on_either(event: Ticked | Tocked) -> None:
        heard.append(event)

    for each in (Ticked(1), Tocked(), Tocked(), Ticked(2), Ticked(3)):
        consumer.consume(each)
    assert heard == [Tocked(), Ticked(2)]


def test_when_decides_before_every_counts() -> None:
    """`every=n` hears each n-th of the events that passed `when`."""
    consumer, heard = Consumer(), []

    @consumer.handler(every=2, when=lambda event: event.number % 3 == 0)
    def on_ticked(event: Ticked) -> None:
        heard.append(event.number)

    for number in range(1, 20):
        consumer.consume(Ticked(number))
    assert heard == [6, 12, 18]


def test_a_handler_called_by_hand_has_no_options() -> None:
    """Options say what reaches the handler; whoever calls it reaches it, and nothing is counted."""
    consumer, heard = Consumer(), []

    @consumer.handler(every=2, when=lambda _event: False)
    def on_ticked(event: Ticked) -> None:
        heard.append(event)

    on_ticked(Ticked(1))
    assert heard == [Ticked(1)]
    assert consumer.state_dict() == {"handlers": {"on_ticked": {"count": 0}}}


def test_order_sorts_all_handlers_of_one_dispatch() -> None:
    """Lower orders come first, over all consumers; ties stay in the order of consumers, then of registration."""
    producer, first, second, heard = Producer(), Consumer(), Consumer(), []
    places = [(first, 1), (first, 0), (first, 0), (second, 0), (second, -1), (second, 1)]
    for index, (consumer, order) in enumerate(places):

        def on_ticked(_event: Ticked, index: int = index) -> None:
            heard.append(index)

        consumer.handler(order=order)(on_ticked)
    producer.register(first, second)
    producer.dispatch(Ticked())
    assert heard == [4, 1, 2, 3, 0, 5]
    heard.clear()
    first.consume(Ticked())
    assert heard == [1, 2, 0]


def test_a_trigger_asks_the_progress_of_events() -> None:
    """`when=every(10, "batches")` fires by what the events say, not by how many there are."""
    consumer, heard = Consumer(), []

    @consumer.handler(when=every(10, "batches") | at(3, "epochs"))
    def on_batch(event: BatchEnded) -> None:
        heard.append(event.progress.batch)

    for each in batches(1, 2, 7, 9, 11, 19, 35, 36):
        consumer.consume(each)
    assert heard == [7, 11, 35]


def test_a_trigger_in_seconds_needs_no_progress() -> None:
    """Where events have no progress the listener's clock tells the seconds, from registration on."""
    clock = Clock()
    consumer, heard = Consumer(clock=clock), []

    @consumer.handler(when=every(seconds=5))
    def on_ticked(event: Ticked) -> None:
        heard.append(event.number)

    for number, seconds in enumerate([1, 4.9, 5, 6, 14, 15, 21]):
        clock.now = 1000 + seconds
        consumer.consume(Ticked(number))
    assert heard == [2, 4, 5, 6]


def test_a_trigger_in_seconds_prefers_the_time_of_the_run() -> None:
    """Where events have progress its seconds count, so that a run may be interrupted."""
    consumer, heard = Consumer(clock=lambda: pytest.fail("the clock was read")), []

    @consumer.handler(when=every(seconds=5))
    def on_batch(event: BatchEnded) -> None:
        heard.append(event.progress.batch)

    for each in batches(1, 4, 5, 6, 11):
        consumer.consume(each)
    assert heard == [5, 11]


def test_once_is_once_per_handler() -> None:
    """`when=once()` hears the first event."""
    consumer, heard = Consumer(), []

    @consumer.handler(when=once())
    def on_ticked(event: Ticked) -> None:
        heard.append(event.number)

    for number in range(3):
        consumer.consume(Ticked(number))
    assert heard == [0]


def test_a_trigger_that_counts_needs_events_with_progress() -> None:
    """Counting batches on events that do not carry their count is refused when it is written, naming the event."""
    with pytest.raises(InvalidOption, match=r"on_ticked .*every\(10, 'batches'\).*Ticked has no progress"):

        @Consumer().handler(when=every(10, "batches"))
        def on_ticked(event: Ticked) -> None:
            """Do nothing."""

    with pytest.raises(InvalidOption, match="Ticked has no progress"):

        @Consumer().handler(when=after(1, "steps"))
        def on_either(event: BatchEnded | Ticked) -> None:
            """Do nothing."""

    with pytest.raises(InvalidOption, match="object has no progress"):

        @Consumer().handler(when=after(1, "steps"))
        def on_anything(event: Any) -> None:
            """Do nothing."""


class Declared:
    """Says that it has progress, and sets it later."""

    progress: Progress


class Computed:
    """Computes its progress."""

    @property
    def progress(self) -> Progress:
        """Return it."""
        return Progress()


@pytest.mark.parametrize("kind", [BatchEnded, Declared, Computed, type("Derived", (Declared,), {})])
def test_progress_may_be_had_in_any_way(kind: type) -> None:
    """A field, an annotation, a property, one's own or inherited: all say that there is progress."""

    def on_event(event: object) -> None:
        """Do nothing."""

    on_event.__annotations__["event"] = kind
    Consumer().handler(when=every(1, "batches"))(on_event)


MEANINGLESS: list[dict[str, Any]] = [
    {"every": 0},
    {"every": -1},
    {"every": 2.5},
    {"every": True},
    {"every": "10"},
    {"every": None},
    {"every": every(10, "batches")},
    {"when": True},
    {"when": "always"},
    {"order": 1.5},
    {"order": None},
    {"order": True},
]


@pytest.mark.parametrize("options", MEANINGLESS, ids=repr)
def test_options_without_a_meaning_are_refused(options: dict[str, Any]) -> None:
    """What is no positive number, no predicate and no trigger is refused, on both kinds of listeners."""
    name, value = next(iter(options.items()))
    for decorate in (Consumer().handler, lambda **given: Subscriber().subscribe("topic", **given)):
        with pytest.raises(InvalidOption) as caught:
            decorate(**options)
        assert f"{name}={value!r}" in str(caught.value)
        assert isinstance(caught.value, ValueError)


def test_a_predicate_that_cannot_answer_is_refused() -> None:
    """An async predicate would be true of everything."""

    async def later(event: Ticked) -> bool:
        """Never answer."""

    with pytest.raises(InvalidOption, match="when="):
        Consumer().handler(when=later)


def test_subscriptions_have_the_same_options() -> None:
    """`every`, `when` and `order` mean for topics what they mean for events, whether the topic is told or not."""
    publisher, subscriber, heard = Publisher(), Subscriber(), []

    @subscriber.subscribe("loss", every=2, when=lambda value: value > 0, order=1)
    def later(value: float, topic: str) -> None:
        heard.append((topic, value))

    @subscriber.subscribe("loss")
    def sooner(value: float) -> None:
        heard.append(value)

    publisher.register(subscriber)
    for value in (1, -1, 2):
        publisher.publish(value, "loss")
    assert heard == [1, -1, 2, ("loss", 2)]


def test_a_trigger_on_topics_asks_the_messages_that_are_declared() -> None:
    """A subscription to events with progress can count by it; where nothing is declared, it cannot."""
    publisher, subscriber, heard = Publisher(), Subscriber(), []

    @subscriber.subscribe("batches", when=every(2, "batches"))
    def on_batch(event: BatchEnded) -> None:
        heard.append(event.progress.batch)

    publisher.register(subscriber)
    for each in batches(1, 2, 3, 4):
        publisher.publish(each, "batches")
    assert heard == [2, 4]
    with pytest.raises(InvalidOption, match="has no progress"):
        subscriber.subscribe("batches", when=every(2, "batches"))(lambda _event: None)


def counting(clock: Clock, heard: list[Any]) -> Consumer:
    """Return a listener with one handler of each kind that remembers something."""
    consumer = Consumer(clock=clock)

    @consumer.handler(every=3)
    def on_third(event: BatchEnded) -> None:
        heard.append(("third", event.progress.batch))

    @consumer.handler(every=2, when=lambda event: event.progress.batch % 3 != 0)
    def on_some(event: BatchEnded) -> None:
        heard.append(("some", event.progress.batch))

    @consumer.handler(when=every(7, "batches") | once())
    def on_seventh(event: BatchEnded) -> None:
        heard.append(("seventh", event.progress.batch))

    @consumer.handler(every=2, when=every(2, "epochs"))
    def on_epoch(event: BatchEnded) -> None:
        heard.append(("epoch", event.progress.batch))

    @consumer.handler(when=lambda event: event.progress.batch == 4)
    def on_fourth(event: BatchEnded) -> None:
        heard.append(("fourth", event.progress.batch))

    return consumer


@given(strides=st.lists(st.integers(1, 4), max_size=40), data=st.data())
def test_firings_do_not_depend_on_where_a_run_was_cut(strides: list[int], data: st.DataObject) -> None:
    """A run that is cut anywhere, any number of times, its state saved as JSON, hears what an uncut one hears."""
    run = batches(*(sum(strides[: index + 1]) for index in range(len(strides))))
    cuts = data.draw(st.sets(st.integers(0, len(run))))
    whole, pieces = [], []
    consumer = counting(Clock(), whole)
    for each in run:
        consumer.consume(each)
    consumer = counting(Clock(), pieces)
    for index, each in enumerate(run):
        if index in cuts:
            state = json.loads(json.dumps(consumer.state_dict()))
            consumer = counting(Clock(), pieces)
            consumer.load_state_dict(state)
        consumer.consume(each)
    assert pieces == whole


def test_seconds_between_two_runs_do_not_count() -> None:
    """A clock goes on while a run is interrupted; its trigger does not."""
    clock = Clock()

    def make(heard: list[int]) -> Consumer:
        consumer = Consumer(clock=clock)

        @consumer.handler(when=every(seconds=5))
        def on_ticked(event: Ticked) -> None:
            heard.append(event.number)

        return consumer

    heard: list[int] = []
    consumer = make(heard)
    clock.now += 4
    consumer.consume(Ticked(1))
    state = consumer.state_dict()
    clock.now += 3600
    consumer = make(heard)
    consumer.load_state_dict(state)
    consumer.consume(Ticked(2))
    assert heard == []
    clock.now += 1
    consumer.consume(Ticked(3))
    assert heard == [3]


def test_a_listener_that_counts_nothing_has_an_empty_state() -> None:
    """Where nothing is remembered nothing is saved, and the empty state can be loaded."""
    consumer = Consumer()

    @consumer.handler(when=lambda _event: True)
    def on_ticked(event: Ticked) -> None:
        """Do nothing."""

    assert consumer.state_dict() == {"handlers": {}}
    consumer.load_state_dict(consumer.state_dict())


def test_handlers_of_one_name_remember_for_themselves() -> None:
    """Functions that are all called `_` are told apart by their order."""
    consumer, heard = Consumer(), []
    for interval in (2, 3):

        @consumer.handler(every=interval)
        def _(event: Ticked, interval: int = interval) -> None:
            heard.append((interval, event.number))

    consumer.consume(Ticked(1))
    assert consumer.state_dict() == {"handlers": {"_": {"count": 1}, "_#2": {"count": 1}}}
    consumer.load_state_dict({"handlers": {"_": {"count": 1}, "_#2": {"count": 2}}})
    consumer.consume(Ticked(2))
    assert heard == [(2, 2), (3, 2)]


def test_the_state_of_another_listener_is_refused() -> None:
    """What is missing, one too many, or of another kind is named, and nothing is changed."""

    def make(**handlers: Callable[[Consumer], Any]) -> Consumer:
        consumer = Consumer()
        for name, decorate in handlers.items():

            def on_batch(event: BatchEnded) -> None:
                """Do nothing."""

            on_batch.__name__ = name
            decorate(consumer)(on_batch)
        return consumer

    def counted(consumer: Consumer) -> Any:
        return consumer.handler(every=2)

    def triggered(consumer: Consumer) -> Any:
        return consumer.handler(when=every(2, "batches"))

    consumer = make(a=counted, b=counted)
    state = consumer.state_dict()
    with pytest.raises(InvalidState, match=r"Missing: c \(count\)\. Unexpected: b \(count\)\."):
        make(a=counted, c=counted).load_state_dict(state)
    with pytest.raises(InvalidState, match=r"Missing: b \(progress\)\. Unexpected: b \(count\)\."):
        make(a=counted, b=triggered).load_state_dict(state)


@pytest.mark.parametrize("when", [lambda: True, lambda event, other: True, 3], ids=["none", "two", "no function"])  # noqa: ARG005
def test_a_predicate_that_cannot_take_the_event_is_refused(when: Any) -> None:
    """It is known where the handler is defined, and not first when an event comes."""
    with pytest.raises(InvalidOption, match="when"):
        Consumer().handler(when=when)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"count": 3},
        {"handlers": {"on_ticked": {"count": "3"}, "other": {"progress": None}}},
        {"handlers": {"on_ticked": {"count": 1}, "other": {"progress": {"batch": 3, "unknown": 1}}}},
    ],
)
def test_what_is_no_state_changes_nothing(given: Any) -> None:
    """A state that is malformed is refused as such, and whatever of it could be read is not taken either."""

    @event
    class BatchEnded:
        progress: Progress

    consumer = Consumer()

    @consumer.handler(every=5)
    def on_ticked(event: Ticked) -> None: ...

    @consumer.handler(when=every(3, "batches"))
    def other(event: BatchEnded) -> None: ...

    consumer.consume(Ticked())
    consumer.consume(Ticked())
    before = consumer.state_dict()
    with pytest.raises(InvalidState):
        consumer.load_state_dict(given)
    assert consumer.state_dict() == before


def test_a_trigger_that_counts_needs_progress_in_a_protocol_as_well() -> None:
    """A subscriber that annotates its messages by what they have is asked whether they have progress."""

    @runtime_checkable
    class HasLoss(Protocol):
        loss: float

    with pytest.raises(InvalidOption, match="has no progress"):

        @Subscriber().subscribe("batch", when=every(2, "batches"))
        def on_batch(message: HasLoss) -> None: ...
