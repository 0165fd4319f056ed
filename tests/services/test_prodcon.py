"""Producers and consumers: plugging in and out, dispatching, and events by name."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchsystem.errors import (
    AmbiguousEvent,
    InvalidEvent,
    InvalidListener,
    UnknownEvent,
    UnknownListener,
)
from torchsystem.services import Consumer, Depends, Producer, Subscriber, event
from torchsystem.services.delivery import MOST_ROUTES


@event
class Trained:
    """A model was trained."""

    epoch: int = 0


@event
class Validated:
    """A model was validated."""

    loss: float = 0.0


def listener(heard: list[Any], mark: object) -> Consumer:
    """Return a consumer that notes its mark whenever it hears of training."""
    consumer = Consumer()

    @consumer.handler
    def on_trained(_event: Trained) -> None:
        heard.append(mark)

    return consumer


def test_handlers_hear_in_the_order_of_consumers_then_of_registration() -> None:
    """The first consumer's first handler is called first, whatever the order of annotations or names."""
    producer, heard = Producer(), []
    first, second = listener(heard, "first"), listener(heard, "second")

    @first.handler
    def on_anything(_event: object) -> None:
        heard.append("first again")

    producer.register(first, second)
    producer.dispatch(Trained())
    assert heard == ["first", "first again", "second"]


def test_a_handler_is_injected_however_it_is_called() -> None:
    """Dispatched, consumed or called by hand, for a class or a union: the dependencies are made."""

    def writer() -> str:
        """Say where to write to; an interface."""

    consumer, producer, heard = Consumer(), Producer(), []

    @consumer.handler
    def on_either(event: Trained | Validated, writer: str = Depends(writer)) -> str:
        heard.append(writer)
        return f"{event} to {writer}"

    producer.register(consumer)
    consumer.dependency_overrides[writer] = lambda: "disk"
    producer.dispatch(Trained())
    consumer.consume(Validated())
    assert on_either(Trained(3)) == "Trained(epoch=3) to disk"
    assert on_either(Trained(3), writer="paper") == "Trained(epoch=3) to paper"
    assert heard == ["disk", "disk", "disk", "paper"]


def test_stopping_passes_through_an_open_dependency() -> None:
    """`StopIteration` from a handler ends the dispatch as itself; the generator dependency sees it, and is closed."""
    seen: list[object] = []

    def session() -> Iterator[str]:
        try:
            yield "open"
        except BaseException as error:
            seen.append(error)
            raise
        finally:
            seen.append("closed")

    consumer, producer = Consumer(), Producer()

    @consumer.handler
    def on_trained(event: Trained, _session: str = Depends(session)) -> None:
        raise StopIteration(event.epoch)

    producer.register(consumer)
    with pytest.raises(StopIteration) as caught:
        producer.dispatch(Trained(3))
    assert caught.value.value == 3
    assert seen == [caught.value, "closed"]


def test_an_exception_ends_the_dispatch_at_once() -> None:
    """By default those after the handler that failed do not hear the event; the next event goes to all again."""
    consumer, producer, heard = Consumer(), Producer(), []

    @consumer.handler
    def on_trained(event: Trained) -> None:
        if event.epoch == 0:
            raise ValueError(event)

    producer.register(consumer, listener(heard, "second"))
    with pytest.raises(ValueError, match="epoch=0"):
        producer.dispatch(Trained(0))
    assert heard == []
    producer.dispatch(Trained(1))
    assert heard == ["second"]


def test_falsy_and_unhashable_events_are_events() -> None:
    """An event is told by its type alone: zero, the empty, and what has no hash are delivered."""
    consumer, producer, heard = Consumer(), Producer(), []

    @consumer.handler
    def on_value(event: int | list | None) -> None:
        heard.append(event)

    producer.register(consumer)
    for value in (0, [], None):
        producer.dispatch(value)
    assert heard == [0, [], None]


def test_an_unheard_event_is_no_error() -> None:
    """Nobody has to listen."""
    producer = Producer()
    producer.dispatch(Trained())
    Consumer().consume(Trained())
    assert not producer.wants(Trained)


def test_dispatching_the_class_of_an_event_is_refused() -> None:
    """`dispatch(Trained)` would be heard by nobody, silently; who does listen to classes gets them."""
    consumer, producer, heard = Consumer(), Producer(), []
    producer.register(consumer)
    for _ in range(2):
        with pytest.raises(InvalidEvent, match=r"Write Trained\(\.\.\.\)"):
            producer.dispatch(Trained)

    @consumer.handler
    def on_class(event: type) -> None:
        heard.append(event)

    producer.dispatch(Trained)
    assert heard == [Trained]


def test_the_same_consumer_twice_is_one_listener() -> None:
    """Registering again changes nothing, not even the order."""
    producer, heard = Producer(), []
    first, second = listener(heard, 1), listener(heard, 2)
    producer.register(first, second, first)
    producer.register(first)
    producer.dispatch(Trained())
    assert heard == [1, 2]
    assert producer.listeners() == [first, second]


def test_consumers_are_told_apart_by_identity() -> None:
    """Two consumers that call themselves equal are two listeners."""

    class Equal(Consumer):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None

    producer, first, second = Producer(), Equal(), Equal()
    producer.register(first, second)
    producer.unregister(second)
    assert [id(listener) for listener in producer.listeners()] == [id(first)]


def test_consumers_come_and_go_at_any_time() -> None:
    """Registering, unregistering and adding handlers take effect at the next event, however often it was sent."""
    producer, heard = Producer(), []
    first, second = listener(heard, 1), listener(heard, 2)
    producer.dispatch(Trained())
    producer.register(first)
    producer.dispatch(Trained())
    producer.register(second)
    producer.dispatch(Trained())
    producer.unregister(first)
    producer.dispatch(Trained())

    @second.handler
    def on_trained(_event: Trained) -> None:
        heard.append("new")

    producer.dispatch(Trained())
    assert heard == [1, 1, 2, 2, 2, "new"]


def test_registering_during_a_dispatch_leaves_it_alone() -> None:
    """Who comes in a handler hears from the next event on; who is taken out in one still hears this one."""
    producer, consumer, heard = Producer(), Consumer(), []
    newcomer, leaver = listener(heard, "newcomer"), listener(heard, "leaver")

    @consumer.handler
    def on_trained(event: Trained) -> None:
        if event.epoch == 0:
            producer.register(newcomer)
            producer.unregister(leaver)

    producer.register(consumer, leaver)
    producer.dispatch(Trained(0))
    assert heard == ["leaver"]
    producer.dispatch(Trained(1))
    assert heard == ["leaver", "newcomer"]


def test_a_handler_may_dispatch() -> None:
    """A process manager hears one event and produces another, which is delivered before it returns."""
    producer, consumer, heard = Producer(), Consumer(), []

    @consumer.handler
    def on_trained(event: Trained) -> None:
        producer.dispatch(Validated(float(event.epoch)))
        heard.append("trained")

    @consumer.handler
    def on_validated(event: Validated) -> None:
        heard.append(event)

    producer.register(consumer)
    producer.dispatch(Trained(3))
    assert heard == [Validated(3.0), "trained"]


def test_connected_is_for_a_while() -> None:
    """A `with` block takes its consumers out at the end, on errors too, and leaves alone who was there before."""
    producer, heard = Producer(), []
    resident, guest = listener(heard, "resident"), listener(heard, "guest")
    producer.register(resident)
    with suppress(ZeroDivisionError), producer.connected(resident, guest):
        producer.dispatch(Trained())
        1 / 0  # noqa: B018
    producer.dispatch(Trained())
    assert heard == ["resident", "guest", "resident"]
    with producer.connected(guest):
        producer.unregister(guest)
    assert producer.listeners() == [resident]


def test_what_cannot_listen_is_refused_with_the_way_out() -> None:
    """Handing over a class, a function, a subscriber or a half-made consumer is refused, and registers nobody."""

    class Unfinished(Consumer):
        def __init__(self) -> None:
            pass

    producer, consumer = Producer(), Consumer()
    mistakes: list[tuple[Any, str]] = [
        (Consumer, r"Register an instance: Consumer\(\)"),
        (print, "Register it with a Consumer"),
        (Subscriber(), "Register a Consumer"),
        (None, "Register a Consumer"),
        (Unfinished.__new__(Unfinished), r"Call super\(\).__init__\(\) in .*Unfinished.__init__"),
    ]
    for mistake, remedy in mistakes:
        with pytest.raises(InvalidListener, match=remedy):
            producer.register(consumer, mistake)
    assert producer.listeners() == []


def test_taking_out_a_stranger_is_refused() -> None:
    """Unregistering who is not registered is a mistake, and takes out nobody."""
    producer, consumer = Producer(), Consumer("plots")
    producer.register(consumer)
    with pytest.raises(UnknownListener, match=r"Consumer\('logs'\)"):
        producer.unregister(consumer, Consumer("logs"))
    assert producer.listeners() == [consumer]


def test_a_consumer_with_a_consume_of_its_own_gets_everything() -> None:
    """Overriding `consume` is honoured: the producer does not reach past it."""
    heard: list[object] = []

    class Recorder(Consumer):
        def consume(self, event: object, /) -> None:
            heard.append(event)

    producer = Producer()
    producer.register(Recorder())
    producer.dispatch(Trained())
    producer.dispatch(3)
    assert heard == [Trained(), 3]


def test_a_consumer_can_be_plugged_into_several_producers() -> None:
    """A handler added later is heard of in all of them."""
    first, second, consumer, heard = Producer(), Producer(), Consumer(), []
    for producer in (first, second):
        producer.register(consumer)
        producer.dispatch(Trained())

    @consumer.handler
    def on_trained(_event: Trained) -> None:
        heard.append("heard")

    first.dispatch(Trained())
    second.dispatch(Trained())
    assert heard == ["heard", "heard"]


def test_a_consumer_does_not_keep_its_producers_alive() -> None:
    """A consumer outlives the producers that it was plugged into."""
    producer, consumer = Producer(), listener([], None)
    producer.register(consumer)
    producer.dispatch(Trained())
    reference = weakref.ref(producer)
    del producer
    gc.collect()
    assert reference() is None


def test_wants_spares_building_what_nobody_hears() -> None:
    """`wants` follows inheritance, and who comes and goes."""

    @event
    class Fitted(Trained):
        pass

    producer, consumer = Producer(), listener([], None)
    assert not producer.wants(Fitted)
    with producer.connected(consumer):
        assert producer.wants(Fitted)
        assert producer.wants(Trained)
        assert not producer.wants(Validated)
    assert not producer.wants(Fitted)


def test_routes_are_bounded() -> None:
    """Types that are made without end do not fill the memory, and are heard all the same."""
    producer, heard = Producer(), []
    producer.register(listener(heard, "heard"))
    for index in range(MOST_ROUTES + 10):
        producer.dispatch(type(f"Trained{index}", (Trained,), {})())
    assert len(heard) == MOST_ROUTES + 10
    assert len(producer._table.routes) <= MOST_ROUTES  # noqa: SLF001 - the table is what is bounded


def test_an_event_can_be_produced_by_name() -> None:
    """Declared types, and those that registered consumers listen to, are built by name and dispatched."""
    producer, consumer, heard = Producer(), Consumer(), []

    @producer.event
    class BatchEnded:
        index: int
        loss: float = 0.0

    @consumer.handler
    def on_event(event: BatchEnded | Trained) -> None:
        heard.append(event)

    with pytest.raises(UnknownEvent, match="'trained'"):
        producer.produce("trained", 3)
    producer.register(consumer)
    produced = producer.produce("batch-ended", 3, loss=0.5)
    assert produced is heard[0]
    producer.produce("batch_ended", 4)
    producer.produce("Trained", epoch=5)
    assert heard == [BatchEnded(3, 0.5), BatchEnded(4), Trained(5)]


def test_declaring_makes_a_class_an_event() -> None:
    """`@producer.event` makes a plain class an event, and takes one that is a dataclass already as it is."""
    producer = Producer()

    @producer.event
    class Saved:
        path: str

    @dataclass(frozen=True)
    class Loaded:
        path: str

    assert not hasattr(producer.produce("saved", "here"), "__dict__")
    assert producer.event(Loaded) is Loaded
    assert producer.event(Trained) is Trained
    assert producer.produce("loaded", "here") == Loaded("here")


def test_an_unknown_name_says_what_is_near() -> None:
    """A name that no type has is a `KeyError` that names what was probably meant."""
    producer = Producer()
    producer.event(Trained)
    with pytest.raises(KeyError) as caught:
        producer.produce("trianed")
    assert str(caught.value) == "No event is called 'trianed'. Did you mean 'trained'?"


def test_producing_what_nobody_hears_is_no_error() -> None:
    """A declared type may be produced unheard; the event comes back all the same."""
    producer = Producer()
    producer.event(Trained)
    assert producer.produce("trained", 3) == Trained(3)


def test_a_name_that_means_two_types_is_refused() -> None:
    """Two types of one name live side by side, but `produce` cannot know which is meant, and names both modules."""
    producer = Producer()
    theirs = type("Trained", (), {"__module__": "theirs.events"})
    producer.event(Trained)
    producer.event(theirs)
    with pytest.raises(AmbiguousEvent, match=rf"{__name__}.Trained and theirs.events.Trained"):
        producer.produce("trained")


def test_another_generator_gives_events_another_spelling() -> None:
    """`generator=` spells the names of types; the name of the class is understood all the same."""
    producer = Producer(generator=str.upper)
    producer.event(Trained)
    assert producer.produce("TRAINED", 3) == producer.produce("Trained", 3) == Trained(3)


# Against a model: whatever is registered, added, taken out and dispatched in whatever order, what is heard is what a
# producer without any table would deliver.
TYPES = [Trained, Validated, type("Fitted", (Trained,), {}), type("Both", (), {})]
STEPS = st.one_of(
    st.tuples(st.just("register"), st.integers(0, 3)),
    st.tuples(st.just("unregister"), st.integers(0, 3)),
    st.tuples(st.just("handle"), st.integers(0, 3), st.sampled_from(TYPES)),
    st.tuples(st.just("dispatch"), st.sampled_from(TYPES)),
)


@given(st.lists(STEPS, max_size=40))
def test_what_is_heard_is_what_a_producer_without_a_table_delivers(steps: list[Any]) -> None:
    """The table of routes is never outdated, and never changes the order."""
    producer, consumers, heard = Producer(), [Consumer() for _ in range(4)], []
    plugged: list[int] = []
    handlers: dict[int, list[tuple[int, type]]] = {index: [] for index in range(4)}
    for number, (action, *rest) in enumerate(steps):
        if action == "register":
            producer.register(consumers[rest[0]])
            plugged += [] if rest[0] in plugged else rest
        elif action == "unregister" and rest[0] in plugged:
            producer.unregister(consumers[rest[0]])
            plugged.remove(rest[0])
        elif action == "handle":

            def handler(_event: Any, number: int = number) -> None:
                heard.append(number)

            handler.__annotations__["_event"] = rest[1]
            consumers[rest[0]].handler(handler)
            handlers[rest[0]].append((number, rest[1]))
        elif action == "dispatch":
            expected = [each for index in plugged for each, kind in handlers[index] if issubclass(rest[0], kind)]
            assert producer.wants(rest[0]) == bool(expected)
            heard.clear()
            producer.dispatch(rest[0]())
            assert heard == expected


class Named(NamedTuple):
    """An event that is a tuple."""

    loss: float


class Loud(Exception):
    """An event that is an exception."""


class Handmade:
    """An event with a constructor of its own."""

    def __init__(self, loss: float) -> None:
        self.loss = loss


@pytest.mark.parametrize("kind", [Named, Loud, Handmade])
def test_declaring_a_type_leaves_its_constructor_alone(kind: type) -> None:
    """A type that is constructed in a way of its own stays the very type that it is, and is heard when produced."""
    producer, consumer, heard = Producer(), Consumer(), []
    assert producer.event(kind) is kind

    @consumer.handler
    def on_event(event: Named | Loud | Handmade) -> None:
        heard.append(event)

    producer.register(consumer)
    made = producer.produce(kind.__name__, 0.5)
    assert type(made) is kind
    assert heard == [made]
    assert producer.produce(kind.__name__, 0.5) is heard[1]


def test_declaring_a_type_of_a_protocol_makes_it_an_event() -> None:
    """A protocol constructs nothing: who derives from one only declares fields."""

    class HasLoss(Protocol):
        loss: float

    producer = Producer()

    @producer.event
    class Measured(HasLoss):
        loss: float

    assert producer.produce("measured", 0.5) == Measured(0.5)
