"""Timers and messages in a run: handed out between two batches, and let go of when an epoch is over."""

from __future__ import annotations

import pytest
from torch import Tensor

from tests.training.fakes import Clock, Learner, loader, names, written
from torchsystem.services import FOREVER, UNTIL_READ, Consumer, Depends, Elapsed, Mailbox, Producer, Timers, mailbox
from torchsystem.training import Training, batches, device, epochs
from torchsystem.training.events import (
    BatchEnded,
    BatchStarted,
    EpochEnded,
    EpochStarted,
    ProcessStarted,
    Trained,
    TrainingEnded,
    Validated,
)


def run(clock: Clock, timers: Timers, *, in_batch: float = 0.0, own: bool = False) -> list[str]:
    """Run two epochs in which each batch takes its time, in the ready-made loop or one's own; return what is told."""
    heard: list[str] = []
    consumer = Consumer("hearing")

    @consumer.handler
    def hear(event: Elapsed | BatchEnded | Trained | Validated | EpochEnded | TrainingEnded) -> None:
        heard.append(f"{event.seconds:g}" if isinstance(event, Elapsed) else type(event).__name__)

    @consumer.handler(order=-1)
    def pass_time(event: BatchStarted) -> None:
        clock.now += in_batch

    splits = {"train": loader(), "validation": loader(2)}
    if own:
        producer = Producer(failures="finish")
        producer.register(consumer)
        model = Learner()
        for epoch in epochs(model, producer, epochs=2, timers=timers, clock=clock):
            model.phase = "train"
            for batch in batches(epoch, splits["train"]):
                model.fit(*batch)
            epoch.report("train", {"loss": 0.0})
            for _ in batches(epoch, splits["validation"], split="validation"):
                pass
            epoch.report("validation", {"loss": 0.0})
        return heard
    training = Training(timers=timers, clock=clock)
    training.override(device, lambda: "cpu")
    training.producer.register(consumer)
    training.handle("fit", Learner(), splits, epochs=2)
    return heard


END = ["Trained", "Validated", "EpochEnded"]


@pytest.mark.parametrize("own", [False, True])
def test_timers_are_handed_out_between_two_batches(own: bool) -> None:  # noqa: FBT001
    """After the batch in which they were due, and once however often that was; in any loop."""
    clock = Clock()
    timers = Timers(2, 10, clock=clock)
    told = run(clock, timers, in_batch=3, own=own)
    first = ["BatchEnded", "2", "BatchEnded", "2", "BatchEnded", "2", *END]
    second = ["BatchEnded", "2", "10", "BatchEnded", "2", "BatchEnded", "2", *END]
    assert told == [*first, *second, "TrainingEnded"]


def test_timers_that_are_not_due_are_not_heard_of() -> None:
    """And a timer changes nothing else."""
    clock = Clock()
    assert run(clock, Timers(100, clock=clock), in_batch=3) == run(clock, Timers(clock=clock), in_batch=3)


def test_timers_are_handed_out_in_a_validation_and_after_the_facts_of_an_epoch() -> None:
    """Wherever nothing is under way."""
    clock = Clock()
    training = Training(timers=Timers(5, clock=clock))
    training.override(device, lambda: "cpu")

    class Slow(Learner):
        def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            clock.now += 5
            return super().evaluate(inputs, targets)

    log: list[str] = []
    consumer = Consumer()

    @consumer.handler
    def hear(event: Elapsed | Validated | EpochEnded | TrainingEnded) -> None:
        log.append(type(event).__name__)
        if isinstance(event, EpochEnded):
            clock.now += 5

    training.producer.register(consumer)
    training.handle("fit", Slow(), {"train": loader(), "validation": loader(2)}, epochs=1)
    assert log == ["Elapsed", "Elapsed", "Validated", "EpochEnded", "Elapsed", "TrainingEnded"]


def test_a_stop_that_a_timer_leads_to_is_a_stop() -> None:
    """It takes effect when the facts of the epoch are out, as any other."""
    clock = Clock()
    training = Training(timers=Timers(1, clock=clock))
    training.override(device, lambda: "cpu")
    consumer = Consumer()

    @consumer.handler
    def tick(event: Elapsed) -> None:
        raise StopIteration("time for the train")

    @consumer.handler
    def pass_time(event: BatchStarted) -> None:
        clock.now += 1

    training.producer.register(consumer)
    log = written(training.producer)
    training.handle("fit", Learner(), {"train": loader()}, epochs=9)
    assert names(log)[-2:] == ["EpochEnded", "TrainingEnded"]
    assert log[-1].reason == "time for the train"


def read(box: Mailbox, training: Training) -> list[str]:
    """Run two epochs, leave a message at the end of each batch, and look what is there at each moment."""
    seen: list[str] = []
    writing, reading = Consumer("writing"), Consumer("reading")

    @writing.handler
    def write(event: BatchEnded | EpochEnded | TrainingEnded, to: Mailbox = Depends(mailbox)) -> None:
        to.write("epoch", type(event).__name__)

    @writing.handler
    def write_for_good(event: ProcessStarted, to: Mailbox = Depends(mailbox)) -> None:
        to.write("forever", "kept", FOREVER)
        to.write("once", "read me", UNTIL_READ)
        to.write("epoch", "from the beginning")

    @reading.handler(order=1)
    def look(event: EpochStarted | EpochEnded | TrainingEnded, at: Mailbox = Depends(mailbox)) -> None:
        seen.append(f"{type(event).__name__}: {len(at.read('epoch'))}, {len(at.read('forever'))}")

    for consumer in (writing, reading):
        consumer.dependency_overrides[mailbox] = lambda: box
        training.producer.register(consumer)
    training.handle("fit", Learner(), {"train": loader()}, epochs=2)
    return seen


def test_messages_of_an_epoch_are_let_go_of_before_the_next_begins() -> None:
    """They are there at `EpochEnded` and gone at the next `EpochStarted`; those of the last one after `TrainingEnded`.

    What was written before the first epoch is there in it. What is kept for good stays, and what waits to be read too.
    """
    box, training = Mailbox(), Training()
    training.override(device, lambda: "cpu")
    training.override(mailbox, lambda: box)
    seen = read(box, training)
    assert seen == [
        *["EpochStarted: 1, 1", "EpochEnded: 5, 1"],
        *["EpochStarted: 0, 1", "EpochEnded: 4, 1"],
        "TrainingEnded: 5, 1",
    ]
    assert box.read("epoch") == []
    assert box.read("forever") == ["kept"]
    assert box.read("once") == ["read me"]


def test_a_mailbox_that_is_not_bound_is_nobodys_business() -> None:
    """A training without one runs; one that only listeners share is not emptied by it."""
    box, training = Mailbox(), Training()
    training.override(device, lambda: "cpu")
    read(box, training)
    assert len(box.read("epoch")) == 10


def test_a_loop_of_ones_own_lets_go_of_messages_too() -> None:
    """Given to `epochs`, it is emptied at the same moments."""
    box, left = Mailbox(), []
    for _ in epochs(Learner(), epochs=3, mailbox=box):
        left.append(box.read("epoch"))
        box.write("epoch", "message")
    assert left == [[], [], []]
    assert box.read("epoch") == []
