"""Find what a module does when it is imported, beyond defining things."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFINITIONS = (
    ast.Import,
    ast.ImportFrom,
    ast.Assign,
    ast.AnnAssign,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
)


def deeds(text: str) -> list[str]:
    """Return the statements at the top level of a module that do something, each with its line."""
    return [f"{node.lineno}: {ast.unparse(node).partition(chr(10))[0]}" for node in _deeds(ast.parse(text).body)]


def _deeds(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        match node:
            case ast.Expr(value=ast.Constant(value=str())):  # a docstring
                pass
            case ast.If(body=chosen, orelse=other):  # what is chosen by version, platform or type checker
                yield from _deeds([*chosen, *other])
            case ast.Try(body=tried, handlers=handlers, orelse=other, finalbody=final):  # a package that may be missing
                yield from _deeds([*tried, *other, *final])
                for handler in handlers:
                    yield from (deed for deed in _deeds(handler.body) if not isinstance(deed, ast.Raise))
            case ast.Pass():
                pass
            case _ if not isinstance(node, DEFINITIONS):
                yield node
            case _:
                pass
