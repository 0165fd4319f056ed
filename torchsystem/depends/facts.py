"""What is known of a callable once and for all: looked up for each use, so found out once."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torchsystem.depends.declared import describe
from torchsystem.depends.kinds import Kind, hidden_kind, is_interface, kind, target
from torchsystem.depends.sentinels import EMPTY
from torchsystem.depends.signature import Parameters, parameters_of
from torchsystem.errors import InvalidDependency


class Facts(NamedTuple):
    """What is known of one callable.

    Attributes:
        target: What is really called.
        kind: How it gives its value.
        is_interface: Whether it only says what is needed.
        parameters: What it takes; nothing where that cannot be read.
    """

    target: Callable[..., object]
    kind: Kind
    is_interface: bool
    parameters: Parameters


_known: WeakKeyDictionary[types.FunctionType, tuple[Kind, bool, Parameters]] = WeakKeyDictionary()


def facts_of(factory: Callable[..., object]) -> Facts:
    """Find out about ``factory``.

    Raises:
        InvalidDependency: A parameter is marked twice, or the mark stands where it is not seen.
        UnresolvedAnnotation: An annotation that decides something cannot be evaluated.
    """
    if not isinstance(factory, types.FunctionType):
        return Facts(target(factory), _kind(factory), is_interface(factory), parameters_of(factory) or ())
    known = _known.get(factory)
    if known is None:
        known = (_kind(factory), is_interface(factory), parameters_of(factory) or ())
        # A default, or a dependency, may lead back to the function, which could never be forgotten then.
        if all(parameter.default is EMPTY and parameter.dependency is None for parameter in known[-1]):
            _known[factory] = known
    return Facts(target(factory), *known)


def _kind(factory: Callable[..., object]) -> Kind:
    hidden = hidden_kind(factory)
    if hidden is not None:
        raise InvalidDependency(wrapped_plainly(factory, hidden))
    return kind(factory)


def wrapped_plainly(function: Callable[..., object], hidden: Kind) -> str:
    """Say that a plain function is wrapped around one of another kind, so that nobody knows what it gives."""
    sort = {Kind.COROUTINE: "async def", Kind.ASYNC_GENERATOR: "async def with yield"}.get(hidden, "def with yield")
    return (
        f"{describe(function)} wraps a function that is {hidden.value}, and is plain itself: nobody can tell what it "
        f"gives. Write the wrapper as `{sort}` too, or pass a function that says so (`lambda: wrapper()`) if it "
        f"really gives the value."
    )
