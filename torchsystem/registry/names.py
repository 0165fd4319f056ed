"""Names under which another process finds the same class or function."""

from __future__ import annotations

import sys
from types import MethodDescriptorType, MethodType, ModuleType
from typing import Any

_DEEPEST = 32  # packages and classes inside one another: nobody goes so far, and what comes from anywhere may try


def name_of_type(cls: type) -> str:
    """Name a class by its module and itself."""
    return f"{cls.__module__}.{cls.__qualname__}"


def findable_name(thing: Any) -> str | None:
    """Give the name under which a class or a function is found, in this process and in others.

    Returns:
        Its module and name; `None` for what no name leads to: a lambda, what is defined in a function, a method of an
        object.
    """
    # A method written in C knows only its class.
    module = thing.__objclass__.__module__ if isinstance(thing, MethodDescriptorType) else thing.__module__
    # What is written in C may have been moved: `torch.relu` is, for itself, `_VariableFunctionsClass.relu`.
    for path in (thing.__qualname__, thing.__name__):
        found = _follow(sys.modules.get(module), path.split("."))
        if found is thing or (isinstance(thing, MethodType) and found == thing):
            return f"{module}.{path}"
    return None


def find(name: str) -> Any:
    """Find what has a name in the modules that are loaded: nothing is imported, and nobody's code is run for it.

    Returns:
        What is found; `None` if it is nothing.
    """
    parts = name.split(".")
    for length in range(min(len(parts) - 1, _DEEPEST), 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        if module is not None:
            return _follow(module, parts[length:])
    return None


def _follow(thing: Any, path: list[str]) -> Any:
    for part in path:
        thing = _inside(thing, part)
    return thing


def _inside(thing: Any, name: str) -> Any:
    """Look into a module or a class, past its `__getattr__`, by which many a module imports others."""
    if isinstance(thing, ModuleType):
        return vars(thing).get(name)
    if not isinstance(thing, type):
        return None
    held = next((vars(base)[name] for base in thing.__mro__ if name in vars(base)), None)
    return held.__get__(None, thing) if isinstance(held, staticmethod | classmethod) else held


def article(noun: str) -> str:
    """Put the indefinite article before a noun."""
    return f"an {noun}" if noun[:1].lower() in {"a", "e", "i", "o", "u"} else f"a {noun}"
