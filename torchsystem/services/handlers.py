"""Handlers: the functions that hear messages, and what must be true of one when it is registered."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from weakref import WeakSet

from torchsystem.depends.kinds import Kind, kind
from torchsystem.depends.signature import EMPTY, KEYWORD_ONLY, POSITIONAL_ONLY, VAR_KEYWORD, parameters_of
from torchsystem.errors import InvalidHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torchsystem.depends.signature import Parameter
    from torchsystem.services.delivery import Call, Table

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
    """

    function: Callable[..., object]
    call: Call
    meaning: M
    order: int = 0
    told: bool = False


class Handlers(Generic[M]):
    """The handlers of one listener, in the order in which they were registered."""

    def __init__(self) -> None:
        self._handlers: tuple[Handler[M], ...] = ()
        self._tables: WeakSet[Table[Any]] = WeakSet()
        self._lock = Lock()

    def __iter__(self) -> Iterator[Handler[M]]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)

    def add(self, handler: Handler[M]) -> None:
        """Take in a handler: it hears from the next message on, wherever its listener is plugged in."""
        with self._lock:
            self._handlers = (*self._handlers, handler)
            tables = tuple(self._tables)
        for table in tables:
            table.forget()

    def inform(self, table: Table[Any]) -> None:
        """Let a table of routes forget them whenever a handler comes."""
        with self._lock:
            self._tables.add(table)

    def leave(self, table: Table[Any]) -> None:
        """Let a table be, from now on."""
        with self._lock:
            self._tables.discard(table)


def in_order(handlers: Iterable[Handler[M]]) -> list[Handler[M]]:
    """Sort the handlers of one message by their `order`; those of equal order stay as they were registered."""
    return sorted(handlers, key=attrgetter("order"))


class Signature(NamedTuple):
    """What a handler takes: the name of the parameter for the message, if it is known, and whether something more."""

    message: str | None
    takes_optional: bool


def place(function: object) -> str:
    """Say where a function was written, as errors do: its name, file and line.

    Args:
        function: Any callable; one without source is called by its name alone.
    """
    written: Any = inspect.unwrap(function) if callable(function) else function
    while isinstance(written, partial):
        written = written.func
    written = getattr(written, "__func__", written)
    name = getattr(written, "__qualname__", None) or repr(function)
    code = getattr(written, "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else name


def check(function: Callable[..., object], optional: str | None = None) -> Signature:
    """Check that a function can handle messages.

    Args:
        function: The handler, not injected yet.
        optional: The name of something that it may take beside the message.

    Returns:
        What it takes.

    Raises:
        InvalidHandler: Calling it with a message would fail, or would do nothing.
    """
    _check_that_it_runs(function)
    parameters = parameters_of(function)
    if parameters is None:  # a function written in C may not say
        return Signature(None, takes_optional=False)
    first, others = parameters[0] if parameters else None, parameters[1:]
    if first is None or first.kind in {KEYWORD_ONLY, VAR_KEYWORD} or first.dependency is not None:
        message = f"{place(function)} has no place for the message. Make it the first parameter, and a positional one."
        raise InvalidHandler(message)
    takes_optional = any(p.name == optional and p.dependency is None and p.kind is not POSITIONAL_ONLY for p in others)
    unfilled = [p.name for p in others if _is_required(p) and not (takes_optional and p.name == optional)]
    if unfilled:
        message = (
            f"{place(function)} is called with the message alone, and also needs {', '.join(map(repr, unfilled))}. "
            f"Give each a default, or declare what makes it: {unfilled[0]}=Depends(...)."
        )
        raise InvalidHandler(message)
    return Signature(first.name, takes_optional=takes_optional)


def _is_required(parameter: Parameter) -> bool:
    """Tell whether somebody has to fill a parameter."""
    return parameter.default is EMPTY and parameter.dependency is None and not parameter.is_variadic


def _check_that_it_runs(function: object) -> None:
    """Refuse what does nothing when it is called: a message would be lost without a word."""
    if not callable(function) or inspect.isclass(function):
        message = f"{function!r} cannot handle messages: decorate a function or a method."
        raise InvalidHandler(message)
    if kind(function) is not Kind.PLAIN:
        message = (
            f"{place(function)} is a {kind(function).value} function: calling it would run nothing of it, for messages "
            f"are delivered synchronously. Write a plain function."
        )
        raise InvalidHandler(message)
