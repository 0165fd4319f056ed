"""Signatures: what must be true of a function before it can handle messages."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torchsystem.depends.kinds import Kind, kind
from torchsystem.depends.sentinels import EMPTY
from torchsystem.depends.signature import KEYWORD_ONLY, POSITIONAL_ONLY, VAR_KEYWORD, parameters_of
from torchsystem.errors import InvalidHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchsystem.depends.signature import Parameter


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


def can_be_called_with(function: object, count: int) -> bool:
    """Tell whether something is a plain function of so many arguments, as far as it says what it takes."""
    if not callable(function) or kind(function) is not Kind.PLAIN:
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a function written in C may not say
        return True
    return True


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
