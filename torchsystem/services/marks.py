"""Marks: which methods of a listener class are handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from torchsystem.depends.annotations import resolve_annotation
from torchsystem.errors import InvalidHandler, UnresolvedAnnotation
from torchsystem.services.options import Options, Predicate
from torchsystem.services.signatures import place

if TYPE_CHECKING:
    from torchsystem.triggers import Trigger

F = TypeVar("F", bound=Callable[..., object])

_MARK = "__torchsystem_handler__"


@dataclass(frozen=True, slots=True)
class Mark:
    """What `@handler` leaves on a method.

    Attributes:
        function: The method, as the class body has it.
        options: What was asked for.
        annotations: Those of its parameters that could be resolved where it was written, where more names are
            visible than later.
    """

    function: Callable[..., object]
    options: Options
    annotations: Mapping[str, Any]


@overload
def handler(function: F, /) -> F: ...
@overload
def handler(*, every: int = ..., when: Predicate | Trigger | None = ..., order: int = ...) -> Callable[[F], F]: ...
def handler(
    function: Callable[..., object] | None = None,
    /,
    *,
    every: int = 1,
    when: Predicate | Trigger | None = None,
    order: int = 0,
) -> Callable[..., object]:
    """Mark a method of a `Consumer` subclass as a handler: each instance registers it, injected, when it is made.

    The events are those that the annotation of its first parameter after `self` means. A method that overrides a
    marked one takes its place, marked or not; overriding it by None leaves it out.

    Args:
        function: The method.
        every: As in `Consumer.handler`.
        when: As in `Consumer.handler`.
        order: As in `Consumer.handler`.

    Returns:
        The method itself.

    Raises:
        InvalidHandler: It is no method.
        InvalidOption: An option has no meaning.

    Examples:
        >>> from torchsystem.services import Consumer, event, handler
        >>> @event
        ... class Trained:
        ...     loss: float
        >>> class Best(Consumer):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.loss = float("inf")
        ...     @handler
        ...     def on_trained(self, event: Trained) -> None:
        ...         self.loss = min(self.loss, event.loss)
        >>> best = Best()
        >>> for loss in (0.5, 0.25, 0.75):
        ...     best.consume(Trained(loss))
        >>> best.loss
        0.25
    """
    options = Options(every, when, order)

    def mark(function: Callable[..., object]) -> Callable[..., object]:
        if not isinstance(function, FunctionType) or not _is_method(function):
            message = f"{place(function)} is no method. Write @consumer.handler to register a function with a consumer."
            raise InvalidHandler(message)
        setattr(function, _MARK, Mark(function, options, dict(_resolved(function))))
        return function

    return mark if function is None else mark(function)


def marked(cls: type) -> dict[str, Mark]:
    """Return the marks of a class, by the names of its methods: those of its bases first, each where it first was."""
    found: dict[str, Mark] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            function = getattr(member, "__func__", member)
            if isinstance(function, FunctionType) and _MARK in vars(function):
                found[name] = vars(function)[_MARK]
            elif member is None:
                found.pop(name, None)
    return found


def _is_method(function: FunctionType) -> bool:
    """Tell whether a function is written in the body of a class."""
    *_, parent, _ = ("", *function.__qualname__.split("."))
    return parent not in {"", "<locals>"}


def _resolved(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what annotations mean now, while the body of the class and all around it can be seen."""
    for name in function.__annotations__:
        with suppress(UnresolvedAnnotation):  # perhaps the class itself, or something below it
            yield name, resolve_annotation(function, name)
