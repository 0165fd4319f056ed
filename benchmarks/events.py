"""What an event costs, beside hand-written code and beside the peers that are installed.

    taskset -c 0 python benchmarks/events.py

Handlers do nothing, so that what is left is the delivery. The first line of each case is what one would write by hand:
a table of handlers by type or by topic. The ratios are to it, in the same process. Events are made beforehand, but for
the case in which one is made. Exits with 1 when a target is missed.
"""

# ruff: noqa: D103 - the names say what is timed

from __future__ import annotations

import importlib
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from timing import Operation, table

from torchsystem.domain import Event, Events
from torchsystem.services import Consumer, Depends, Producer, Publisher, Subscriber, background, deferred, event

TARGETS = {
    "one handler": 1.5,
    "ten handlers": 1.25,
    "unhandled": 1.6,
    "topic": 1.5,
    "ten on a topic": 1.25,
    "injected handler": 1.6,
    "union": 1.5,
    "domain event": 2,
    "making an event": 1.1,
}


@event
class Ticked:
    """An event that is heard."""


@event
class Tocked:
    """Another one."""


@event
class Unheard:
    """An event that nobody hears."""


class Happened(Event):
    """A domain event."""


@event
class Made:
    """An event with fields."""

    epoch: int
    loss: float


@dataclass(slots=True, weakref_slot=True)
class MadeByHand:
    """The same, without us."""

    epoch: int
    loss: float


SOME = object()


def some() -> object:
    return SOME


def handlers(number: int, parameter: Any = Ticked) -> list[Callable[[Any], None]]:
    """Define so many handlers, each a function of its own."""

    def define() -> Callable[[Any], None]:
        def on_event(event: Any) -> None:
            pass

        on_event.__annotations__["event"] = parameter
        return on_event

    return [define() for _ in range(number)]


def injected(event: Ticked, thing: object = Depends(some)) -> None:
    pass


# By hand.


def dispatching(table: dict[Any, list[Callable[[Any], None]]]) -> Callable[[Any], None]:
    def dispatch(event: Any) -> None:
        for handler in table.get(type(event), ()):
            handler(event)

    return dispatch


def publishing(table: dict[str, list[Callable[[Any], None]]]) -> Callable[[Any, str], None]:
    def publish(message: Any, topic: str) -> None:
        for handler in table.get(topic, ()):
            handler(message)

    return publish


def committing(table: dict[Any, list[Callable[[Any], None]]]) -> Callable[[Any], None]:
    queue: deque[Any] = deque()

    def commit(event: Any) -> None:
        queue.append(event)
        while queue:
            taken = queue.popleft()
            for handler in table.get(type(taken), ()):
                handler(taken)

    return commit


def injected_by_hand(event: Any) -> None:
    injected(event, some())


def by_hand() -> dict[str, Operation]:
    """Return the hand-written operation for each case."""
    one, ten, tick = handlers(1), handlers(10), Ticked()
    dispatch = dispatching({Ticked: one})
    cases: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "one handler": (dispatch, (tick,)),
        "ten handlers": (dispatching({Ticked: ten}), (tick,)),
        "unhandled": (dispatch, (Unheard(),)),
        "topic": (publishing({"loss": one}), (0.1, "loss")),
        "ten on a topic": (publishing({"loss": ten}), (0.1, "loss")),
        "injected handler": (dispatching({Ticked: [injected_by_hand]}), (tick,)),
        "union": (dispatching({Ticked: one, Tocked: one}), (tick,)),
        "domain event": (committing({Happened: one}), (Happened(),)),
        "making an event": (MadeByHand, (3, 0.25)),
    }
    return {case: Operation("by hand", call, args) for case, (call, args) in cases.items()}


# Ours.


def producer(*consumers: Consumer, **options: Any) -> Callable[[Any], None]:
    made = Producer()
    made.register(*consumers, **options)
    return made.dispatch


def consumer(functions: list[Callable[..., None]], **options: Any) -> Consumer:
    made = Consumer()
    for function in functions:
        made.handler(**options)(function)
    return made


def publisher(functions: list[Callable[..., None]]) -> Callable[[Any, str], None]:
    made, subscriber = Publisher(), Subscriber()
    for function in functions:
        subscriber.subscribe("loss")(function)
    made.register(subscriber)
    return made.publish


def domain() -> Callable[[Any], None]:
    events = Events()
    events.handlers[Happened] = handlers(1)[0]

    def commit(event: Any) -> None:
        events.enqueue(event)
        events.commit()

    return commit


def ours() -> dict[str, Operation]:
    """Return our operation for each case."""
    one, tick = consumer(handlers(1)), Ticked()
    dispatch = producer(one)
    cases: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "one handler": (dispatch, (tick,)),
        "ten handlers": (producer(consumer(handlers(10))), (tick,)),
        "unhandled": (dispatch, (Unheard(),)),
        "topic": (publisher(handlers(1)), (0.1, "loss")),
        "ten on a topic": (publisher(handlers(10)), (0.1, "loss")),
        "injected handler": (producer(consumer([injected])), (tick,)),
        "union": (producer(consumer(handlers(1, Ticked | Tocked))), (tick,)),
        "domain event": (domain(), (Happened(),)),
        "making an event": (Made, (3, 0.25)),
    }
    return {case: Operation("torchsystem", call, args) for case, (call, args) in cases.items()}


def options() -> list[Operation]:
    """Return what one handler costs with each option."""
    tick = Ticked()
    finishing, isolating = Producer(failures="finish"), Producer(failures="isolate", on_failure=print)
    counting, guarding, putting, later = (
        Producer(count_undelivered=True),
        Producer(max_depth=10),
        Producer(),
        Producer(),
    )
    for each in (finishing, isolating, counting, guarding):
        each.register(consumer(handlers(1)))
    putting.register(consumer(handlers(1)), delivery=background())
    later.register(consumer(handlers(1)), delivery=deferred)

    def defer(event: Any) -> None:
        later.dispatch(event)
        later.flush()

    return [
        Operation("plain", producer(consumer(handlers(1))), (tick,)),
        Operation("wants", finishing.wants, (Unheard,)),
        Operation("every=10", producer(consumer(handlers(1), every=10)), (tick,)),
        Operation("when=predicate", producer(consumer(handlers(1), when=lambda _: True)), (tick,)),
        Operation("finish", finishing.dispatch, (tick,)),
        Operation("isolate", isolating.dispatch, (tick,)),
        Operation("max_depth", guarding.dispatch, (tick,)),
        Operation("undelivered", counting.dispatch, (Unheard(),)),
        Operation("defer and flush", defer, (tick,)),
        Operation("background", putting.dispatch, (tick,)),
    ]


# Peers, each as its documentation shows.


def blinker(number: int) -> Operation:
    signal: Any = importlib.import_module("blinker").Signal()
    kept = [lambda _sender, **_event: None for _ in range(number)]
    for function in kept:
        signal.connect(function, weak=False)
    tick = Ticked()
    return Operation("blinker", lambda: signal.send(None, event=tick))


def pluggy(number: int) -> Operation:
    lib: Any = importlib.import_module("pluggy")
    spec, implementation = lib.HookspecMarker("benchmark"), lib.HookimplMarker("benchmark")

    class Spec:
        @spec
        def on_event(self, event: Any) -> None:
            pass

    class Plugin:
        @implementation
        def on_event(self, event: Any) -> None:
            pass

    manager = lib.PluginManager("benchmark")
    manager.add_hookspecs(Spec)
    for _ in range(number):
        manager.register(Plugin())
    hook, tick = manager.hook.on_event, Ticked()
    return Operation("pluggy", lambda: hook(event=tick))


def pyee(number: int) -> Operation:
    emitter: Any = importlib.import_module("pyee").EventEmitter()
    for function in handlers(number):
        emitter.on("event", function)
    return Operation("pyee", emitter.emit, ("event", Ticked()))


def main() -> int:
    """Print the tables, and return the exit status."""
    hand, own = by_hand(), ours()
    cases = {case: [hand[case], own[case]] for case in TARGETS}
    for peer in (blinker, pluggy, pyee):
        try:
            cases["one handler"].append(peer(1))
            cases["ten handlers"].append(peer(10))
        except ImportError:
            print(f"  {peer.__name__} is not installed: skipped")
    kept = table("Events", cases, TARGETS)
    table("Options, beside no option", {"one handler": options()}, {})
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
