"""Who handles which events of a domain, decided when a handler is assigned and not when an event comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NoReturn, TypeAlias

from torchsystem.depends.kinds import Kind, kind
from torchsystem.depends.mistakes import name_of, place_of
from torchsystem.depends.sentinels import EMPTY
from torchsystem.depends.signature import KEYWORD_ONLY, VAR_KEYWORD, Parameter, parameters_of
from torchsystem.errors import InvalidEventHandler, InvalidEventType

Handler: TypeAlias = Callable[..., object]
Calls: TypeAlias = tuple[Callable[[Any], object], ...]

ROUTES_KEPT = 1024
BY_NAME = {KEYWORD_ONLY, VAR_KEYWORD}


class Handlers(MutableMapping[type, Handler | Sequence[Handler]]):
    """A dictionary from classes of events to a function, or several, that refuses what could not work.

    What is read back is what will be called: the function, or the tuple of functions.

    Attributes:
        routes: What to call for the instances of a class, known from the first of them on; see `route`.
    """

    def __init__(self, assigned: Mapping[type, Handler | Sequence[Handler]] | None = None) -> None:
        self.routes: dict[type, Calls] = {}
        self._assigned: dict[type, Handler | tuple[Handler, ...]] = {}
        self._calls: dict[type, Calls] = {}
        if assigned is not None:
            self.update(assigned)

    def __getitem__(self, event: type) -> Handler | tuple[Handler, ...]:
        return self._assigned[event]

    def __setitem__(self, event: type, handlers: Handler | Sequence[Handler]) -> None:
        """Let a function, or several in order, handle the events of a class and of its subclasses.

        Raises:
            InvalidEventType: The key is no class.
            InvalidEventHandler: A handler cannot be called with the event, nor with nothing.
        """
        _check_class(event)
        assigned = handlers if callable(handlers) else _sequence(event, handlers)
        several = (assigned,) if callable(assigned) else assigned
        self._calls[event] = tuple(_call(event, handler) for handler in several)
        self._assigned[event] = assigned
        self.routes = {}

    def __delitem__(self, event: type) -> None:
        del self._assigned[event], self._calls[event]
        self.routes = {}

    def __iter__(self) -> Iterator[type]:
        return iter(self._assigned)

    def __len__(self) -> int:
        return len(self._assigned)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._assigned!r})"

    def route(self, event: object) -> Calls:
        """Find what to call with an event: the handlers of the nearest class in its MRO that has any."""
        routes = self.routes  # captured before looking: an assignment meanwhile puts a new dictionary in its place
        cls = event if isinstance(event, type) else type(event)
        if (calls := routes.get(cls)) is None:
            calls = self._nearest(cls)
            # Not kept for a metaclass: `Events.handle` looks for `type(event)`, and that of a class is its metaclass.
            if not issubclass(cls, type):
                if len(routes) >= ROUTES_KEPT:
                    routes.clear()
                routes[cls] = calls
        return calls

    def _nearest(self, cls: type) -> Calls:
        for base in cls.__mro__:
            if base in self._calls:
                return self._calls[base]
        return RAISED if issubclass(cls, BaseException) else IGNORED


def _raise(event: BaseException) -> NoReturn:
    raise event


IGNORED: Calls = ()  # what comes of an event that nobody handles,
RAISED: Calls = (_raise,)  # and of an exception that nobody handles


def _check_class(event: object) -> None:
    if not isinstance(event, type):
        message = (
            f"handlers[{event!r}]: events are handled by their class, and this is none. "
            f"Write handlers[{type(event).__qualname__}], or one assignment for each class of a union."
        )
        raise InvalidEventType(message)


def _sequence(event: type, handlers: Sequence[Handler]) -> tuple[Handler, ...]:
    if _is_sequence(handlers) and len(handlers) > 0 and all(map(callable, handlers)):
        return tuple(handlers)
    message = (
        f"handlers[{event.__qualname__}] = {handlers!r}: assign a function, or a list of one or more. "
        f"Write `del handlers[{event.__qualname__}]` to have none, or assign `lambda: None` to ignore the event."
    )
    raise InvalidEventHandler(message)


def _is_sequence(handlers: object) -> bool:
    return isinstance(handlers, Sequence)


def _call(event: type, handler: Handler) -> Callable[[Any], object]:
    """Make sure that a handler can handle, and give it the event only if it takes one."""
    if kind(handler) is not Kind.PLAIN:
        raise _unfit(event, handler, "calling it would run nothing of it. Write a plain function")
    parameters = parameters_of(handler)
    if parameters is None:  # a builtin such as dict.update: the event is what it is there for
        return handler
    if not hasattr(handler, "__wrapped__") and any(parameter.dependency is not None for parameter in parameters):
        raise _unfit(event, handler, "nobody makes its dependencies. Decorate it with @inject(provider)")
    takes = bool(parameters) and parameters[0].dependency is None and parameters[0].kind not in BY_NAME
    needed = [one.name for one in parameters[takes:] if _is_needed(one)]
    if needed:
        raise _unfit(
            event, handler, f"nobody gives it {', '.join(needed)}. Write a function of one parameter, or of none"
        )
    return handler if takes else lambda _: handler()


def _is_needed(parameter: Parameter) -> bool:
    return parameter.default is EMPTY and parameter.dependency is None and not parameter.is_variadic


def _unfit(event: type, handler: Handler, complaint: str) -> InvalidEventHandler:
    place = place_of(handler)
    return InvalidEventHandler(f"handlers[{event.__qualname__}] = {name_of(handler)} ({place}): {complaint}.")
