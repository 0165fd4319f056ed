"""What a callable takes: its parameters, and which of them are dependencies."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torchsystem.depends.annotations import evaluate, evaluate_but_for_unknown
from torchsystem.depends.kinds import target
from torchsystem.depends.marker import Dependency, Depends
from torchsystem.errors import InvalidDependency, UnresolvedAnnotation

EMPTY = inspect.Parameter.empty
POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD


class _Missing:
    """The default of what a caller need not give: unlike ``None``, nobody passes it by chance."""

    def __repr__(self) -> str:
        return "<missing>"


MISSING = _Missing()


class Parameter(NamedTuple):
    """One parameter of a callable."""

    name: str
    kind: int  # as in inspect.Parameter
    default: Any
    dependency: Dependency | None

    @property
    def is_variadic(self) -> bool:
        """Tell ``*args`` and ``**kwargs``."""
        return self.kind is VAR_POSITIONAL or self.kind is VAR_KEYWORD


Parameters = tuple[Parameter, ...]

_known: WeakKeyDictionary[types.FunctionType, Parameters] = WeakKeyDictionary()


def parameters_of(function: Callable[..., object]) -> Parameters | None:
    """Read the parameters of ``function``; None where it has no signature (``dict``, ``partial(int, "7")``).

    Raises:
        InvalidDependency: A parameter is marked twice, or the mark stands where it is not seen.
        UnresolvedAnnotation: The annotation seems to hold the mark, and cannot be evaluated.
    """
    function = target(function)
    if type(function) is not types.FunctionType:
        return _read(function)
    known = _known.get(function)
    if known is None:
        known = _known[function] = _read_function(function)
    return known


def _read(function: Callable[..., object]) -> Parameters | None:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return None
    return tuple(
        Parameter(p.name, p.kind, p.default, _dependency(function, p.name, p.default, p.annotation))
        for p in signature.parameters.values()
    )


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
    if code.co_flags & inspect.CO_VARARGS:
        add(names[variadic], VAR_POSITIONAL, EMPTY)
        variadic += 1
    for name in names[count : count + code.co_kwonlyargcount]:
        add(name, KEYWORD_ONLY, keywords.get(name, EMPTY))
    if code.co_flags & inspect.CO_VARKEYWORDS:
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
    if not isinstance(annotation, str):
        return annotation
    try:
        return evaluate(annotation, function, name)
    except UnresolvedAnnotation:
        if "Annotated" not in annotation and "Depends" not in annotation:
            return EMPTY  # decides nothing here: perhaps a name under TYPE_CHECKING
        # What is annotated may be such a name as well; what is marked may not.
        guessed = evaluate_but_for_unknown(annotation, function)
        if not _marks(guessed):
            raise
        return guessed


def _marks(annotation: object) -> list[Dependency]:
    if typing.get_origin(annotation) is not typing.Annotated:
        return []
    return [extra for extra in typing.get_args(annotation)[1:] if isinstance(extra, Dependency)]


def _describe(function: Callable[..., object]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if isinstance(code, types.CodeType) else ""
    return f"{getattr(function, '__qualname__', repr(function))}{where}"
