"""What type checkers know of services and listeners: a decorated function keeps its type, an event is a dataclass."""

from __future__ import annotations

from typing import Any, assert_type

from torchsystem import Depends, Provider
from torchsystem.services import Consumer, Producer, Publisher, Service, Subscriber, event


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
