"""Versions: what a handler's code is, so that a change of it is noticed."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from functools import lru_cache, partial
from types import CodeType
from typing import Any


def version_of(function: Any) -> str:
    """Return the version of a function: a digest of its text, without comments, layout and docstring.

    What it calls is not looked into. A function without a text, as one typed at a prompt, is told by its byte code.

    Examples:
        >>> version_of(textwrap.dedent) == version_of(textwrap.dedent)
        True
    """
    return _version(_written(function))


def _written(function: Any) -> Any:
    """Return the function that somebody has written, below what was put around it."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    call = type(function).__call__
    is_written = hasattr(function, "__code__") or isinstance(function, type) or not hasattr(call, "__code__")
    return function if is_written else call  # of an object that is called as a function is


@lru_cache(maxsize=1024)
def _version(function: Any) -> str:
    return hashlib.sha256((_text(function) or _code(function)).encode()).hexdigest()[:16]


def _text(function: Any) -> str:
    """Return the text in one layout; nothing where there is none."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ""
    definition = tree.body[0]
    if isinstance(definition, ast.FunctionDef) and ast.get_docstring(definition, clean=False) is not None:
        definition.body = definition.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _code(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return _words(code) if code is not None else f"{function.__module__}.{function.__qualname__}"


def _words(code: CodeType) -> str:
    """Write byte code without what differs from one run to the next: addresses, and the order of sets."""
    constants = [
        _words(item) if isinstance(item, CodeType) else repr(sorted(map(repr, item)) if _is_set(item) else item)
        for item in code.co_consts
    ]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, constants))


def _is_set(value: object) -> bool:
    return isinstance(value, frozenset)
