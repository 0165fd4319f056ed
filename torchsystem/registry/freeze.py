"""Freezing: from what a constructor is given to what is remembered of it."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType
from typing import Any

from torchsystem.registry.record import recall
from torchsystem.registry.values import PLAIN, Frozen, Unknown


def freeze(value: object) -> Frozen:
    """Keep what makes the identity of a value, as it is at this moment.

    Nothing is consumed or changed, and no tensor is copied. What has no canonical form is no mistake yet: perhaps
    nobody asks for the hash.

    Args:
        value: What a constructor is given.

    Returns:
        A plain value itself; of anything else, a frozen copy of what it is made of.
    """
    try:
        return _freeze(value)
    except RecursionError:
        return Unknown(f"{_article(type(value).__name__)} that contains itself", look=_look(value))


def _freeze(value: Any) -> Frozen:
    kind = type(value)
    if kind in PLAIN:
        plain: Frozen = value
        return plain
    if kind is list or kind is tuple:
        return _freeze_items(value)
    if kind is dict:
        return _freeze_dict(value)
    identity = recall(value)
    if identity is not None and identity.construction is not None:
        return identity.construction if identity.name is None else identity.construction.renamed(identity.name)
    return _freeze_subclass(value)


def _freeze_items(items: list[Any] | tuple[Any, ...]) -> Frozen:
    kept = tuple(items)
    return kept if PLAIN.issuperset(map(type, kept)) else tuple([_freeze(item) for item in kept])


def _freeze_dict(items: dict[Any, Any]) -> Frozen:
    if {str}.issuperset(map(type, items)):
        return {key: _freeze(item) for key, item in items.items()}
    return Unknown("a dict with other keys than strings", look=_look(items))


def _freeze_subclass(value: Any) -> Frozen:
    """Freeze a value of a subclass of a plain type as `json` would see it."""
    match value:
        case int():
            return int(value)
        case float():
            return float(value)
        case str():
            return str.__str__(value)
        case list() | tuple():
            return _freeze_items(value)
        case dict():
            return _freeze_dict(value)
        case _:
            return _unknown(value)


def _unknown(value: Any) -> Unknown:
    name = type(value).__name__
    look = _look(value)
    match value:
        case io.IOBase():
            return Unknown(f"{_article(name)}, a stream", look=look)
        case Iterator():
            return Unknown(f"{_article(name)}, which can be read only once", look=look)
        case FunctionType() | MethodType() | BuiltinFunctionType() | MethodWrapperType():
            words = "a lambda" if value.__name__ == "<lambda>" else f"the function {value.__qualname__}"
            return Unknown(f"{words}, which another process cannot find by name", look=look)
        case _:
            return Unknown(f"{_article(name)}, which is not registered", f"Write `register({name})`", look)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in {"a", "e", "i", "o", "u"} else f"a {noun}"


def _look(value: object) -> Callable[[], object]:
    """Give a look at a value that does not keep it alive, unless it is a bare `object()`, which holds nothing."""
    if type(value) is object:
        return lambda: value
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: None
