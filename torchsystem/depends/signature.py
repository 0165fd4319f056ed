"""What a callable takes: its parameters, and which of them are dependencies."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from torchsystem.depends.annotations import evaluate, evaluate_but_for_unknown
from torchsystem.depends.kinds import target, unwrapped
from torchsystem.depends.marker import Dependency, Depends
from torchsystem.depends.marks import EMPTY
from torchsystem.errors import InvalidDependency

# The kinds of parameters, numbered as in `inspect`, which costs 10 ms at import.
POSITIONAL_ONLY, POSITIONAL, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)
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
        return self.kind in {VAR_POSITIONAL, VAR_KEYWORD}


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

    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return None
    found: list[Parameter] = []
    for p in signature.parameters.values():
        default, annotation = (EMPTY if value is p.empty else value for value in (p.default, p.annotation))
        found.append(Parameter(p.name, int(p.kind), default, _dependency(function, p.name, default, annotation)))
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
        dependency = _dependency(function, name, default, annotations.get(name, EMPTY))
        found.append(Parameter(name, kind, default, dependency))

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


def _dependency(function: Callable[..., object], name: str, default: object, annotation: object) -> Dependency | None:
    """Find the mark of one parameter: as its default, or in its ``Annotated``."""
    if default is Depends:
        message = f"{_describe(function)}: {name}=Depends stands without its dependency. Write {name}=Depends(f)."
        raise InvalidDependency(message)
    marked = default if isinstance(default, Dependency) else None
    if annotation is EMPTY or isinstance(annotation, type):
        return marked
    found = _marks(_evaluated(function, name, annotation))
    if len(found) + (marked is not None) > 1:
        message = f"{_describe(function)}: {name!r} is marked with Depends more than once. Keep one."
        raise InvalidDependency(message)
    return found[0] if found else marked


def _evaluated(function: Callable[..., object], name: str, annotation: object) -> object:
    """Evaluate an annotation as far as its marks: what else is in it may be a name for type checkers alone."""
    if not isinstance(annotation, str):
        return annotation
    resolved: object = evaluate_but_for_unknown(annotation, function)
    if not _marks(resolved) and ("Annotated" in annotation or "Depends" in annotation):
        return evaluate(annotation, function, name)  # says what is unknown, if that is why
    return resolved


def _marks(annotation: object) -> list[Dependency]:
    if typing.get_origin(annotation) is not typing.Annotated:
        return []
    return [extra for extra in typing.get_args(annotation)[1:] if isinstance(extra, Dependency)]


def _describe(function: Callable[..., object]) -> str:
    code = getattr(unwrapped(function), "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if isinstance(code, types.CodeType) else ""
    return f"{getattr(function, '__qualname__', repr(function))}{where}"
