"""What listeners remember, by their names: part of a run, and so of its checkpoints."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from torchsystem.domain.plain import Plain, like, plain
from torchsystem.errors import UnnamedListener
from torchsystem.services import Consumer, Producer

_NOTHING: dict[str, Any] = {"handlers": {}}  # the state of a consumer that counts nothing


class ListenerLeft(UserWarning):
    """A run goes on without a listener that remembered something of it."""


class EventLost(UserWarning):
    """A run goes on without an event that waited in its aggregate for the end of the epoch."""


def remembered(producer: Producer) -> dict[str, Plain]:
    """Return the states of the listeners that remember something, by name.

    Raises:
        UnnamedListener: One of them has no name, or that of another.
    """
    listeners: dict[str, Plain] = {}
    for listener in producer.listeners():
        state = listener.state_dict()
        if state != _NOTHING:
            listeners[_name(listener, listeners)] = plain(state, f"{listener!r}")
    return listeners


def remind(producer: Producer, states: Mapping[str, Plain]) -> None:
    """Let listeners take up what those of the same names remembered; a new one begins.

    Warns:
        ListenerLeft: Somebody remembered something who is not there any more.

    Raises:
        InvalidState: A listener cannot take up what is kept under its name.
    """
    named: dict[str, Consumer] = {}
    for listener in producer.listeners():
        name = listener.name
        if name is not None and name in states and (name not in named or listener.state_dict() != _NOTHING):
            named[name] = listener  # another one of this name may remember nothing
    for name, state in states.items():
        if name in named:
            named[name].load_state_dict(like(state, named[name].state_dict()))
    _say_who_left(states.keys() - named.keys())


def _name(listener: Consumer, taken: Iterable[str]) -> str:
    name = listener.name
    if name is None:
        kind = type(listener).__qualname__
        message = (
            f"a {kind} that remembers something has no name, under which a checkpoint could keep it. Its handlers: "
            f"{', '.join(str(handler) for handler in listener.handlers) or 'none'}. Write {kind}('a name')."
        )
        raise UnnamedListener(message)
    if name in taken:
        message = f"two listeners that remember something are called {name!r}. Give one of them another name."
        raise UnnamedListener(message)
    return name


def _say_who_left(names: Iterable[str]) -> None:
    for name in sorted(names):
        message = f"the run goes on without its listener {name!r}: what it remembered is lost. Register it before."
        warnings.warn(message, ListenerLeft, stacklevel=2)


def asked_for(events: Iterable[object]) -> tuple[list[str], list[str]]:
    """Return the reasons of those events that ask for a stop, and the names of the others, which cannot be kept."""
    reasons: list[str] = []
    others: list[str] = []
    for each in events:
        if is_stop(each):
            reasons.append("" if isinstance(each, type) else str(each))
        else:
            others.append((each if isinstance(each, type) else type(each)).__qualname__)
    return reasons, others


def is_stop(event: object) -> bool:
    """Tell whether an event asks for a stop, as a class or as an instance."""
    return isinstance(event, StopIteration) or (isinstance(event, type) and issubclass(event, StopIteration))


def ask_again(queue: deque[Any], reasons: Iterable[str], lost: Iterable[str]) -> None:
    """Put requests to stop into an aggregate's queue, in place of those that are there, and say what was lost.

    Warns:
        EventLost: Something waited there when the run was kept.
    """
    others = [event for event in queue if not is_stop(event)]
    queue.clear()
    queue.extend(others)
    queue.extend(StopIteration(reason) if reason else StopIteration() for reason in reasons)
    for name in sorted(set(lost)):
        message = (
            f"the run goes on without the event {name}, which waited in the aggregate for the end of the epoch when it "
            f"was kept: a checkpoint has no events. Save at the ends of epochs, or let the state of the aggregate tell."
        )
        warnings.warn(message, EventLost, stacklevel=2)
