"""Producers and consumers: events find their handlers by type."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from typing_extensions import dataclass_transform

from torchsystem.depends.annotations import resolve_annotation
from torchsystem.depends.marks import EMPTY
from torchsystem.errors import InvalidEvent, UnroutableAnnotation
from torchsystem.services.bus import Bus
from torchsystem.services.delivery import deliver, remember
from torchsystem.services.handlers import Handler, in_order
from torchsystem.services.listener import Listener
from torchsystem.services.marks import Mark, marked
from torchsystem.services.messages import event as make_event
from torchsystem.services.names import Named, Vocabulary, kebab
from torchsystem.services.options import Options
from torchsystem.services.routing import UNSEEN, Interest, interest
from torchsystem.services.signatures import check, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torchsystem.depends import Provider
    from torchsystem.services.delivery import Route
    from torchsystem.services.names import NameGenerator
    from torchsystem.services.options import Clock, Predicate
    from torchsystem.triggers import Trigger

F = TypeVar("F", bound="Callable[..., object]")
T = TypeVar("T")

_EVERYTHING = Interest((object,))


class Consumer(Listener[type, Interest]):
    """Handlers of events, each found by the type of its first parameter.

    Args:
        name: What to call it in messages; it needs none.
        provider: Where its handlers' dependencies are bound; one of its own by default.
        clock: What tells seconds to triggers such as `every(seconds=5)`, where events have no progress.

    Example:
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
        return remember(routes, kind, _calls(h for h in self.handlers if h.meaning.covers(kind, event)))


class Producer(Named, Bus[Consumer]):
    """Where events are dispatched, to all consumers that are plugged in.

    Args:
        name: What to call it in messages; it needs none.
        generator: How the name of a type is spelled in `produce`; kebab case by default.

    Example:
        >>> from torchsystem.services import Consumer, Producer
        >>> producer = Producer()
        >>> @producer.event
        ... class Validated:
        ...     loss: float
        >>> consumer = Consumer()
        >>> @consumer.handler
        ... def show(event: Validated) -> None:
        ...     print(event)
        >>> with producer.connected(consumer):
        ...     _ = producer.produce("validated", loss=0.25)
        Validated(loss=0.25)
        >>> producer.wants(Validated)
        False
    """

    takes = Consumer

    def __init__(self, name: str | None = None, *, generator: NameGenerator = kebab) -> None:
        super().__init__()
        self.name = name
        self.generator = generator
        self._declared: tuple[type, ...] = ()
        self._vocabulary: tuple[object, Vocabulary] | None = None

    def dispatch(self, event: object, /) -> None:
        """Hand an event to every handler that hears it, in order. That nobody does is no error.

        Raises:
            InvalidEvent: It is the class of an event, and nobody listens to classes.
        """
        try:
            route = self._table.routes[type(event)]
        except KeyError:
            route = self._route(type(event), event)
        for call in route:  # `deliver`, written out: calling it would cost a third of the dispatch
            call(event)

    def wants(self, kind: type, /) -> bool:
        """Tell whether anybody hears the events of a type, so that one that nobody hears need not be built.

        Where only a protocol with data members might be fulfilled, the first event of the type decides; until then
        the answer is True.
        """
        route = self._table.routes.get(kind)
        return bool(self._route(kind) if route is None else route)

    @dataclass_transform(field_specifiers=(field,))
    def event(self, cls: type[T], /) -> type[T]:
        """Declare a type of events, so that `produce` knows its name; it becomes an `event` if it is no dataclass."""
        made = cls if "__dataclass_fields__" in vars(cls) else make_event(cls)
        with self._lock:
            self._declared = (*self._declared, made)
        self._table.forget()
        return made

    def produce(self, name: str, /, *args: Any, **kwargs: Any) -> object:
        """Build an event by the name of its type, dispatch it, and return it.

        Args:
            name: The name of a declared type, or of one that a registered consumer listens to.
            args: What to build the event with.
            kwargs: What to build the event with, by name.

        Raises:
            UnknownEvent: No type has this name.
            AmbiguousEvent: More than one type has it.
        """
        event: object = self._names().find(name)(*args, **kwargs)
        self.dispatch(event)
        return event

    def _names(self) -> Vocabulary:
        """Return the types that have a name here, gathered anew when something has changed."""
        routes = self._table.routes
        if self._vocabulary is None or self._vocabulary[0] is not routes:
            heard = (cls for handler in self._handlers() for cls in handler.meaning.classes if cls is not object)
            self._vocabulary = routes, Vocabulary((*self._declared, *heard), self.generator)
        return self._vocabulary[1]

    def _handlers(self) -> Iterator[Handler[Interest]]:
        """Yield the handlers of all consumers, in order of registration."""
        for consumer in self._listeners.values():
            if type(consumer).consume is Consumer.consume:
                yield from consumer.handlers
            else:  # whoever overrides it wants to see everything
                yield Handler(consumer.consume, consumer.consume, _EVERYTHING)

    def _route(self, kind: type, event: Any = UNSEEN) -> Route:
        """Find out who hears the events of a type."""
        routes = self._table.routes
        covered = [(handler, handler.meaning.covers(kind, event)) for handler in self._handlers()]
        route = _calls(handler for handler, heard in covered if heard is not False)
        if not route and isinstance(event, type):
            message = f"{event!r} is a class, not an event, and nobody listens to classes. Write {event.__name__}(...)."
            raise InvalidEvent(message) from None
        if any(heard is None for _, heard in covered):
            return route  # only an event can tell
        return remember(routes, kind, route)


def _calls(handlers: Iterable[Handler[Interest]]) -> Route:
    """Return what to call for an event that these handlers hear, in order."""
    return tuple(handler.call for handler in in_order(handlers))


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
