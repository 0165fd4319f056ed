"""What type checkers know of services and listeners: a decorated function keeps its type, an event is a dataclass."""

from __future__ import annotations

from typing import Any, assert_type

from torchsystem import Depends, Provider
from torchsystem.services import (
    FOREVER,
    UNTIL_READ,
    Consumer,
    Elapsed,
    HandlerFailed,
    Mailbox,
    Producer,
    Publisher,
    Service,
    Subscriber,
    Timers,
    background,
    deferred,
    event,
    handler,
    mailbox,
)
from torchsystem.triggers import after, at, every, once


class Model: ...


def device() -> str: ...


@event
class Trained:
    model: Model
    loss: float = 0.0


@event
class Validated(Trained):
    accuracy: float = 0.0


# An event is made like the dataclass that it is.
assert_type(Trained(Model(), loss=0.5).loss, float)
assert_type(Validated(Model(), 0.5, 0.9).accuracy, float)
Trained()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Trained(Model(), loss="low")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

service = Service("training", provider=Provider())
consumer = Consumer()
producer = Producer()
subscriber = Subscriber()
publisher = Publisher()


# A handler keeps its type, whatever it is registered with.
@service.handler
def train(model: Model, device: str = Depends(device)) -> float: ...


@consumer.handler
def log(event: Trained | Validated, device: str = Depends(device)) -> int: ...


@subscriber.subscribe("metrics", "losses")
def store(message: dict[str, float], device: str = Depends(device)) -> str: ...


assert_type(train(Model()), float)
assert_type(train(Model(), device="cuda"), float)
assert_type(log(Trained(Model())), int)
assert_type(store({}), str)
train()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
log(Model())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
store(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@service.handler(replace=True)
def validate(model: Model) -> float: ...


assert_type(validate(Model()), float)


# What goes by name is not known before it runs.
assert_type(service.handle("train", Model(), device="cuda"), Any)

# Plugging in and out.
producer.register(consumer, consumer)
producer.unregister(consumer)
producer.dispatch(Trained(Model()))
assert_type(producer.wants(Trained), bool)
consumer.consume(Trained(Model()))
publisher.register(subscriber)
publisher.unregister(subscriber)
publisher.publish({"loss": 0.5}, "metrics")
subscriber.receive({"loss": 0.5}, "metrics")
with producer.connected(consumer):
    pass


@producer.event
class Iterated:
    epoch: int


assert_type(Iterated(3).epoch, int)  # type: ignore[call-arg]  # mypy knows no dataclass_transform of methods

# Each of them hosts the dependencies of its handlers.
assert_type(service.provider, Provider)
with service.override(device, lambda: "cuda"), consumer, subscriber:
    service.dependency_overrides[device] = lambda: "cpu"
service.close()


# Options leave the type of a handler alone, on functions and on methods.
@consumer.handler(every=10, when=lambda event: event.loss < 1, order=-1)
def plot(event: Trained, device: str = Depends(device)) -> int: ...


@subscriber.subscribe("losses.*", when=every(10, "batches") | once(), every=2)
def note(value: float, topic: str) -> str: ...


class Best(Consumer):
    @handler
    def on_trained(self, event: Trained) -> float: ...

    @handler(when=at(3, "epochs") & after(seconds=60))
    def on_validated(self, event: Validated, device: str = Depends(device)) -> int: ...


assert_type(plot(Trained(Model())), int)
assert_type(note(0.5, "losses.train"), str)
assert_type(Best().on_trained(Trained(Model())), float)
assert_type(Best().on_validated(Validated(Model())), int)
consumer.handler(every="10")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
every(10, "batch")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
every(10, seconds=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]

# How failures are settled, and how listeners are delivered to.
isolating = Producer(failures="isolate", on_failure=lambda error, _event, _handler: error.args)
isolating.register(consumer, delivery=background(capacity=8, overflow="drop_oldest"), where="leader")
isolating.register(Best(), delivery=deferred, where=3)
isolating.register(Best(), delivery=deferred())
assert_type(isolating.listeners(), list[Consumer])
assert_type(isolating.dispatch_and_wait(Trained(Model()), timeout=5).failures, tuple[HandlerFailed, ...])
producer.register(subscriber)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Producer(failures="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
with isolating as same:
    assert_type(same, Producer)

# Messages for those who come later.
box = Mailbox()
box.write("pictures", "loss.png", keep=UNTIL_READ)
assert_type(box.read("pictures"), list[Any])
Publisher(mailbox=box).publish(0.5, "losses.train", keep=FOREVER)


@consumer.handler
def attach(event: Trained, mailbox: Mailbox = Depends(mailbox)) -> None:
    assert_type(mailbox, Mailbox)


assert_type(Timers(10, clock=lambda: 0.0).poll(), list[Elapsed])
