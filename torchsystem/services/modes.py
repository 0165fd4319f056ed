"""Modes: how and where a listener is delivered to, said where it is plugged in."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias, get_args

from torchsystem.errors import InvalidOption

Overflow: TypeAlias = Literal["wait", "drop_oldest", "raise"]


@dataclass(frozen=True, slots=True)
class Deferred:
    """Messages are collected, and delivered by `flush()`."""


@dataclass(frozen=True, slots=True)
class Background:
    """Messages are delivered in order by a thread of their listener's own."""

    capacity: int
    overflow: Overflow
    deadline: float


Delivery: TypeAlias = Deferred | Background
DeliverySpec: TypeAlias = Delivery | Callable[[], Delivery] | Literal["inline"]
Where: TypeAlias = Literal["everywhere", "leader"] | int


def deferred() -> Deferred:
    """Collect messages until `flush()`: `producer.register(consumer, delivery=deferred)`.

    Examples:
        >>> from torchsystem.services import Consumer, Producer, deferred
        >>> consumer, producer = Consumer(), Producer()
        >>> @consumer.handler
        ... def show(event: str) -> None:
        ...     print(event)
        >>> producer.register(consumer, delivery=deferred)
        >>> producer.dispatch("hello")
        >>> producer.flush()
        hello
    """
    return Deferred()


def background(capacity: int = 1024, overflow: Overflow = "wait", *, deadline: float = 10.0) -> Background:
    """Deliver by a thread of the listener's own, in order: `producer.register(consumer, delivery=background())`.

    Context variables are carried along. What fails there surfaces at the next dispatch, at `flush()` or at `close()`.

    Args:
        capacity: How many messages may wait.
        overflow: What happens to one too many: `"wait"` for a place, `"drop_oldest"` (counted, and said), or
            `"raise"` a `QueueFull`.
        deadline: Seconds that the queue has when the interpreter exits; what is lost then is said.

    Raises:
        InvalidOption: One of them has no meaning.

    Examples:
        >>> from torchsystem.services import Consumer, Producer, background
        >>> consumer = Consumer()
        >>> @consumer.handler
        ... def show(event: str) -> None:
        ...     print(event)
        >>> with Producer() as producer:
        ...     producer.register(consumer, delivery=background(capacity=100))
        ...     producer.dispatch("hello")
        hello
    """
    if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
        _refuse(f"capacity={capacity!r}", "Write a whole number, 1 or more")
    if overflow not in get_args(Overflow):
        _refuse(f"overflow={overflow!r}", "Write 'wait', 'drop_oldest' or 'raise'")
    if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 0 <= deadline < math.inf:
        _refuse(f"deadline={deadline!r}", "Write a number of seconds, 0 or more")
    return Background(capacity, overflow, deadline)


def delivery_of(spec: DeliverySpec | None) -> Delivery | None:
    """Return the mode that is meant; None is inline.

    Raises:
        InvalidOption: None is.
    """
    if spec is None or spec == "inline":
        return None
    made = spec() if callable(spec) else spec
    if not isinstance(made, Deferred | Background):
        _refuse(f"delivery={spec!r}", "Write 'inline', deferred, or background(capacity=1024, overflow='wait')")
    return made


def is_here(where: Where, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a place is this process, by the rank in its environment; without one it is the leader, rank 0.

    Raises:
        InvalidOption: It is no place, or the environment has no number for a rank.
    """
    if where == "everywhere":
        return True
    if where != "leader" and (isinstance(where, bool) or not isinstance(where, int) or where < 0):
        _refuse(f"where={where!r}", "Write 'everywhere', 'leader', or a rank")
    rank = environment.get("RANK", "0")
    if not rank.isdecimal():
        _refuse(f"RANK={rank!r} in the environment, read for where={where!r},", "Let it be a whole number")
    return int(rank) == (0 if where == "leader" else where)


def _refuse(shown: str, remedy: str) -> NoReturn:
    message = f"{shown} means nothing here. {remedy}."
    raise InvalidOption(message)
