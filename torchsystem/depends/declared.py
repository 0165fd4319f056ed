"""Where a parameter says that it is a dependency: in its default, or in its ``Annotated``."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator

from torchsystem.depends.annotations import evaluate, evaluate_but_for_unknown, names_in
from torchsystem.depends.kinds import unwrapped
from torchsystem.depends.marker import Dependency, Depends
from torchsystem.depends.sentinels import EMPTY
from torchsystem.errors import InvalidDependency


def mark_of(
    function: Callable[..., object], name: str, default: object, annotation: object, *, variadic: bool
) -> Dependency | None:
    """Find the mark of one parameter of ``function``.

    Raises:
        InvalidDependency: It is marked twice, or where a mark is not seen.
        UnresolvedAnnotation: The annotation holds a mark, and cannot be evaluated.
    """
    if default is Depends:
        message = f"{describe(function)}: {name}=Depends stands without its dependency. Write {name}=Depends(f)."
        raise InvalidDependency(message)
    found = [default] if isinstance(default, Dependency) else []
    if annotation is not EMPTY and not isinstance(annotation, type):
        found += _marks(function, name, _evaluated(function, name, annotation))
    if len(found) > 1:
        message = f"{describe(function)}: {name!r} is marked with Depends more than once. Keep one."
        raise InvalidDependency(message)
    if found and variadic:
        message = f"{describe(function)}: {name!r} takes any number of values, and cannot be one dependency."
        raise InvalidDependency(message)
    return found[0] if found else None


def _evaluated(function: Callable[..., object], name: str, annotation: object) -> object:
    """Evaluate an annotation as far as its marks: what else is in it may be a name for type checkers alone."""
    if isinstance(annotation, typing.ForwardRef):  # of a named tuple
        annotation = annotation.__forward_arg__
    if not isinstance(annotation, str):
        return annotation
    if type(function) is types.FunctionType and function.__qualname__.isidentifier():
        known = function.__globals__.get(annotation)  # nothing stands between a function of a module and its globals
        if isinstance(known, type):
            return known
    resolved: object = evaluate_but_for_unknown(annotation, function)
    has_marks = any(True for _ in _walk(resolved))
    if not has_marks and any(value is Depends for value in names_in(annotation, function)):
        return evaluate(annotation, function, name)  # says what is unknown
    return resolved


def _marks(function: Callable[..., object], name: str, annotation: object) -> list[Dependency]:
    """Return the marks of an annotation; they stand at its top, or nobody would see them."""
    annotation = _alias_value(annotation)
    top = _extras(annotation)
    if any(extra is Depends for extra in top):
        message = f"{describe(function)}: {name!r} is annotated with Depends, without its dependency: Depends(f)."
        raise InvalidDependency(message)
    marks = [extra for extra in top if isinstance(extra, Dependency)]
    if len(marks) < sum(1 for _ in _walk(annotation)):
        message = (
            f"{describe(function)}: Depends stands deep inside the annotation of {name!r}, where it means nothing. "
            f"Write {name}: Annotated[..., Depends(f)] around all of it."
        )
        raise InvalidDependency(message)
    return marks


def _walk(annotation: object) -> Iterator[Dependency]:
    """Find the marks anywhere in an annotation."""
    annotation = _alias_value(annotation)
    yield from (extra for extra in _extras(annotation) if isinstance(extra, Dependency))
    is_annotated = typing.get_origin(annotation) is typing.Annotated
    for part in typing.get_args(annotation)[: 1 if is_annotated else None]:
        yield from _walk(part)


def _extras(annotation: object) -> tuple[object, ...]:
    return typing.get_args(annotation)[1:] if typing.get_origin(annotation) is typing.Annotated else ()


def _alias_value(annotation: object) -> object:
    """Look through ``type X = ...``."""
    while type(annotation).__name__ == "TypeAliasType":
        annotation = getattr(annotation, "__value__", None)
    return annotation


def refuse_hidden(function: object, shown: list[Dependency]) -> None:
    """Refuse marks in the defaults of ``function`` that its signature does not show, and that nobody would see.

    Raises:
        InvalidDependency: There are such.
    """
    inner = unwrapped(function)
    for one in (inner, getattr(inner, "__init__", None), getattr(inner, "__new__", None)):
        if not isinstance(one, types.FunctionType):
            continue
        defaults = (*(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values())
        if any(isinstance(default, Dependency) and all(default is not s for s in shown) for default in defaults):
            message = (
                f"{describe(one)} has dependencies that its signature hides. Let it be read: no `*args, **kwargs` "
                f"in the place of its parameters, no `__signature__` that leaves them out."
            )
            raise InvalidDependency(message)


def describe(function: object) -> str:
    """Name a callable, and where it is written."""
    code = getattr(unwrapped(function), "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if isinstance(code, types.CodeType) else ""
    return f"{getattr(function, '__qualname__', repr(function))}{where}"
