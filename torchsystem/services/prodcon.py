"""Producers: where events are dispatched, each to the handlers that hear its type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any, NamedTuple, TypeVar

from typing_extensions import dataclass_transform, is_protocol

from torchsystem.errors import InvalidEvent, InvalidOption
from torchsystem.services.bus import Bus, Heard, Plug
from torchsystem.services.consumer import Consumer
from torchsystem.services.delivery import Route, deliver, remember
from torchsystem.services.depth import Guard
from torchsystem.services.failures import FailurePolicy, HandlerFailed, Hearer, OnFailure, Settlement
from torchsystem.services.handlers import Handler, in_order
from torchsystem.services.messages import event as make_event
from torchsystem.services.names import NameGenerator, Vocabulary, kebab
from torchsystem.services.routing import UNSEEN, Interest

T = TypeVar("T")


@make_event
class Registered:
    """A listener was plugged in: told to it alone, and only to handlers that name this type, so that it can prepare.

    Attributes:
        producer: What it was plugged into.
    """

    producer: Producer


class Reply(NamedTuple):
    """What `dispatch_and_wait` returns when everyone has handled an event.

    Attributes:
        event: The event.
        failures: How listeners in the background failed to handle it.
    """

    event: object
    failures: tuple[HandlerFailed, ...]


class Producer(Bus[Consumer]):
    """Where events are dispatched, to all consumers that are plugged in.

    Args:
        name: What to call it in messages; it needs none.
        generator: How the name of a type is spelled in `produce`; kebab case by default.
        failures: What happens when a handler fails: `"stop"` raises at once, and those after it do not hear the event;
            `"finish"` serves everyone, then raises one group of all failures; `"isolate"` serves everyone and tells
            each failure to `on_failure`. Under the last two, each is also dispatched as a `HandlerFailed`. A
            `StopIteration` is no failure, but a request: it is raised as itself, at the latest when all are served.
        on_failure: For `"isolate"`: called with the error, the event and the handler.
        max_depth: How deep handlers that dispatch may lead; by default as deep as Python goes.
        count_undelivered: Whether to count, by type, the events that nobody heard, in `undelivered`.

    Raises:
        InvalidOption: An option has no meaning.

    Examples:
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

    def __init__(  # noqa: PLR0913 - each says one thing about dispatching, and has a default
        self,
        name: str | None = None,
        *,
        generator: NameGenerator = kebab,
        failures: FailurePolicy = "stop",
        on_failure: OnFailure | None = None,
        max_depth: int | None = None,
        count_undelivered: bool = False,
    ) -> None:
        if max_depth is not None and (not isinstance(max_depth, int) or isinstance(max_depth, bool) or max_depth < 1):
            message = f"max_depth={max_depth!r} means nothing here. Write a whole number, 1 or more, or None."
            raise InvalidOption(message)
        self._max_depth = max_depth
        self._counts = count_undelivered
        super().__init__(name, failures=failures, on_failure=on_failure)
        self.generator = generator
        self.undelivered: Counter[type] = Counter()
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

    def dispatch_and_wait(self, event: object, /, *, timeout: float | None = None) -> Reply:
        """Dispatch an event, and return when everyone has handled it, in the background too.

        Args:
            event: The event.
            timeout: Seconds to wait for the background; None waits as long as it takes.

        Returns:
            The event, and how listeners in the background failed to handle it. Others fail as they do in `dispatch`.

        Raises:
            DeliveryTimeout: Someone did not get done in time.
            WaitsForItself: A handler in the background calls this.
        """
        with self._backlog.barrier(event, timeout) as failures:
            self.dispatch(event)
        settlement = self._settlement()
        settlement.settle_all(failures)
        told, settlement.failures = settlement.failures, []
        settlement.conclude()
        own = {id(failure) for failure in failures}
        return Reply(event, (*failures, *(failure for failure in told if id(failure) not in own)))

    def wants(self, kind: type, /) -> bool:
        """Tell whether anybody hears the events of a type, so that one that nobody hears need not be built.

        Where only a protocol with data members might be fulfilled, the first event of the type decides; until then
        the answer is True.
        """
        route = self._table.routes.get(kind)
        return (self._route(kind) if route is None else route) is not self._nobody

    @dataclass_transform(field_specifiers=(field,))
    def event(self, cls: type[T], /) -> type[T]:
        """Declare a type of events, so that `produce` knows its name.

        It becomes an `event`, unless it is a dataclass already, or is constructed in a way of its own.
        """
        made = make_event(cls) if _lacks_constructor(cls) else cls
        with self._guard.lock:
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
            heard = (cls for plug in self._plugs.values() for cls in _classes(plug.listener) if cls is not object)
            self._vocabulary = routes, Vocabulary((*self._declared, *heard), self.generator)
        return self._vocabulary[1]

    def _route(self, kind: type, event: Any = UNSEEN) -> Route:
        """Find out who hears the events of a type."""
        routes = self._table.routes
        found = list(self._find(kind, event))
        if not found and isinstance(event, type):
            message = f"{event!r} is a class, not an event, and nobody listens to classes. Write {event.__name__}(...)."
            raise InvalidEvent(message) from None
        route = self._route_to(self._served(heard for heard, _ in found)) if found else self._nobody
        if not found and issubclass(kind, type):
            return route  # to be asked again: what is dispatched then is to be refused
        if not all(sure for _, sure in found):
            return route  # only an event can tell
        return remember(routes, kind, route)

    def _find(self, kind: type, event: Any) -> Iterator[tuple[Heard[Consumer], bool]]:
        """Yield every handler that hears an event, or may do so; and whether it does for sure."""
        for plug in self._plugs.values():
            if plug.here:
                for handler in _handlers(plug.listener):
                    covers = handler.meaning.covers(kind, event)
                    if covers is not False:
                        yield Heard(plug, handler.order, Hearer(handler.call, handler.function)), covers is True

    def _route_to(self, hearers: tuple[Hearer, ...]) -> Route:
        """Do as all buses do, but not too deep."""
        route = super()._route_to(hearers)
        return (Guard(route, self._max_depth),) if hearers and self._max_depth is not None else route

    def _route_to_nobody(self) -> Route:
        """Do as all buses do, and count it if asked to."""
        route = super()._route_to_nobody()
        return (self._count, *route) if self._counts else route

    def _count(self, event: object) -> None:
        """Count an event that nobody hears."""
        self.undelivered[type(event)] += 1

    def _settlement(self) -> Settlement:
        """Let others hear of handlers that failed."""
        return self._policy.settlement(self._announce)

    def _announce(self, failure: HandlerFailed) -> tuple[Hearer, ...]:
        """Return who is to hear that a handler failed: not the very handler, which may fail for ever."""
        found = self._find(HandlerFailed, failure)
        return self._served(heard for heard, _ in found if heard.hearer.handler != failure.handler)

    def _welcome(self, plug: Plug[Consumer]) -> None:
        """Tell a consumer, where it hears, that it was plugged in."""
        if plug.here:
            asked = [handler for handler in plug.listener.handlers if handler.meaning.names(Registered)]
            deliver(tuple(handler.call for handler in in_order(asked)), Registered(self))


def _handlers(consumer: Consumer) -> Iterable[Handler[Interest]]:
    """Return the handlers of a consumer; one that consumes in its own way hears everything."""
    if type(consumer).consume is Consumer.consume:
        return consumer.handlers
    return [Handler(consumer.consume, consumer.consume, Interest((object,)))]


def _lacks_constructor(cls: type) -> bool:
    """Tell whether a class only declares fields, so that it takes a decorator to construct it from them."""
    if "__dataclass_fields__" in vars(cls):
        return False
    written = (vars(base) for base in cls.__mro__[:-1] if not is_protocol(base))
    return not any({"__init__", "__new__"} & set(names) for names in written if "__dataclass_fields__" not in names)


def _classes(consumer: Consumer) -> Iterator[type]:
    """Yield the classes that a consumer listens to."""
    for handler in consumer.handlers:
        yield from handler.meaning.classes
