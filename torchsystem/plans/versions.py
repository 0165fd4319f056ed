"""Versions: what a handler's code is, so that a change of it is noticed."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType
from typing import Any

BEGUN = time.time()  # files that are older are those that were imported


def version_of(function: Any) -> str:
    """Return the version of a function: a digest of its text, without comments, layout and docstring.

    What it calls is not looked into. A function without a text, as one typed at a prompt, is told by its byte code; and
    so is one whose file has another in its place by now: that text is not what runs here.

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
        tree = ast.parse(textwrap.dedent(_source(function)))
    except (OSError, TypeError, ValueError, SyntaxError):
        return ""
    definition = tree.body[0]
    if isinstance(definition, ast.FunctionDef) and ast.get_docstring(definition, clean=False) is not None:
        definition.body = definition.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _source(function: Any) -> str:
    """Return what is written of a function: also where its file was written anew, and has it elsewhere.

    Raises:
        OSError: There is nothing, or it is of another.
        SyntaxError: The file is being written.
    """
    code: CodeType | None = getattr(function, "__code__", None)
    if code is None or not _is_new(Path(code.co_filename)):
        return inspect.getsource(function)
    lines = Path(code.co_filename).read_text(encoding="utf-8").splitlines(keepends=True)
    module, me = compile("".join(lines), code.co_filename, "exec", dont_inherit=True), _identity(code)
    places = [one.co_firstlineno for one in _inside(module) if _identity(one) == me]
    for place in sorted(places, key=lambda line: abs(line - code.co_firstlineno)):
        text = "".join(inspect.getblock(lines[place - 1 :]))
        if _has_defaults(function, text):
            return text
    message = f"{code.co_filename} was changed, and has no such function any more"
    raise OSError(message)


def _is_new(file: Path) -> bool:
    return file.is_file() and file.stat().st_mtime > BEGUN


def _identity(code: CodeType) -> tuple[str, str]:
    return code.co_qualname, _words(code)


def _has_defaults(function: Any, text: str) -> bool:
    """Tell whether defaults that are written as such are those that a function has: they are no part of its code."""
    definition = ast.parse(textwrap.dedent(text)).body[0]
    if not isinstance(definition, ast.FunctionDef):
        return True
    by_place = zip(reversed(definition.args.defaults), reversed(function.__defaults__ or ()), strict=False)
    by_name = zip(definition.args.kw_defaults, definition.args.kwonlyargs, strict=True)
    named = function.__kwdefaults__ or {}
    pairs = [*by_place, *((written, named.get(argument.arg)) for written, argument in by_name if written is not None)]
    return all(not isinstance(written, ast.Constant) or written.value == value for written, value in pairs)


def _inside(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of all functions in a module, at any depth."""
    for item in code.co_consts:
        if isinstance(item, CodeType):
            yield item
            yield from _inside(item)


def _code(function: Any) -> str:
    code = getattr(function, "__code__", None)
    if code is None:
        return f"{function.__module__}.{function.__qualname__}"
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
    return f"{_words(code)} {[_default(value) for value in defaults]}"


def _default(value: Any) -> str:
    """Write a default by its value, where that is written in one way, else by its kind."""
    if isinstance(value, tuple | list):
        return str([_default(item) for item in value])
    return repr(value) if isinstance(value, bool | int | float | str | bytes | None) else type(value).__qualname__


def _words(code: CodeType) -> str:
    """Write byte code without what differs from one run to the next: addresses, and the order of sets."""
    constants = [
        _words(item) if isinstance(item, CodeType) else repr(sorted(map(repr, item)) if _is_set(item) else item)
        for item in code.co_consts
    ]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, constants))


def _is_set(value: object) -> bool:
    return isinstance(value, frozenset)
