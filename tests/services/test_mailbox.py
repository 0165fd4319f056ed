"""The mailbox: messages for those who come later, and publishers that keep theirs in it."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchsystem.depends import Provider
from torchsystem.errors import InvalidOption, InvalidTopic, UnboundInterface
from torchsystem.services import (
    FOREVER,
    UNTIL_END_OF_EPOCH,
    UNTIL_READ,
    Consumer,
    Depends,
    Mailbox,
    Producer,
    Publisher,
    Subscriber,
    background,
    event,
    mailbox,
)


@event
class EpochEnded:
    """An epoch ended."""

    epoch: int = 0


def test_messages_are_read_in_order_of_arrival() -> None:
    """Several messages may lie under one key; keys that are unknown are empty."""
    box = Mailbox()
    box.write("pictures", "loss.png")
    box.write("other", None)
    box.write("pictures", "accuracy.png")
    assert box.read("pictures") == ["loss.png", "accuracy.png"]
    assert box.read("other") == [None]
    assert box.read("unknown") == []


def test_a_lifetime_says_how_long() -> None:
    """By default until the end of the epoch; for ever; or until somebody reads it."""
    box = Mailbox()
    for keep in (UNTIL_END_OF_EPOCH, FOREVER, UNTIL_READ):
        box.write("key", keep, keep)
    box.write("default", 1)
    assert box.read("key") == [UNTIL_END_OF_EPOCH, FOREVER, UNTIL_READ]
    assert box.read("key") == [UNTIL_END_OF_EPOCH, FOREVER]
    assert box.read("default") == box.read("default") == [1]
    box.end_of_epoch()
    assert box.read("key") == [FOREVER]
    assert box.read("default") == []


def test_what_is_unread_outlives_the_epoch() -> None:
    """A message until it is read waits for its reader, however many epochs that takes."""
    box = Mailbox()
    box.write("key", 1, UNTIL_READ)
    box.end_of_epoch()
    assert box.read("key") == [1]


@pytest.mark.parametrize("keep", [FOREVER, UNTIL_END_OF_EPOCH, UNTIL_READ])
def test_overwriting_replaces_all_that_the_key_held(keep: Any) -> None:
    """Whatever the lifetimes, of the old and of the new; other keys are left alone."""
    box = Mailbox()
    for old in (FOREVER, UNTIL_END_OF_EPOCH, UNTIL_READ):
        box.write("key", old, old)
        box.write("other", old, old)
    box.write("key", "new", keep, True)  # noqa: FBT003 - as a keyword it is written elsewhere
    assert box.read("key") == ["new"]
    assert len(box.read("other")) == 3


def test_what_can_be_detached_is_detached_on_entry() -> None:
    """A tensor in the mailbox must not keep its graph alive; classes and everything else stay what they are."""

    class Tensor:
        def __init__(self, data: float) -> None:
            self.data = data

        def detach(self) -> tuple[str, float]:
            return "detached", self.data

    class Odd:
        detach = "not callable"

    box, odd = Mailbox(), Odd()
    for value in (Tensor(0.5), Tensor, odd, 3):
        box.write("key", value)
    assert box.read("key") == [("detached", 0.5), Tensor, odd, 3]


@pytest.mark.parametrize("keep", ["forever", None, True])
def test_unknown_lifetimes_are_refused(keep: Any) -> None:
    """Only the three that there are."""
    with pytest.raises(InvalidOption, match="keep="):
        Mailbox().write("key", 1, keep)


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.sampled_from("ab"),
            st.sampled_from([FOREVER, UNTIL_END_OF_EPOCH, UNTIL_READ]),
            st.booleans(),
        ),
        st.tuples(st.just("read"), st.sampled_from("abc")),
        st.tuples(st.just("end of epoch")),
    ),
    max_size=40,
)


@given(STEPS)
def test_a_mailbox_is_a_list_of_letters(steps: list[Any]) -> None:
    """Against the simplest model: a list of (key, value, lifetime)."""
    box, letters = Mailbox(), []
    for number, (step, *rest) in enumerate(steps):
        if step == "write":
            key, keep, overwrite = rest
            letters = [letter for letter in letters if not (overwrite and letter[0] == key)] + [(key, number, keep)]
            box.write(key, number, keep, overwrite=overwrite)
        elif step == "read":
            assert box.read(rest[0]) == [number for key, number, _ in letters if key == rest[0]]
            letters = [letter for letter in letters if not (letter[0] == rest[0] and letter[2] is UNTIL_READ)]
        else:
            letters = [letter for letter in letters if letter[2] is not UNTIL_END_OF_EPOCH]
            box.end_of_epoch()


def test_nothing_is_read_twice_by_several_threads() -> None:
    """A message until it is read goes to one reader, and none gets lost."""
    box, read = Mailbox(), []

    def work() -> None:
        for number in range(300):
            box.write("key", number, UNTIL_READ)
            read.extend(box.read("key"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read.extend(box.read("key"))
    assert sorted(read) == sorted(4 * list(range(300)))


# two that never met


def plotter() -> Consumer:
    """Return a listener that draws, and leaves the path of its picture."""
    consumer = Consumer("plotter")

    @consumer.handler
    def draw(event: EpochEnded, mailbox: Mailbox = Depends(mailbox)) -> None:
        mailbox.write("pictures", f"loss-{event.epoch}.png")

    return consumer


def mailer(sent: list[list[str]]) -> Consumer:
    """Return a listener that sends what pictures there are."""
    consumer = Consumer("mailer")

    @consumer.handler(order=1)
    def send(_event: EpochEnded, mailbox: Mailbox = Depends(mailbox)) -> None:
        sent.append(mailbox.read("pictures"))

    return consumer


@pytest.mark.parametrize("plotter_first", [True, False])
def test_two_listeners_that_never_met_work_together(*, plotter_first: bool) -> None:
    """In either order of registration; and either can be removed."""
    box, producer, sent = Mailbox(), Producer(), []
    draws, sends = plotter(), mailer(sent)
    for consumer in (draws, sends):
        consumer.dependency_overrides[mailbox] = lambda: box
    producer.register(*((draws, sends) if plotter_first else (sends, draws)))
    producer.dispatch(EpochEnded(1))
    assert sent == [["loss-1.png"]]
    box.end_of_epoch()
    producer.unregister(draws)
    producer.dispatch(EpochEnded(2))
    assert sent == [["loss-1.png"], []]
    producer.register(draws)
    producer.unregister(sends)
    producer.dispatch(EpochEnded(3))
    assert box.read("pictures") == ["loss-3.png"]


def test_listeners_may_share_the_provider_of_the_mailbox() -> None:
    """Bound once, in a provider that all listeners share."""
    box, provider = Mailbox(), Provider()
    provider.dependency_overrides[mailbox] = lambda: box
    consumer = Consumer(provider=provider)

    @consumer.handler
    def write(event: EpochEnded, mailbox: Mailbox = Depends(mailbox)) -> None:
        mailbox.write("epoch", event.epoch)

    consumer.consume(EpochEnded(3))
    assert box.read("epoch") == [3]


def test_a_mailbox_that_nobody_bound_is_named() -> None:
    """A default of one's own would be a mailbox that nobody reads."""
    with pytest.raises(UnboundInterface, match="mailbox"):
        plotter().consume(EpochEnded())


# publishers that keep


def receiving(*topics: str) -> tuple[Subscriber, list[tuple[str, Any]]]:
    """Return a subscriber, and what it receives."""
    subscriber, received = Subscriber(), []

    @subscriber.subscribe(*topics)
    def receive(message: Any, topic: str) -> None:
        received.append((topic, message))

    return subscriber, received


def test_who_comes_late_receives_what_was_kept() -> None:
    """Inside `register`, in order of arrival over all its topics, and nothing else."""
    publisher = Publisher(mailbox=Mailbox())
    publisher.publish(0.5, "train.loss", FOREVER)
    publisher.publish("not kept", "train.loss")
    publisher.publish("other", "other", FOREVER)
    publisher.publish(0.9, "train.accuracy", keep=UNTIL_END_OF_EPOCH)
    publisher.publish(0.4, "train.loss", keep=FOREVER)
    subscriber, received = receiving("train.*")
    publisher.register(subscriber)
    assert received == [("train.loss", 0.5), ("train.accuracy", 0.9), ("train.loss", 0.4)]
    publisher.register(subscriber)
    assert len(received) == 3


def test_who_is_there_hears_at_once() -> None:
    """Keeping changes nothing for those who are plugged in."""
    publisher = Publisher(mailbox=Mailbox())
    subscriber, received = receiving("loss")
    publisher.register(subscriber)
    publisher.publish(0.5, "loss", keep=UNTIL_READ)
    assert received == [("loss", 0.5)]
    publisher.unregister(subscriber)
    publisher.register(subscriber)
    assert received == [("loss", 0.5), ("loss", 0.5)]


def test_there_is_one_store() -> None:
    """What is published can be read in the mailbox under its topic, what is written there is received, all expires."""
    box = Mailbox()
    publisher = Publisher(mailbox=box)
    publisher.publish(0.5, "loss", keep=UNTIL_END_OF_EPOCH)
    publisher.publish(0.4, "loss", keep=FOREVER, overwrite=True)
    assert box.read("loss") == [0.4]
    box.write("accuracy", 0.9)
    box.write(3, "no topic")
    box.write("first", 1, UNTIL_READ)
    subscriber, received = receiving(">")
    publisher.register(subscriber)
    assert received == [("loss", 0.4), ("accuracy", 0.9), ("first", 1)]
    assert box.read("first") == []
    box.end_of_epoch()
    later, received = receiving(">")
    publisher.register(later)
    assert received == [("loss", 0.4)]


def test_keeping_needs_a_mailbox() -> None:
    """A message that is to be kept nowhere would be lost without a word."""
    with pytest.raises(InvalidOption, match=r"Publisher\(mailbox=Mailbox\(\)\)"):
        Publisher().publish(0.5, "loss", keep=FOREVER)
    with pytest.raises(InvalidOption, match="lifetime"):
        Publisher(mailbox=Mailbox()).publish(0.5, "loss", keep="forever")
    with pytest.raises(InvalidTopic):
        Publisher(mailbox=Mailbox()).publish(0.5, "*", keep=FOREVER)


def test_who_cannot_receive_what_was_kept_is_not_registered() -> None:
    """What a subscriber raises then is raised by `register`; options of handlers count there as ever."""
    publisher, subscriber, received = Publisher(mailbox=Mailbox()), Subscriber(), []
    for number in range(4):
        publisher.publish(number, "loss", keep=FOREVER)

    @subscriber.subscribe("loss", every=2)
    def second(value: int) -> None:
        received.append(value)

    publisher.register(subscriber, delivery=background())
    assert received == [1, 3]
    failing = Subscriber()

    @failing.subscribe("loss")
    def fail(value: int) -> None:
        raise ValueError(value)

    with pytest.raises(ValueError, match="0"):
        publisher.register(failing)
    assert publisher.listeners() == [subscriber]
    publisher.close()


def test_nothing_is_missed_nor_heard_twice_by_who_comes_meanwhile() -> None:
    """A subscriber that registers while others publish gets each kept message exactly once."""
    publisher = Publisher(mailbox=Mailbox())
    latecomers: list[list[tuple[str, int]]] = []
    publishing = threading.Event()

    def publish(start: int) -> None:
        for number in range(start, start + 200):
            publisher.publish(number, "numbers", keep=FOREVER)

    def arrive() -> None:
        while publishing.is_set():
            subscriber, received = receiving("numbers")
            publisher.register(subscriber)
            latecomers.append(received)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # let threads get in between wherever they can
    try:
        publishing.set()
        publishers = [threading.Thread(target=publish, args=[start]) for start in (0, 1000)]
        arrivals = threading.Thread(target=arrive)
        for thread in (arrivals, *publishers):
            thread.start()
        for thread in publishers:
            thread.join()
        publishing.clear()
        arrivals.join()
    finally:
        sys.setswitchinterval(interval)
    expected = [*range(200), *range(1000, 1200)]
    for received in latecomers:
        assert sorted(number for _, number in received) == expected


def test_overwriting_without_keeping_is_refused() -> None:
    """Nothing would be replaced, and nobody would notice."""
    publisher = Publisher(mailbox=Mailbox())
    publisher.publish(1, "loss", keep=FOREVER)
    with pytest.raises(InvalidOption, match="keep=FOREVER"):
        publisher.publish(2, "loss", overwrite=True)


def test_a_key_that_cannot_be_one_is_no_unknown_key() -> None:
    """Reading under what can never have been written is a mistake, not an empty list."""
    with pytest.raises(TypeError):
        Mailbox().read(["pictures"])  # type: ignore[arg-type]
