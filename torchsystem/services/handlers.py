"""Handlers: the functions that hear messages, in the order in which they were registered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakSet

from torchsystem.errors import InvalidState
from torchsystem.services.processes import ForkSafeLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torchsystem.services.delivery import Call, Table
    from torchsystem.services.options import Gate

M = TypeVar("M")


@dataclass(frozen=True, slots=True, eq=False)
class Handler(Generic[M]):
    """One handler of a listener.

    Attributes:
        function: What the decorator gave back: the function, injected.
        call: What is called with a message: the function, behind its options if it has any.
        meaning: Which messages are meant: an `Interest` in types, or a `Subscription` to topics.
        order: Its place among all handlers of one message; those of equal order are called as registered.
        told: Whether it takes the topic as well.
        gates: What a message passes on its way to the function.
    """

    function: Callable[..., object]
    call: Call
    meaning: M
    order: int = 0
    told: bool = False
    gates: tuple[Gate, ...] = ()


class Handlers(Generic[M]):
    """The handlers of one listener, in the order in which they were registered."""

    def __init__(self) -> None:
        self._handlers: tuple[Handler[M], ...] = ()
        self._tables: WeakSet[Table[Any]] = WeakSet()
        self._guard = ForkSafeLock()

    def __iter__(self) -> Iterator[Handler[M]]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)

    def add(self, handler: Handler[M]) -> None:
        """Take in a handler: it hears from the next message on, wherever its listener is plugged in."""
        with self._guard.lock:
            self._handlers = (*self._handlers, handler)
            tables = tuple(self._tables)
        for table in tables:
            table.forget()

    def inform(self, table: Table[Any]) -> None:
        """Let a table of routes forget them whenever a handler comes."""
        with self._guard.lock:
            self._tables.add(table)

    def leave(self, table: Table[Any]) -> None:
        """Let a table be, from now on."""
        with self._guard.lock:
            self._tables.discard(table)

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what gates remember, by the names of their handlers."""
        states = {name: _merged(gate.state() for gate in handler.gates) for name, handler in self._named().items()}
        return {name: state for name, state in states.items() if state}

    def restore(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Let gates remember what they returned as their state.

        Raises:
            InvalidState: A state is missing, is one too many, or is not of its handler. Nothing is changed then.
        """
        expected = {name: set(state) for name, state in self.state().items()}
        given = {name: set(state) for name, state in states.items()}
        if expected != given:
            message = (
                f"This is not the state of these handlers. {_shown('Missing', expected, given)} "
                f"{_shown('Unexpected', given, expected)} Load it into the listener that it was taken from."
            )
            raise InvalidState(message)
        before = self.state()
        try:
            self._restore(states)
        except (TypeError, ValueError, KeyError) as error:
            self._restore(before)
            message = f"This is not the state of handlers: {error}. Load what `state_dict()` returned."
            raise InvalidState(message) from error

    def _restore(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        for name, handler in self._named().items():
            for gate in handler.gates:
                gate.restore(states.get(name, {}))

    def _named(self) -> dict[str, Handler[M]]:
        """Name each handler by its function; several of one name are numbered."""
        named: dict[str, Handler[M]] = {}
        seen: Counter[str] = Counter()
        for handler in self._handlers:
            name = getattr(handler.function, "__name__", type(handler.function).__name__)
            seen[name] += 1
            named[name if seen[name] == 1 else f"{name}#{seen[name]}"] = handler
        return named


def _merged(states: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Join the states of the gates of one handler; each kind of gate stands there once at most."""
    return {key: value for state in states for key, value in state.items()}


def _shown(title: str, these: Mapping[str, set[str]], those: Mapping[str, set[str]]) -> str:
    """List what is in one state and not in another."""
    surplus = [f"{name} ({', '.join(sorted(keys))})" for name, keys in these.items() if those.get(name) != keys]
    return f"{title}: {', '.join(surplus) or 'nothing'}."


def in_order(handlers: Iterable[Handler[M]]) -> list[Handler[M]]:
    """Sort the handlers of one message by their `order`; those of equal order stay as they were registered."""
    return sorted(handlers, key=attrgetter("order"))
