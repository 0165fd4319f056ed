"""What type checkers know of aggregates: their phases, their epochs, and an identity that a subclass may narrow."""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, assert_type

from torch import nn

from torchsystem import Aggregate, Event, Events


class Classifier(Aggregate):
    def __init__(self, nn: nn.Module) -> None:
        super().__init__()
        self.nn = nn

    @property
    def id(self) -> str:
        return "classifier"

    def onphase(self) -> None: ...
    def onepoch(self) -> None:
        self.events.commit()


class Improved(Event):
    loss: float = 0.0


model = Classifier(nn.Linear(1, 1))

assert_type(model.id, str)
assert_type(model.epoch, int)
assert_type(model.events, Events)
assert_type(model.to("cpu"), Classifier)

# An aggregate is in one of two phases, and no other can be written.
phase: Literal["train", "evaluation"] = model.phase
model.phase = "evaluation"
model.phase = "trian"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
model.epoch += 1
model.epoch = "1"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]

# An identity of its own is whatever one gives.
assert_type(Aggregate().id, Any)
assert_type(Aggregate().is_initialized(), bool)
Aggregate().initialize(3)


# Events are of any type; a handler takes the event or nothing, and stays the function that it is.
def save() -> None: ...
def note(event: Improved) -> float: ...


assert_type(model.events.queue, deque[Any])
model.events.enqueue(StopIteration)
model.events.enqueue(Improved())
model.events.handlers[Improved] = note
model.events.handlers[StopIteration] = [save, save]
model.events.handlers = {Improved: note}


@model.events.on(Improved)
def cheer(event: Improved) -> str: ...


assert_type(cheer(Improved()), str)
