"""What an annotation means: strings evaluated where the function was defined."""

from __future__ import annotations

import builtins
import functools
import sys
import typing
from collections.abc import Callable
from types import CodeType, FrameType, MethodType, SimpleNamespace
from typing import Any

from torchsystem.depends.sentinels import EMPTY
from torchsystem.errors import UnresolvedAnnotation


def resolve_annotation(function: Callable[..., object], parameter: str) -> Any:
    """Evaluate the annotation of one parameter of ``function``.

    Understands ``from __future__ import annotations``, strings nested in other annotations, and names that exist
    only where the function was defined: in the scopes around it that are still running, or in its closure.

    Returns:
        The annotation with its ``Annotated`` metadata, ``EMPTY`` if there is none.

    Raises:
        UnresolvedAnnotation: A name in the annotation cannot be found.

    Examples:
        >>> def handle(event: "int | str") -> None: ...
        >>> resolve_annotation(handle, "event")
        int | str
    """
    owner = _owner(function)
    annotations = getattr(owner, "__annotations__", {})
    return evaluate(annotations[parameter], function, parameter) if parameter in annotations else EMPTY


def evaluate(annotation: object, function: Callable[..., object], parameter: str) -> Any:
    """Evaluate ``annotation``, written for ``parameter`` of ``function``, in the scopes where it was written.

    Raises:
        UnresolvedAnnotation: A name in the annotation cannot be found.
    """
    owner = _owner(function)
    holder = SimpleNamespace(__annotations__={parameter: annotation})
    try:
        return typing.get_type_hints(holder, _globals(owner), _names_around(owner), include_extras=True)[parameter]
    except Exception as error:
        code = getattr(owner, "__code__", None)
        where = f" ({code.co_filename}:{code.co_firstlineno})" if isinstance(code, CodeType) else ""
        message = (
            f"{getattr(function, '__qualname__', function)!s}{where}: the annotation {annotation!r} of {parameter!r} "
            f"cannot be resolved ({error}). Import its names at run time, not under TYPE_CHECKING, or define them "
            f"before the function."
        )
        raise UnresolvedAnnotation(message) from error


class _Unknown:
    """Stands for a name that cannot be found, in whatever an annotation does with it."""

    def __getitem__(self, _: object) -> _Unknown:
        return self

    def __getattr__(self, name: str) -> _Unknown:
        if name.startswith("__"):  # what typing asks of everything
            raise AttributeError(name)
        return self

    __or__ = __ror__ = __getitem__


class _Lenient(dict[str, object]):
    """Names in which none is missing."""

    def __init__(self, names: dict[str, object], outer: dict[str, object]) -> None:
        super().__init__(names)
        self._outer = outer

    def __missing__(self, name: str) -> object:
        return self._outer[name] if name in self._outer else getattr(builtins, name, _Unknown())


def evaluate_but_for_unknown(annotation: str, function: Callable[..., object]) -> Any:
    """Evaluate the outermost level of an annotation in which some names cannot be found; None where none help."""
    owner = _owner(function)
    names = _Lenient(_names_around(owner), _globals(owner))
    resolved: Any = annotation
    try:
        while isinstance(resolved, str):
            resolved = eval(_compiled(resolved), {}, names)  # noqa: S307 - the function's own text
    except Exception:  # noqa: BLE001 - an unknown name stands where it decides something
        return None
    return resolved


def names_in(annotation: str, function: Callable[..., object]) -> list[object]:
    """Return what the names in an annotation stand for, as far as they can be found."""
    owner = _owner(function)
    names = _Lenient(_names_around(owner), _globals(owner))
    try:
        return [names[name] for name in _compiled(annotation).co_names]
    except SyntaxError:
        return []


@functools.lru_cache(maxsize=1024)
def _compiled(annotation: str) -> CodeType:
    return compile(annotation, "<annotation>", "eval", dont_inherit=True)


def _owner(function: object) -> Any:
    """Find the object that holds the annotations: the innermost function, or a class's constructor."""
    while isinstance(function, functools.partial):
        function = function.func
    while (wrapped := getattr(function, "__wrapped__", None)) is not None:
        function = wrapped
    if isinstance(function, MethodType):
        function = function.__func__
    if isinstance(function, type):
        made_by = (function.__init__, function.__new__)  # type: ignore[misc]
        return next((one for one in made_by if not _is_made(one) and getattr(one, "__annotations__", None)), function)
    if not hasattr(function, "__code__") and callable(function):
        return type(function).__call__
    return function


def _globals(function: object) -> dict[str, object]:
    """Return the global names of the module in which ``function`` was written (it may be generated elsewhere)."""
    module = sys.modules.get(getattr(function, "__module__", ""))
    return (
        {**getattr(module, "__dict__", {}), **getattr(function, "__globals__", {})}
        if _is_made(function)
        else getattr(function, "__globals__", {})
    )


def _is_made(function: object) -> bool:
    return isinstance(function, type) or getattr(getattr(function, "__code__", None), "co_filename", "") == "<string>"


def _names_around(function: Any) -> dict[str, object]:
    """Gather the names that the source of ``function`` could see beside the global ones, the innermost last."""
    names: dict[str, object] = {}
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType) and not function.__qualname__.isidentifier():
        for frame in reversed(_defining_frames(code)):
            names.update(frame.f_locals)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                names[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
    return names


def _defining_frames(code: CodeType) -> list[FrameType]:
    """Find the running frames in whose source ``code`` is written, the innermost first.

    A function's code is a constant of the code that defines it, so the frame is told exactly, never by name.
    """
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the only way to the callers' locals
    while frame is not None and frame.f_code.co_name != "<module>":
        if any(constant is code for constant in frame.f_code.co_consts):
            found.append(frame)
            code = frame.f_code
        frame = frame.f_back
    return found
