"""Names under which another process finds the same class or function."""

from __future__ import annotations

import sys
from operator import attrgetter
from types import MethodType
from typing import Any


def name_of_type(cls: type) -> str:
    """Name a class by its module and itself."""
    return f"{cls.__module__}.{cls.__qualname__}"


def findable_name(thing: Any) -> str | None:
    """Give the name under which a class or a function is found, in this process and in others.

    Returns:
        Its module and name; `None` for what no name leads to: a lambda, what is defined in a function, a method of an
        object.
    """
    # What is written in C may have been moved: `torch.relu` is, for itself, `_VariableFunctionsClass.relu`.
    for name in (f"{thing.__module__}.{thing.__qualname__}", f"{thing.__module__}.{thing.__name__}"):
        found = find(name)
        if found is thing or (isinstance(thing, MethodType) and found == thing):
            return name
    return None


def find(name: str) -> Any:
    """Find what has a name in the modules that are loaded: nothing is imported for it.

    Returns:
        What is found; `None` if it is nothing.
    """
    module, _, attributes = name.rpartition(".")
    while module not in sys.modules:
        if not module:
            return None
        module, _, outer = module.rpartition(".")
        attributes = f"{outer}.{attributes}"
    try:
        return attrgetter(attributes)(sys.modules[module])
    except AttributeError:
        return None
