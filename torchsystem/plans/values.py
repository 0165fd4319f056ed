"""Values: what steps are given and what they return is plain JSON, so that a journal can keep it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeAlias

from torchsystem.errors import NotPlain

Plain: TypeAlias = "bool | int | float | str | list[Any] | dict[str, Any] | None"

BITS = 14_000  # of an int: Python reads no more than 4300 digits

_LEAVES = (str, int, bool, type(None))
_AS_IS = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_SORTED = json.JSONEncoder(allow_nan=False, separators=(",", ":"), sort_keys=True)


def plain(value: object, where: str, keep: type | None = None) -> Any:
    """Copy a value as plain JSON: a tuple becomes a list, and a dict, list or float of another class a plain one.

    Args:
        value: What is to be kept.
        where: What it is called, for messages.
        keep: A class whose objects are handed on as they are.

    Raises:
        NotPlain: Something in it is no JSON.

    Examples:
        >>> plain({"scores": (0.5, 1)}, "result")
        {'scores': [0.5, 1]}
    """
    try:
        return _plain(value, where, keep)
    except RecursionError:
        message = f"{where} contains itself, or is nested too deep for JSON. Write it as a tree of lists and dicts."
        raise NotPlain(message) from None


def _plain(value: Any, where: str, keep: type | None) -> Any:
    kind = type(value)
    if kind in _LEAVES:
        if kind is int and value.bit_length() > BITS:
            message = f"{where} is an int of {value.bit_length()} bits, which JSON is not read with. Write it as a str."
            raise NotPlain(message)
        return value
    if isinstance(value, float):  # also NumPy's, which is a float of another name
        if not math.isfinite(value):
            message = f"{where} is {float(value)}, which JSON has no number for. Write None, or a word, in its place."
            raise NotPlain(message)
        return float(value)
    if isinstance(value, list) or kind is tuple:
        return [_plain(item, f"{where}[{number}]", keep) for number, item in enumerate(value)]
    if isinstance(value, dict):
        _check_keys(value, where, keep)
        return {key: _plain(item, f"{where}[{key!r}]", keep) for key, item in value.items()}
    if _is(value, keep):
        return value
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    article = "an" if name[0] in "aeiou" else "a"
    message = (
        f"{where} is {article} {name}, which is no JSON. Write it as None, bool, int, float, str, list or dict; keep "
        f"what is larger in a file, and write its path."
    )
    raise NotPlain(message)


def _check_keys(value: dict[Any, Any], where: str, keep: type | None) -> None:
    """Refuse a dict that would not be read as it is written.

    Raises:
        NotPlain: A key is no str, or it is written as a reference is.
    """
    for key in value:
        if type(key) is not str:
            advice = "A reference can only be a value." if _is(key, keep) else f"Write {str(key)!r}."
            message = f"{where} has the key {key!r}, which is no str. {advice}"
            raise NotPlain(message)
    if keep is not None and value.keys() == {"$step"}:
        message = f"{where} is {value!r}, as which a journal keeps a reference. Call its key something else."
        raise NotPlain(message)


def _is(value: object, keep: type | None) -> bool:
    return keep is not None and isinstance(value, keep)


def fill(value: Any, kind: type, put: Callable[[Any], object]) -> Any:
    """Copy a plain value with something in the place of all objects of a kind."""
    if isinstance(value, list):
        return [fill(item, kind, put) for item in value]
    if isinstance(value, dict):
        return {key: fill(item, kind, put) for key, item in value.items()}
    return put(value) if isinstance(value, kind) else value


def found(value: Any, kind: type) -> list[Any]:
    """List all objects of a kind in a plain value, also among the keys of dicts."""
    if isinstance(value, list):
        return [thing for item in value for thing in found(item, kind)]
    if isinstance(value, dict):
        return [thing for pair in value.items() for item in pair for thing in found(item, kind)]
    return [value] if isinstance(value, kind) else []


def write(value: object, *, in_order: bool = False) -> str:
    """Write a plain value as JSON; `in_order`, the keys of dicts are sorted, and what is equal is written equally."""
    return (_SORTED if in_order else _AS_IS).encode(value)


def read(text: str) -> Any:
    """Read what was written."""
    return json.loads(text)
