"""What the author of a constructor wrote as annotations, word by word."""

from __future__ import annotations

import ast
import inspect
from inspect import Parameter, Signature
from typing import Any


def written_annotations(cls: type, signature: Signature) -> dict[str, str]:
    """Give the annotation of each parameter of a constructor as it stands in the source, `"Any"` where there is none.

    Where there is no source to look into, a class is given by its name, and anything else as it prints itself.

    Args:
        cls: The class.
        signature: The signature of its constructor.
    """
    source = _in_source(cls)
    return {name: _written(each, source.get(name)) for name, each in signature.parameters.items()}


def _written(parameter: Parameter, source: str | None) -> str:
    annotation = parameter.annotation
    if annotation is Parameter.empty:
        return "Any"
    if isinstance(annotation, str):
        return _unquoted(annotation)
    if source is not None:
        return _unquoted(source)
    return annotation.__name__ if isinstance(annotation, type) else inspect.formatannotation(annotation)


def _unquoted(annotation: str) -> str:
    quote, inside = annotation[0], annotation[1:-1]
    return inside if quote in "'\"" and annotation == f"{quote}{inside}{quote}" and quote not in inside else annotation


def _in_source(cls: Any) -> dict[str, str]:
    """Read the annotations of the constructor where it is defined; nothing if that cannot be found."""
    constructor = inspect.unwrap(cls.__new__ if inspect.unwrap(cls.__init__) is object.__init__ else cls.__init__)
    try:
        source = inspect.getsource(constructor)
        # Indented lines are a program only inside something.
        definition = ast.parse(f"if True:\n{source}" if source[:1].isspace() else source)
    except (OSError, TypeError, SyntaxError):
        return {}
    function = next((node for node in ast.walk(definition) if isinstance(node, ast.FunctionDef)), None)
    if function is None:
        return {}
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return {each.arg: ast.unparse(each.annotation) for each in every if each.annotation is not None}
