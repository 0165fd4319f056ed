"""The words for what can be wrong with one place of a graph."""

from __future__ import annotations

import os
import types
from collections.abc import Iterable

from torchsystem.depends.graph import Factory, Node, Problem
from torchsystem.depends.kinds import unwrapped
from torchsystem.depends.signature import Parameter
from torchsystem.errors import (
    AsyncInSync,
    CyclicDependency,
    InvalidDependency,
    ScopeMismatch,
    UnboundInterface,
    UnfilledParameter,
)


def name_of(factory: object) -> str:
    """Name a callable as its author would: without the function in which it was defined."""
    name = getattr(factory, "__qualname__", None)
    if not isinstance(name, str):
        name = getattr(getattr(factory, "func", None), "__qualname__", None) or type(factory).__qualname__
    return str(name).rpartition("<locals>.")[2]


def place_of(factory: object) -> str:
    """Tell in which file and line a callable is defined; empty if nobody knows."""
    code = getattr(unwrapped(factory), "__code__", None)
    if isinstance(code, types.CodeType):
        return f"{code.co_filename.replace(os.sep, '/').rpartition('/')[2]}:{code.co_firstlineno}"
    return ""


def unbound(node: Node) -> Problem:
    """Word that nobody bound an interface."""
    name = name_of(node.implementation)
    override = f" (bound to {name_of(node.declared)})" if node.implementation is not node.declared else ""
    return Problem(
        UnboundInterface,
        f"{name}{override} only says what is needed; nobody bound an implementation. In the composition root, write "
        f"`dependency_overrides[{name}] = ...` on the service (or its provider).",
    )


def cycle(path: Iterable[Factory | str], end: Factory | str) -> Problem:
    """Word that something needs itself, with the way from it to it."""
    names = [step if isinstance(step, str) else name_of(step) for step in path]
    last = end if isinstance(end, str) else name_of(end)
    names = names[names.index(last) :] if last in names else names
    return Problem(
        CyclicDependency, f"a cycle: {' → '.join([*names, last])}. Let one of them do without, or take an argument."
    )


def too_deep(handler: Factory) -> str:
    """Word that there are more levels of dependencies than Python can call."""
    return (
        f"{name_of(handler)}: its dependencies need dependencies on too many levels. Let one of them make several "
        f"things at once."
    )


def async_in_sync(node: Node, handler: Factory) -> Problem:
    """Word that a sync handler cannot wait for an async dependency."""
    name, user = name_of(node.implementation), name_of(handler)
    return Problem(
        AsyncInSync, f"{name} is async and {user} is not. Write `async def {user}`, or bind a sync implementation."
    )


def too_short(node: Node) -> Problem:
    """Word that a kept value explicitly asks for one that is made for a call."""
    name = name_of(node.declared)
    return Problem(
        ScopeMismatch,
        f"{name} is asked for with scope='call' by something that the provider keeps after the call. Leave the scope "
        f"out (it is then kept as well), or give its user scope='call'.",
    )


def asks_for_argument(node: Node, parameter: Parameter) -> Problem:
    """Word that a kept value cannot be made from what one call was given."""
    return Problem(
        ScopeMismatch,
        f"{name_of(node.implementation)} is kept by the provider, but its parameter {parameter.name!r} would be filled "
        f"from the arguments of one call. Make it a dependency (`{parameter.name}=Depends(...)`), or use scope='call'.",
    )


def unfilled(node: Node, parameter: Parameter, named: Iterable[str]) -> Problem:
    """Word that nothing fills a parameter of a dependency."""
    name = name_of(node.implementation)
    there = ", ".join(named) or "none"
    return Problem(
        UnfilledParameter,
        f"nothing fills the parameter {parameter.name!r} of {name}: it is neither a dependency nor an argument of the "
        f"handler (those are: {there}). Write `{parameter.name}=Depends(...)`, give it a default, or name it as one.",
    )


def behind_default(node: Node, parameter: Parameter) -> Problem:
    """Word that a positional-only parameter cannot be reached past one that keeps its default."""
    return Problem(
        InvalidDependency,
        f"{parameter.name!r} of {name_of(node.implementation)} is positional-only and stands behind a parameter with a "
        f"default, so it cannot be passed. Put it first, or drop the '/'.",
    )
