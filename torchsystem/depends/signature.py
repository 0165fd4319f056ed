"""What a callable takes: its parameters, and which of them are dependencies."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from torchsystem.depends.declared import mark_of, refuse_hidden
from torchsystem.depends.kinds import target
from torchsystem.depends.marker import Dependency
from torchsystem.depends.sentinels import EMPTY

# The kinds of parameters, numbered as in `inspect`, which costs 10 ms at import.
POSITIONAL_ONLY, POSITIONAL, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)
_VARIADIC = (VAR_POSITIONAL, VAR_KEYWORD)
_HAS_VAR_POSITIONAL, _HAS_VAR_KEYWORD = 0x04, 0x08  # flags of a code object


class Parameter(NamedTuple):
    """One parameter of a callable."""

    name: str
    kind: int
    default: Any
    dependency: Dependency | None

    @property
    def is_variadic(self) -> bool:
        """Tell ``*args`` and ``**kwargs``."""
        return self.kind in _VARIADIC


Parameters = tuple[Parameter, ...]


def parameters_of(function: Callable[..., object]) -> Parameters | None:
    """Read the parameters of ``function``; None where it has no signature (``dict``, ``partial(int, "7")``).

    Raises:
        InvalidDependency: A parameter is marked twice, or the mark stands where it is not seen.
        UnresolvedAnnotation: The annotation seems to hold the mark, and cannot be evaluated.
    """
    function = target(function)
    return _read_function(function) if type(function) is types.FunctionType else _read(function)


def _read(function: Callable[..., object]) -> Parameters | None:
    import inspect  # noqa: PLC0415 - not needed for plain functions

    function = typing.get_origin(function) or function  # Box[int]() calls Box
    try:
        parameters = list(inspect.signature(function).parameters.values())
        if isinstance(function, type) and all(p.kind in _VARIADIC for p in parameters):
            # A metaclass or a `__new__` that passes everything on: what it takes, its constructor says.
            parameters = list(inspect.signature(function.__init__).parameters.values())[1:]  # type: ignore[misc]
    except (ValueError, TypeError):
        refuse_hidden(function, [])
        return None
    found: list[Parameter] = []
    for p in parameters:
        default, annotation = (EMPTY if value is p.empty else value for value in (p.default, p.annotation))
        mark = mark_of(function, p.name, default, annotation, variadic=p.kind in _VARIADIC)
        found.append(Parameter(p.name, int(p.kind), default, mark))
    if not isinstance(function, functools.partial):  # which may fill some
        refuse_hidden(function, [p.dependency for p in found if p.dependency is not None])
    return tuple(found)


def _read_function(function: types.FunctionType) -> Parameters:
    """Read the code object itself: a tenth of what ``inspect.signature`` takes, and every handler pays it."""
    if function.__dict__:  # perhaps __wrapped__ or __signature__
        return _read(function) or ()
    code, annotations = function.__code__, function.__annotations__
    names, count = code.co_varnames, code.co_argcount
    keywords, defaults = function.__kwdefaults__ or {}, function.__defaults__ or ()
    first_default = count - len(defaults)
    found: list[Parameter] = []

    def add(name: str, kind: int, default: object) -> None:
        mark = mark_of(function, name, default, annotations.get(name, EMPTY), variadic=kind in _VARIADIC)
        found.append(Parameter(name, kind, default, mark))

    for index in range(count):
        kind = POSITIONAL_ONLY if index < code.co_posonlyargcount else POSITIONAL
        add(names[index], kind, defaults[index - first_default] if index >= first_default else EMPTY)
    variadic = count + code.co_kwonlyargcount
    if code.co_flags & _HAS_VAR_POSITIONAL:
        add(names[variadic], VAR_POSITIONAL, EMPTY)
        variadic += 1
    for name in names[count : count + code.co_kwonlyargcount]:
        add(name, KEYWORD_ONLY, keywords.get(name, EMPTY))
    if code.co_flags & _HAS_VAR_KEYWORD:
        add(names[variadic], VAR_KEYWORD, EMPTY)
    return tuple(found)
