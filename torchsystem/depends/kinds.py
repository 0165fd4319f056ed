"""What sort of callable a dependency is: how it is called, and whether there is anything to call."""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from torchsystem.depends.annotations import evaluate
from torchsystem.errors import UnresolvedAnnotation


class Kind(Enum):
    """How a dependency gives its value."""

    PLAIN = "plain"
    GENERATOR = "generator"
    COROUTINE = "async"
    ASYNC_GENERATOR = "async generator"

    def __init__(self, text: str) -> None:
        self.is_async = text.startswith("async")  # the value must be awaited
        self.cleans_up = text.endswith("generator")  # something runs after the value was used


def _code_of(decorator: Callable[..., Any]) -> object:
    return decorator(lambda: None).__code__


# By flag of a code object, as in `inspect`.
_KINDS = {0x200: Kind.ASYNC_GENERATOR, 0x80: Kind.COROUTINE, 0x20: Kind.GENERATOR}
_FLAGS = sum(_KINDS)

# All functions made by these decorators share one code object each: the surest way to know them.
_CONTEXT_MANAGER = _code_of(contextlib.contextmanager)
_ASYNC_CONTEXT_MANAGER = _code_of(contextlib.asynccontextmanager)


def managed_kind(dependency: object) -> Kind | None:
    """Tell what a ``@contextmanager`` or ``@asynccontextmanager`` is entered as; None for all else."""
    code = getattr(dependency, "__code__", None)
    if code is _CONTEXT_MANAGER:
        return Kind.GENERATOR
    return Kind.ASYNC_GENERATOR if code is _ASYNC_CONTEXT_MANAGER else None


def target(dependency: Callable[..., object]) -> Callable[..., object]:
    """Return what is really called: the generator function below a ``@contextmanager``, else ``dependency``."""
    function: Any = dependency
    if type(function) is types.FunctionType and not function.__dict__:
        return dependency
    if isinstance(function, partial):
        inner = target(function.func)
        return dependency if inner is function.func else partial(inner, *function.args, **function.keywords)
    if managed_kind(function) is None:
        return dependency
    managed: Any = getattr(function, "__func__", function)
    inner = managed.__wrapped__
    return types.MethodType(inner, function.__self__) if isinstance(function, types.MethodType) else inner


def kind(dependency: Callable[..., object]) -> Kind:
    """Tell how ``dependency`` gives its value, by what it is and never by calling it."""
    function: Any = dependency
    if type(function) is types.FunctionType and not function.__dict__:  # nothing is wrapped in it
        return _KINDS.get(function.__code__.co_flags & _FLAGS, Kind.PLAIN)
    while isinstance(function, partial):
        function = function.func
    managed = managed_kind(function)
    if managed is not None:
        return managed
    if isinstance(function, type):
        return Kind.PLAIN
    code = getattr(function, "__code__", None)  # also of a mock that passes for an async function
    if code is None:
        code = getattr(type(function).__call__, "__code__", None)
    flags = getattr(code, "co_flags", 0)
    return _KINDS.get(flags & _FLAGS, Kind.PLAIN) if isinstance(flags, int) else Kind.PLAIN


def hidden_kind(function: Callable[..., object]) -> Kind | None:
    """Tell what a plain function hides that was wrapped around an async or generator function; None as a rule."""
    if not hasattr(function, "__wrapped__") or kind(function) is not Kind.PLAIN:
        return None
    inner: Any = unwrapped(function)
    found = kind(inner)
    return None if found is Kind.PLAIN else found


def unwrapped(function: object) -> object:
    """Follow ``__wrapped__`` to the function that was decorated."""
    seen = {id(function)}
    while (inner := getattr(function, "__wrapped__", None)) is not None and id(inner) not in seen:
        seen.add(id(inner))
        function = inner
    return function


def is_interface(dependency: object) -> bool:
    """Tell whether ``dependency`` only says what is needed, so that somebody has to bind an implementation.

    Such are an abstract class, a protocol, an abstract method, and a function with an empty body whose return
    annotation excludes ``None`` (``def f() -> X | None: return None`` has the same bytecode as an empty body, so
    that only the annotation can tell).
    """
    if type(dependency) is types.FunctionType and not dependency.__dict__:
        return _has_empty_body(dependency) and not _may_return_none(dependency)
    while isinstance(dependency, partial):
        dependency = dependency.func
    dependency = typing.get_origin(dependency) or dependency
    if isinstance(dependency, type):
        return bool(getattr(dependency, "__abstractmethods__", None) or getattr(dependency, "_is_protocol", False))
    if getattr(dependency, "__isabstractmethod__", False):
        return True
    function = unwrapped(dependency.__func__ if isinstance(dependency, types.MethodType) else dependency)
    return isinstance(function, types.FunctionType) and _has_empty_body(function) and not _may_return_none(function)


def _bare() -> None: ...
def _documented() -> None:
    """Say what is needed."""


async def _async_bare() -> None: ...
async def _async_documented() -> None:
    """Say what is needed."""


# The bytecode of a body that is empty; a docstring comes first among the constants, and ``None``, which is returned,
# then second. ``return 5`` has the same bytecode, with another constant there.
_EMPTY_BODIES = {
    function.__code__.co_code: function.__code__.co_consts.index(None)
    for function in (_bare, _documented, _async_bare, _async_documented)
}


def _has_empty_body(function: types.FunctionType) -> bool:
    """Look for a body of ``...``, ``pass`` or a docstring alone: it does nothing but return ``None``."""
    code = function.__code__
    index = _EMPTY_BODIES.get(code.co_code)
    return index is not None and code.co_consts[index] is None


def _may_return_none(function: types.FunctionType) -> bool:
    annotation: Any = function.__annotations__.get("return", Any)
    if isinstance(annotation, str):
        try:
            annotation = evaluate(annotation, function, "return")
        except UnresolvedAnnotation:  # a name under TYPE_CHECKING: a class, unless the text says more
            return not {"None", "Optional", "Any", "object"}.isdisjoint(_words(annotation))
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = annotation.__origin__
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = typing.get_args(annotation) if is_union else (annotation,)
    takes_none = (None, type(None), Any, object)
    return any(isinstance(o, typing.TypeVar) or any(o is one for one in takes_none) for o in options)


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() or letter == "_" else " " for letter in text).split()
