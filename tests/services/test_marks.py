"""Listener classes: consumers whose marked methods are their handlers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from torchsystem.errors import InvalidHandler, InvalidOption, UnroutableAnnotation
from torchsystem.services import Consumer, Depends, Producer, event, handler


@event
class Trained:
    """A model was trained."""

    epoch: int = 0


@event
class Fitted(Trained):
    """A kind of training."""


@event
class Validated:
    """A model was validated."""


class Listener(Consumer):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        super().__init__()

    @handler
    def on_trained(self, event: Trained) -> None:
        """Note training."""
        self.heard.append(event)

    @handler(every=2)
    def on_second(self, event: Trained) -> None:
        """Note each second training."""
        self.heard.append(("second", event.epoch))

    @handler(order=-1)
    def on_validated(self, event: Validated | Fitted) -> None:
        """Note validation, before all else."""
        self.heard.append(("first", event))

    def unmarked(self, _event: Trained) -> None:
        """Note nothing."""
        self.heard.append("never")


def test_marked_methods_are_handlers_of_each_instance() -> None:
    """Instances hear, count and remember each for itself; what is not marked is left alone."""
    producer, one, other = Producer(), Listener(), Listener()
    producer.register(one)
    producer.dispatch(Trained(1))
    producer.register(other)
    producer.dispatch(Fitted(2))
    assert one.heard == [Trained(1), ("first", Fitted(2)), Fitted(2), ("second", 2)]
    assert other.heard == [("first", Fitted(2)), Fitted(2)]
    assert one.state_dict() == {"handlers": {"on_second": {"count": 2}}}


def test_a_marked_method_is_still_a_method() -> None:
    """By hand it works as it was written, on the class and on the instance, with its name and doc."""
    listener = Listener()
    listener.on_trained(Trained(1))
    Listener.on_trained(listener, Trained(2))
    assert listener.heard == [Trained(1), Trained(2)]
    assert listener.on_trained.__name__ == "on_trained"
    assert Listener.on_trained.__doc__ == "Note training."


def writer() -> str:
    """Say where to write to; an interface."""


class Writer(Consumer):
    """Writes to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    @handler
    def on_trained(self, event: Trained, writer: str = Depends(writer)) -> str:
        """Write."""
        self.written.append(f"{event.epoch} to {writer}")
        return self.written[-1]


def test_methods_are_injected_per_instance() -> None:
    """Each listener has its own provider, for events and for calls by hand."""
    producer, one, other = Producer(), Writer(), Writer()
    one.dependency_overrides[writer] = lambda: "disk"
    other.dependency_overrides[writer] = lambda: "paper"
    producer.register(one, other)
    producer.dispatch(Trained(3))
    assert (one.written, other.written) == (["3 to disk"], ["3 to paper"])
    assert one.on_trained(Trained(4)) == "4 to disk"
    assert other.on_trained(Trained(4), writer="wall") == "4 to wall"


def test_a_method_that_overrides_a_handler_takes_its_place() -> None:
    """As with any method: marked or not, once, at the same place; by None it is left out."""

    class Derived(Listener):
        def on_trained(self, event: Trained) -> None:
            self.heard.append("derived")
            super().on_trained(event)

        @handler(every=3)
        def on_second(self, _event: Trained) -> None:
            self.heard.append("third")

        on_validated = None

        @handler
        def on_more(self, _event: Fitted) -> None:
            self.heard.append("more")

    listener = Derived()
    for epoch in range(3):
        listener.consume(Fitted(epoch))
    expected = []
    for epoch in range(3):
        expected += ["derived", Fitted(epoch), *(["third"] if epoch == 2 else []), "more"]
    assert listener.heard == expected


def test_an_override_may_listen_to_something_else() -> None:
    """The annotation that counts is that of the method which is called."""

    class Derived(Listener):
        def on_trained(self, _event: Validated) -> None:
            self.heard.append("validated")

    listener = Derived()
    listener.consume(Validated())
    listener.consume(Trained())
    assert listener.heard == [("first", Validated()), "validated"]


def test_marks_may_come_from_mixins_and_stand_under_static_methods() -> None:
    """A mixin need not be a consumer; a static method is called without an instance."""
    heard: list[object] = []

    class Mixin:
        @handler
        def on_trained(self, event: Trained) -> None:
            heard.append((self, event))

    class Mixed(Mixin, Consumer):
        @staticmethod
        @handler
        def on_validated(event: Validated) -> None:
            heard.append(event)

    mixed = Mixed()
    mixed.consume(Trained())
    mixed.consume(Validated())
    assert heard == [(mixed, Trained()), Validated()]


def make_local() -> type[Consumer]:
    """Return a listener class whose events nobody else can name."""

    @event
    class Local:
        pass

    class Listens(Consumer):
        kind = Local
        heard = 0

        @handler
        def on_local(self, _event: Local) -> None:
            self.heard += 1

    return Listens


def test_annotations_are_resolved_where_the_class_is_written() -> None:
    """Events that are local to the function which defines the class are known long after it has returned."""
    listener = make_local()()
    listener.consume(listener.kind())
    assert listener.heard == 1


def test_bound_methods_can_be_handlers() -> None:
    """A constructor may register methods itself, when options depend on its arguments."""

    class Interval(Consumer):
        def __init__(self, every: int) -> None:
            super().__init__()
            self.heard: list[int] = []
            self.handler(every=every)(self.on_trained)

        def on_trained(self, event: Trained) -> None:
            self.heard.append(event.epoch)

    second, third = Interval(2), Interval(3)
    for epoch in range(1, 7):
        second.consume(Trained(epoch))
        third.consume(Trained(epoch))
    assert (second.heard, third.heard) == ([2, 4, 6], [3, 6])


def test_mistakes_are_found_at_the_earliest_moment() -> None:
    """Options and functions when they are written, annotations at the latest when an instance is made."""
    with pytest.raises(InvalidOption):
        handler(every=0)
    with pytest.raises(InvalidHandler, match=r"no method.*@consumer\.handler"):

        @handler
        def on_trained(event: Trained) -> None:
            """Do nothing."""

    with pytest.raises(InvalidHandler, match="no method"):
        handler(partial(print))

    class Silent(Consumer):
        @handler
        def on_trained(self, event) -> None:  # noqa: ANN001
            """Do nothing."""

    class Generating(Consumer):
        @handler
        def on_trained(self, _event: Trained) -> Iterator[None]:
            yield

    with pytest.raises(UnroutableAnnotation, match="on_trained"):
        Silent()
    with pytest.raises(InvalidHandler, match="generator"):
        Generating()
