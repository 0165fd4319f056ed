"""What happened inside an aggregate, kept in order until it is committed.

Domain events, and the queue that holds them until a commit, are the pattern of "Architecture Patterns with Python"
by Harry Percival and Bob Gregory (chapter 8). Ours is that an exception is an event like any other, so that a domain
can ask for the end of a training, and whoever is outside can handle that, or let it be raised.
"""

from __future__ import annotations

import functools
from collections import deque
from copy import deepcopy
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torchsystem.domain.handlers import RAISED, Handler, Handlers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

H = TypeVar("H", bound=Handler)


class Event:
    """Mark a class as something that happens in a domain; optional, since an event may be of any class.

    Examples:
        >>> from dataclasses import dataclass
        >>> from torchsystem.domain import Event
        >>> @dataclass
        ... class Improved(Event):
        ...     loss: float
    """

    __slots__ = ()


class Events:
    """Hold what happened, objects or classes, first in, first out, until `commit` has it handled.

    An event that nobody handles is gone with the commit. An exception that nobody handles is raised there.

    Attributes:
        queue: The events to come.

    Examples:
        >>> from torchsystem.domain import Events
        >>> events = Events()
        >>> events.handlers[ArithmeticError] = lambda error: print("handled", repr(error))
        >>> events.enqueue(ZeroDivisionError("the loss"))
        >>> events.enqueue(StopIteration)
        >>> events.commit()
        Traceback (most recent call last):
        ...
        StopIteration
    """

    def __init__(self) -> None:
        self.queue: deque[Any] = deque()
        self._handlers = Handlers()

    @property
    def handlers(self) -> Handlers:
        """Say who handles what: ``events.handlers[E] = f``, or a sequence of functions, called in order.

        The nearest class in the MRO of an event that has handlers gets it. A handler takes the event, or nothing.
        """
        return self._handlers

    @handlers.setter
    def handlers(self, handlers: Mapping[type, Handler | Sequence[Handler]]) -> None:
        self._handlers = Handlers(handlers)

    def on(self, event: type) -> Callable[[H], H]:
        """Return a decorator that adds a handler for a class of events, to be called after those it has.

        Examples:
            >>> from torchsystem.domain import Events
            >>> events = Events()
            >>> @events.on(StopIteration)
            ... def farewell():
            ...     print("it is over")
            >>> events.handle(StopIteration("no progress"))
            it is over
        """

        def add(handler: H) -> H:
            present = self._handlers.get(event, ())
            several = (present,) if callable(present) else tuple(present)
            self._handlers[event] = (*several, handler) if several else handler
            return handler

        return add

    def enqueue(self, event: object) -> None:
        """Put an event at the end of the queue."""
        self.queue.append(event)

    def dequeue(self) -> Any:
        """Take the first event out of the queue and return it; None if the queue is empty."""
        return self.queue.popleft() if self.queue else None

    def handle(self, event: object) -> None:
        """Call the handlers of one event now, queued or not.

        Raises:
            BaseException: The event, if it is an exception that nobody handles.
        """
        calls = self._handlers.routes.get(type(event))
        if calls is None:
            calls = self._handlers.route(event)
        for call in calls:
            call(event)

    def commit(self) -> None:
        """Handle what is queued, in order, and what handlers enqueue meanwhile.

        An event is spent when its turn comes. If a handler raises, the rest stays queued and the next commit goes on.

        Raises:
            BaseException: The first exception among the events that nobody handles. Equal ones that are still queued
                are dropped, because training and validation may both have asked for the same.
        """
        queue = self.queue
        while queue:
            event = queue.popleft()
            try:
                self.handle(event)
            except BaseException:
                if self._handlers.route(event) is RAISED:
                    self._drop_equals(event)
                raise

    def _drop_equals(self, request: object) -> None:
        for _ in range(len(self.queue)):  # once around, so that nothing enqueued meanwhile is lost
            event = self.queue.popleft()
            if not _are_equal(event, request):
                self.queue.append(event)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the handlers out of a pickle: they are wiring, to be done where it is loaded."""
        return {name: value for name, value in self.__dict__.items() if name != "_handlers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _handlers=Handlers())

    def __deepcopy__(self, memo: dict[int, Any]) -> Events:
        """Copy the queue, and keep the handlers; methods of what is being copied become methods of the copy."""
        twin = memo[id(self)] = type(self).__new__(type(self))
        twin.__setstate__(deepcopy(self.__getstate__(), memo))
        twin.handlers = {event: _follow(handlers, memo) for event, handlers in self._handlers.items()}
        return twin

    def __copy__(self) -> Events:
        """Copy the queue and the table of handlers, and share what they hold."""
        twin = type(self).__new__(type(self))
        twin.__setstate__({**self.__getstate__(), "queue": self.queue.copy()})
        twin.handlers = self._handlers
        return twin


def _are_equal(event: object, request: object) -> bool:
    """Compare two exceptions as requests: ``StopIteration`` asks for the same as ``StopIteration()``."""
    if event is request:
        return True
    try:
        return bool(_asked(event) == _asked(request))
    except Exception:  # noqa: BLE001 - arguments that refuse to be compared, as tensors do, are not equal
        return False


def _asked(event: object) -> tuple[type, tuple[object, ...], dict[str, object]]:
    if isinstance(event, type):
        return event, (), {}
    return type(event), getattr(event, "args", ()), getattr(event, "__dict__", {})


def _follow(handlers: Any, memo: dict[int, Any]) -> Any:
    """Turn a handler into what it is in the copy that ``memo`` tells of; one from elsewhere stays what it is."""
    if id(handlers) in memo:
        return memo[id(handlers)]
    if type(handlers) is tuple:
        return tuple(_follow(handler, memo) for handler in cast("tuple[Handler, ...]", handlers))
    if isinstance(handlers, MethodType):
        return MethodType(handlers.__func__, _follow(handlers.__self__, memo))
    if type(handlers) is functools.partial:
        function, *arguments = (_follow(part, memo) for part in (handlers.func, *handlers.args))
        return functools.partial(function, *arguments, **{k: _follow(v, memo) for k, v in handlers.keywords.items()})
    return handlers
