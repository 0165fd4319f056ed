"""Consumers: handlers of events, each found by the type of its first parameter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from torchsystem.depends.annotations import resolve_annotation
from torchsystem.depends.sentinels import EMPTY
from torchsystem.errors import UnroutableAnnotation
from torchsystem.services.delivery import deliver, remember
from torchsystem.services.handlers import in_order
from torchsystem.services.listener import Listener
from torchsystem.services.marks import Mark, marked
from torchsystem.services.options import Options
from torchsystem.services.routing import Interest, interest
from torchsystem.services.signatures import check, place

if TYPE_CHECKING:
    from torchsystem.depends import Provider
    from torchsystem.services.delivery import Route
    from torchsystem.services.options import Clock, Predicate
    from torchsystem.triggers import Trigger

F = TypeVar("F", bound=Callable[..., object])


class Consumer(Listener[type, Interest]):
    """Handlers of events, each found by the type of its first parameter.

    Args:
        name: What to call it in messages; it needs none.
        provider: Where its handlers' dependencies are bound; one of its own by default.
        clock: What tells seconds to triggers such as `every(seconds=5)`, where events have no progress.

    Examples:
        >>> from torchsystem.services import Consumer, Producer, event
        >>> @event
        ... class Trained:
        ...     epoch: int
        >>> consumer = Consumer()
        >>> @consumer.handler
        ... def show(event: Trained) -> None:
        ...     print("trained epoch", event.epoch)
        >>> producer = Producer()
        >>> producer.register(consumer)
        >>> producer.dispatch(Trained(3))
        trained epoch 3
    """

    def __init__(
        self, name: str | None = None, *, provider: Provider | None = None, clock: Clock = time.monotonic
    ) -> None:
        super().__init__(name, provider=provider, clock=clock)
        for method, mark in marked(type(self)).items():
            self._take_marked(method, mark)

    @overload
    def handler(self, function: F, /) -> F: ...
    @overload
    def handler(
        self, /, *, every: int = ..., when: Predicate | Trigger | None = ..., order: int = ...
    ) -> Callable[[F], F]: ...
    def handler(
        self,
        function: Callable[..., object] | None = None,
        /,
        *,
        every: int = 1,
        when: Predicate | Trigger | None = None,
        order: int = 0,
    ) -> Callable[..., object]:
        """Let a function hear the events that the annotation of its first parameter means.

        The annotation may be a class (subclasses are heard too), a union, a generic, a protocol checkable at run
        time, or `Any`, in any spelling. An event is heard once, however many parts of the annotation match it.

        Args:
            function: The handler. Its parameters beside the first are dependencies, or have defaults.
            every: Hear only each n-th of those events that pass `when`, counted for this handler from now on.
            when: Hear only what this predicate is true of, or when this trigger fires.
            order: Where to stand among all handlers of one event: lower ones come first, equal ones as registered.

        Returns:
            The function, injected: it works just as well when it is called by hand.

        Raises:
            InvalidHandler: The function cannot be called with an event.
            InvalidOption: An option has no meaning, or not for these events.
            UnroutableAnnotation: Its annotation does not tell which events are meant.
            UnresolvedAnnotation: A name in its annotation cannot be found.
        """
        options = Options(every, when, order)

        def register(function: Callable[..., object]) -> Callable[..., object]:
            meant = _interest(function)
            return self._take(function, meant, (*meant.classes, *meant.shapes), options, told=False)

        return register if function is None else register(function)

    def _take_marked(self, name: str, mark: Mark) -> None:
        """Register a marked method of this object; from now on it is injected also when it is called by hand."""
        method = getattr(self, name)
        is_marked = getattr(method, "__func__", method) is mark.function
        meant = _interest(method, mark.annotations if is_marked else {})
        injected = self._take(method, meant, (*meant.classes, *meant.shapes), mark.options, told=False)
        if injected is not method:
            setattr(self, name, injected)

    def consume(self, event: object, /) -> None:
        """Hand an event to the handlers here that hear it; the first exception ends it."""
        try:
            route = self._table.routes[type(event)]
        except KeyError:
            route = self._route(event)
        deliver(route, event)

    def _route(self, event: object) -> Route:
        """Find out which handlers hear an event, and all others of its type."""
        routes, kind = self._table.routes, type(event)
        heard = in_order(handler for handler in self.handlers if handler.meaning.covers(kind, event))
        return remember(routes, kind, tuple(handler.call for handler in heard))


def _interest(function: Callable[..., object], known: Mapping[str, Any] = MappingProxyType({})) -> Interest:
    """Find out which events a handler hears, from the annotation of its first parameter, if not known already."""
    where, parameter = place(function), check(function).message
    if parameter is None:
        annotation = EMPTY
    else:
        annotation = known[parameter] if parameter in known else resolve_annotation(function, parameter)
    if annotation is EMPTY:
        message = f"{where} does not say which events it hears. Annotate its first parameter, as in `event: Trained`."
        raise UnroutableAnnotation(message)
    return interest(annotation, where)
