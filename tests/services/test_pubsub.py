"""Publishers and subscribers: messages find their handlers by topic."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest

from torchsystem.errors import InvalidHandler, InvalidListener, InvalidTopic
from torchsystem.services import Consumer, Depends, Publisher, Subscriber, handler
from torchsystem.services.delivery import MOST_ROUTES


def note(heard: list[Any], *topics: str) -> Subscriber:
    """Return a subscriber that notes what is published to some topics."""
    subscriber = Subscriber()
    subscriber.subscribe(*topics)(heard.append)
    return subscriber


def test_a_message_reaches_those_who_subscribed_to_its_topic() -> None:
    """Topics are told apart exactly, and subscribers are served in order of registration."""
    publisher, heard, others = Publisher(), [], []
    publisher.register(note(heard, "loss"), note(heard, "accuracy", "loss"), note(others, "lossy"))
    publisher.publish(0.5, "loss")
    assert heard == [0.5, 0.5]
    publisher.publish(0.9, "accuracy")
    assert heard == [0.5, 0.5, 0.9]
    assert others == []


def test_a_message_is_heard_once_however_many_topics_match() -> None:
    """A handler of overlapping topics is called once per message."""
    publisher, heard = Publisher(), []
    publisher.register(note(heard, "train.loss", "*.loss", "train.*", ">"))
    publisher.publish(0.5, "train.loss")
    assert heard == [0.5]


def test_a_handler_is_injected_however_it_is_called() -> None:
    """Published, received or called by hand: the dependencies are made."""

    def writer() -> str:
        """Say where to write to; an interface."""

    publisher, subscriber, heard = Publisher(), Subscriber(), []

    @subscriber.subscribe("loss", "accuracy")
    def store(value: float, writer: str = Depends(writer)) -> str:
        heard.append(f"{value} to {writer}")
        return heard[-1]

    subscriber.dependency_overrides[writer] = lambda: "disk"
    publisher.register(subscriber)
    publisher.publish(0.5, "loss")
    subscriber.receive(0.9, "accuracy")
    assert heard == ["0.5 to disk", "0.9 to disk"]
    assert store(0.1) == "0.1 to disk"
    assert store.__name__ == "store"


def test_a_handler_that_wants_to_know_the_topic_is_told() -> None:
    """A parameter called `topic` gets it, when published and when received; the message comes first all the same."""
    publisher, subscriber, heard = Publisher(), Subscriber(), []

    @subscriber.subscribe("*.loss")
    def by_name(value: float, topic: str) -> None:
        heard.append((value, topic))

    @subscriber.subscribe("*.loss")
    def keyword_only(value: float, *, topic: str = "") -> None:
        heard.append((value, topic))

    @subscriber.subscribe("*.loss")
    def message_of_that_name(topic: float) -> None:
        heard.append(topic)

    publisher.register(subscriber)
    publisher.publish(0.5, "train.loss")
    assert heard == [(0.5, "train.loss"), (0.5, "train.loss"), 0.5]
    heard.clear()
    subscriber.receive(0.25, "test.loss")
    assert heard == [(0.25, "test.loss"), (0.25, "test.loss"), 0.25]


def test_any_message_is_a_message() -> None:
    """None, zero and the empty are delivered."""
    publisher, heard = Publisher(), []
    publisher.register(note(heard, "anything"))
    for message in (None, 0, [], ""):
        publisher.publish(message, "anything")
    assert heard == [None, 0, [], ""]


def test_topics_may_be_members_of_an_enumeration() -> None:
    """A `StrEnum` keeps a vocabulary of topics in one place."""

    class Topic(StrEnum):
        LOSS = "loss"

    publisher, heard = Publisher(), []
    publisher.register(note(heard, Topic.LOSS))
    publisher.publish(1, "loss")
    publisher.publish(2, Topic.LOSS)
    assert heard == [1, 2]


# Which of the topics are heard by which subscription.
TOPICS = ["loss", "train.loss", "train/loss", "train.loss.mean", "train/layer.3", "train/layer/3", "a+b.loss"]
HEARD = {
    "loss": ["loss"],
    "train.loss": ["train.loss"],
    "train/loss": ["train/loss"],
    "*": ["loss"],
    "*.loss": ["train.loss", "a+b.loss"],
    "*/loss": ["train/loss"],
    "train.*": ["train.loss"],
    "train.*.mean": ["train.loss.mean"],
    "*.*": ["train.loss", "a+b.loss"],
    "train.>": ["train.loss", "train.loss.mean"],
    "train/>": ["train/loss", "train/layer.3", "train/layer/3"],
    "train/*.>": ["train/layer.3"],
    ">": TOPICS,
    "a+b.*": ["a+b.loss"],
    "a.loss": [],
}


@pytest.mark.parametrize(("subscribed", "expected"), HEARD.items(), ids=HEARD)
def test_wildcards_stand_for_words(subscribed: str, expected: list[str]) -> None:
    """`*` is one word, `>` at the end one or more; separators differ from one another; all else is literal."""
    publisher, subscriber, heard = Publisher(), Subscriber(), []

    @subscriber.subscribe(subscribed)
    def on_message(_message: object, topic: str) -> None:
        heard.append(topic)

    publisher.register(subscriber)
    for topic in TOPICS:
        publisher.publish(None, topic)
    assert heard == expected


MALFORMED = ["", "train..loss", ".loss", "train/", "train./loss", "lo*s", "**", ">.loss", "a>b", 3, None]


@pytest.mark.parametrize("topic", MALFORMED)
def test_malformed_topics_are_refused_on_both_sides(topic: Any) -> None:
    """What could never meet its counterpart is refused where it is written."""
    with pytest.raises(InvalidTopic):
        Subscriber().subscribe(topic)
    with pytest.raises(InvalidTopic):
        Publisher().publish(None, topic)


@pytest.mark.parametrize("topic", ["*", "train.*", ">", "train/>"])
def test_publishing_to_wildcards_is_refused(topic: str) -> None:
    """A message has one topic, every time it is tried."""
    publisher = Publisher()
    publisher.register(note([], ">"))
    for _ in range(2):
        with pytest.raises(InvalidTopic, match="wildcards are for those who subscribe"):
            publisher.publish(None, topic)


def test_subscribing_needs_topics() -> None:
    """No topic, or the decorator without its parentheses, is refused."""
    with pytest.raises(InvalidTopic, match="There is no topic"):
        Subscriber().subscribe()
    with pytest.raises(InvalidTopic, match="no topic"):

        @Subscriber().subscribe
        def on_message(message: object) -> None:
            """Do nothing."""


def test_a_function_that_cannot_take_a_message_is_refused() -> None:
    """What would fail at the first message, or silently do nothing, is refused when it is registered."""
    subscriber = Subscriber()
    with pytest.raises(InvalidHandler):
        subscriber.subscribe("loss")(lambda: None)
    with pytest.raises(InvalidHandler, match="'step'"):
        subscriber.subscribe("loss")(lambda _value, step: step)

    with pytest.raises(InvalidHandler, match="async"):

        @subscriber.subscribe("loss")
        async def on_loss(value: float) -> None:
            """Do nothing."""


def test_only_subscribers_listen_to_a_publisher() -> None:
    """A consumer is refused by name."""
    with pytest.raises(InvalidListener, match="Register a Subscriber"):
        Publisher().register(Consumer())


def test_subscribers_come_and_go_at_any_time() -> None:
    """Registering, unregistering and subscribing take effect at the next message."""
    publisher, heard = Publisher(), []
    first = note(heard, "loss")
    publisher.publish(1, "loss")
    publisher.register(first, first)
    publisher.publish(2, "loss")
    first.subscribe("*")(lambda value: heard.append(-value))
    publisher.publish(3, "loss")
    publisher.unregister(first)
    publisher.publish(4, "loss")
    with publisher.connected(first):
        assert publisher.listeners() == [first]
        publisher.publish(5, "loss")
    assert heard == [2, 3, -3, 5, -5]


def test_a_subscriber_with_a_receive_of_its_own_gets_everything() -> None:
    """Overriding `receive` is honoured: the publisher does not reach past it."""
    heard: list[object] = []

    class Recorder(Subscriber):
        def receive(self, message: object, topic: str) -> None:
            heard.append((message, topic))

    publisher = Publisher()
    publisher.register(Recorder())
    publisher.publish(0.5, "train.loss")
    assert heard == [(0.5, "train.loss")]


def test_an_exception_ends_the_publication_at_once() -> None:
    """`StopIteration` from a subscriber reaches the publisher's caller as itself: so training is stopped."""
    publisher, subscriber, heard = Publisher(), Subscriber(), []

    @subscriber.subscribe("accuracy")
    def stop(value: float) -> None:
        if value > 0.99:
            raise StopIteration

    publisher.register(subscriber, note(heard, "accuracy"))
    publisher.publish(0.5, "accuracy")
    with pytest.raises(StopIteration):
        publisher.publish(0.995, "accuracy")
    assert heard == [0.5]


def test_routes_are_bounded() -> None:
    """Topics that are invented without end do not fill the memory, and are heard all the same."""
    publisher, heard = Publisher(), []
    publisher.register(note(heard, ">"))
    for index in range(MOST_ROUTES + 10):
        publisher.publish(index, f"layer.{index}")
    assert heard == list(range(MOST_ROUTES + 10))
    assert len(publisher._table.routes) <= MOST_ROUTES  # noqa: SLF001 - the table is what is bounded


@pytest.mark.parametrize("topic", [{"loss": 1}, ["loss"], 0.5, None])
def test_arguments_in_the_wrong_order_are_named(topic: Any) -> None:
    """A topic that is no string is refused as such, also if it cannot be looked for in a table."""
    with pytest.raises(InvalidTopic, match="is no topic"):
        Publisher().publish("loss", topic)
    with pytest.raises(InvalidTopic, match="is no topic"):
        Subscriber().receive("loss", topic)


def test_a_method_marked_for_consumers_is_refused() -> None:
    """`@handler` in a subscriber would never be looked at."""
    with pytest.raises(InvalidHandler, match=r"on_loss .*self\.subscribe"):

        class Plotter(Subscriber):
            @handler
            def on_loss(self, value: float) -> None: ...


def test_a_function_in_place_of_topics_is_refused() -> None:
    """`@subscriber.subscribe` without topics says how to write it."""
    with pytest.raises(InvalidTopic, match=r"@subscribe\('loss'\)"):
        Subscriber().subscribe(print)  # type: ignore[arg-type]
