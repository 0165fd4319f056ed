"""Publishers and subscribers: messages find their handlers by topic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torchsystem.depends.annotations import resolve_annotation
from torchsystem.depends.sentinels import EMPTY
from torchsystem.errors import InvalidHandler, InvalidOption
from torchsystem.services.bus import Bus, Heard, Plug
from torchsystem.services.delivery import Call, Route, deliver, remember
from torchsystem.services.failures import FailurePolicy, Hearer, OnFailure
from torchsystem.services.handlers import Handler, in_order
from torchsystem.services.listener import Listener
from torchsystem.services.mailbox import Lifetime, Mailbox
from torchsystem.services.marks import marked
from torchsystem.services.options import Options
from torchsystem.services.routing import interest
from torchsystem.services.signatures import check, place
from torchsystem.services.topics import Subscription, check_published
from torchsystem.triggers import Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torchsystem.services.options import Predicate

F = TypeVar("F", bound="Callable[..., object]")


class Subscriber(Listener[str, Subscription]):
    """Handlers of messages, each found by the topics that it is subscribed to.

    Args:
        name: What to call it in messages; it needs none.
        provider: Where its handlers' dependencies are bound; one of its own by default.
        clock: What tells seconds to triggers such as `every(seconds=5)`, where messages have no progress.

    Examples:
        >>> from torchsystem.services import Publisher, Subscriber
        >>> subscriber = Subscriber()
        >>> @subscriber.subscribe("loss", "accuracy")
        ... def show(value: float) -> None:
        ...     print(value)
        >>> publisher = Publisher()
        >>> publisher.register(subscriber)
        >>> publisher.publish(0.25, "loss")
        0.25
    """

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse methods marked for consumers: nothing would ever call them."""
        super().__init_subclass__(**options)
        for mark in marked(cls).values():
            message = (
                f"{place(mark.function)}: @handler marks the methods of a Consumer. In a Subscriber, subscribe them "
                f"in __init__: self.subscribe('loss')(self.{mark.function.__name__})."
            )
            raise InvalidHandler(message)

    def subscribe(
        self, *topics: str, every: int = 1, when: Predicate | Trigger | None = None, order: int = 0
    ) -> Callable[[F], F]:
        """Let a function hear what is published to some topics.

        Args:
            topics: One or more; `*` stands for any one word, and `>` at the end for any one or more. A message is
                heard once, however many of them match.
            every: Hear only each n-th of those messages that pass `when`, counted for this handler from now on.
            when: Hear only what this predicate is true of, or when this trigger fires.
            order: Where to stand among all handlers of one message: lower ones come first, equal ones as registered.

        Returns:
            A decorator. It gives back the function, injected: it works just as well when it is called by hand. The
            function takes the message first, and by a parameter of the name `topic`, if it has one, the topic.

        Raises:
            InvalidTopic: There is none, or one is malformed.
            InvalidHandler: The function cannot be called with a message.
            InvalidOption: An option has no meaning, or not for these messages.
        """
        meant, options = Subscription(topics), Options(every, when, order)

        def register(function: F) -> F:
            signature = check(function, optional="topic")
            classes = _classes(function, signature.message) if isinstance(when, Trigger) else ()
            return cast("F", self._take(function, meant, classes, options, told=signature.takes_optional))

        return register

    def receive(self, message: object, topic: str) -> None:
        """Hand a message to the handlers here that hear its topic; the first exception ends it."""
        try:
            route = self._table.routes[topic]
        except (KeyError, TypeError):
            route = self._route(topic)
        deliver(route, message)

    def _route(self, topic: str) -> Route:
        """Find out which handlers hear a topic."""
        routes = self._table.routes
        check_published(topic)
        heard = in_order(handler for handler in self.handlers if handler.meaning.covers(topic))
        return remember(routes, topic, tuple(_call(handler, topic) for handler in heard))


class Publisher(Bus[Subscriber]):
    """Where messages are published to topics, for all subscribers that are plugged in.

    Args:
        name: What to call it in messages; it needs none.
        failures: What happens when a handler fails: `"stop"` raises at once, and those after it do not hear the
            message; `"finish"` serves everyone, then raises one group of all failures; `"isolate"` serves everyone and
            tells each failure to `on_failure`. A `StopIteration` is no failure, but a request: it is raised as itself,
            at the latest when all are served.
        on_failure: For `"isolate"`: called with the error, the message and the handler.
        mailbox: Where to keep what is published with `keep=`, for those who come later.

    Raises:
        InvalidOption: An option has no meaning.

    Examples:
        >>> from torchsystem.services import Publisher, Subscriber
        >>> publisher, subscriber = Publisher(), Subscriber()
        >>> @subscriber.subscribe("accuracy")
        ... def stop_when_good(value: float) -> None:
        ...     if value > 0.99:
        ...         raise StopIteration
        >>> publisher.register(subscriber)
        >>> publisher.publish(0.995, "accuracy")
        Traceback (most recent call last):
        ...
        StopIteration
    """

    takes = Subscriber

    def __init__(
        self,
        name: str | None = None,
        *,
        failures: FailurePolicy = "stop",
        on_failure: OnFailure | None = None,
        mailbox: Mailbox | None = None,
    ) -> None:
        super().__init__(name, failures=failures, on_failure=on_failure)
        self.mailbox = mailbox

    def publish(self, message: object, topic: str, keep: Lifetime | None = None, *, overwrite: bool = False) -> None:
        """Hand a message to every handler that hears its topic, in order. That nobody does is no error.

        Args:
            message: Any object.
            topic: Words separated by `.` or `/`.
            keep: How long to keep it in the mailbox, under its topic, for those who come later; None does not.
            overwrite: Whether it replaces all that was kept of its topic.

        Raises:
            InvalidTopic: The topic is malformed.
            InvalidOption: It is to be kept, and there is no mailbox, or the lifetime is none; or it is not to be
                kept, and still to overwrite.
        """
        try:
            route = self._table.routes[topic]
        except (KeyError, TypeError):  # also what cannot even be looked for
            route = self._route(topic)
        if keep is not None:
            route = self._keep(message, topic, keep, overwrite=overwrite)
        elif overwrite:
            error = "overwrite=True without keep=: it would replace nothing. Say how long to keep it: keep=FOREVER."
            raise InvalidOption(error)
        for call in route:  # `deliver`, written out: calling it would cost a third of the delivery
            call(message)

    def _keep(self, message: object, topic: str, keep: Lifetime, *, overwrite: bool) -> Route:
        """Keep a message, and return who hears it now: who comes from now on receives it when it is plugged in."""
        if self.mailbox is None:
            error = f"keep={keep!r}: {self!r} has no mailbox. Give it one: Publisher(mailbox=Mailbox())."
            raise InvalidOption(error)
        with self._guard.lock:
            self.mailbox.write(topic, message, keep, overwrite=overwrite)
            return self._route(topic)

    def _kept_for(self, listener: Subscriber) -> list[tuple[Any, Any]]:
        """Read what was kept of the topics of a subscriber."""
        return [] if self.mailbox is None else self.mailbox.collect(partial(_hears, listener))

    def _welcome(self, plug: Plug[Subscriber]) -> None:
        """Let a subscriber receive what was kept of its topics, in order of arrival."""
        for topic, message in plug.kept:
            plug.listener.receive(message, topic)

    def _route(self, topic: str) -> Route:
        """Find out who hears a topic."""
        routes = self._table.routes
        check_published(topic)
        hearers = self._served(
            Heard(plug, handler.order, Hearer(_call(handler, topic), handler.function))
            for plug in self._plugs.values()
            if plug.here
            for handler in _handlers(plug.listener)
            if handler.meaning.covers(topic)
        )
        return remember(routes, topic, self._route_to(hearers) if hearers else self._nobody)


def _handlers(subscriber: Subscriber) -> Iterable[Handler[Subscription]]:
    """Return the handlers of a subscriber; one that receives in its own way hears everything."""
    if type(subscriber).receive is Subscriber.receive:
        return subscriber.handlers
    return [Handler(subscriber.receive, subscriber.receive, Subscription((">",)), told=True)]


def _hears(subscriber: Subscriber, topic: object) -> bool:
    """Tell whether a subscriber hears a topic; what is kept under other keys is no concern of publishers."""
    return isinstance(topic, str) and any(handler.meaning.covers(topic) for handler in _handlers(subscriber))


def _call(handler: Handler[Subscription], topic: str) -> Call:
    """Return what to call with a message: whoever wants to know the topic is told."""
    return partial(handler.call, topic=topic) if handler.told else handler.call


def _classes(function: Callable[..., object], parameter: str | None) -> tuple[type, ...]:
    """Return the classes of messages that a handler declares, as far as it does."""
    if parameter is None or (annotation := resolve_annotation(function, parameter)) is EMPTY:
        return (object,)
    meant = interest(annotation, place(function))
    return (*meant.classes, *meant.shapes)
