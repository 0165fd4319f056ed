"""What batches and predictions are made of: containers and dataclasses, made anew from changed parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any


def remade(value: Any, change: Callable[[Any], Any]) -> Any:
    """Make a container, or a dataclass, of the same kind from its parts, each changed; anything else stays as it is.

    Examples:
        >>> remade({"one": (1, 2)}, lambda part: remade(part, str))
        {'one': ('1', '2')}
    """
    if isinstance(value, dict):
        twin = copy(value)  # of its kind, whose entries may be attributes, too
        for key, part in value.items():
            twin[key] = change(part)
        return twin
    if isinstance(value, Mapping):
        kind: Any = type(value)
        return kind({key: change(part) for key, part in value.items()})
    if isinstance(value, tuple | list):
        parts = [change(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return _of_fields(value, change) if is_dataclass(value) and not isinstance(value, type) else value


def method_of(value: Any, name: str) -> Callable[..., Any] | None:
    """Return a method by its name; of a mapping, whose attributes may be its entries, only one that its class has."""
    if isinstance(value, Mapping) and not hasattr(type(value), name):
        return None
    found = getattr(value, name, None)
    return found if callable(found) else None


def _of_fields(value: Any, change: Callable[[Any], Any]) -> Any:
    twin = copy(value)
    for field in fields(value):
        if hasattr(value, field.name):
            object.__setattr__(twin, field.name, change(getattr(value, field.name)))  # frozen ones have no other way
    return twin
