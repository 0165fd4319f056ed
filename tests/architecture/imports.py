"""Read who imports whom, off the syntax trees and without importing anything."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path


@dataclass(frozen=True, order=True, slots=True)
class Import:
    """One import as it stands in the source: who says it, where, and whom it brings in."""

    importer: str
    line: int
    target: str
    deferred: bool  # inside a function, or for type checkers only: not run when the importer is imported

    def __str__(self) -> str:
        """Say it the way a reader would look it up."""
        return f"{self.importer}:{self.line} imports {self.target}"


@dataclass(frozen=True, slots=True)
class Source:
    """One module of a package: its dotted name, whether it is an `__init__`, and its text."""

    name: str
    is_package: bool
    text: str

    @property
    def package(self) -> str:
        """Return the package that relative imports count from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


def sources(package: Path) -> dict[str, Source]:
    """Read every module below the folder of a package, by dotted name."""
    found: dict[str, Source] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found[name] = Source(name, is_package, path.read_text(encoding="utf-8"))
    return found


def imports(source: Source, modules: Container[str]) -> Iterator[Import]:
    """List the imports of a module, wherever they stand; `from package import module` means the module."""
    for node, deferred in _walk(ast.parse(source.text), deferred=False):
        for line, target in _targets(node, source, modules):
            yield Import(source.name, line, target, deferred)


def _walk(node: ast.AST, *, deferred: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Walk a tree and tell of each node whether importing the module leaves it untouched."""
    yield node, deferred
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, deferred=deferred or _defers(node, child))


def _defers(node: ast.AST, child: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return child in node.body and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _targets(node: ast.AST, source: Source, modules: Container[str]) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Import(names=names):
            yield from ((node.lineno, alias.name) for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            package = _absolute("." * level + (module or ""), source)
            for alias in names:
                submodule = f"{package}.{alias.name}"
                yield node.lineno, submodule if submodule in modules else package
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(text)), *_]):
            if name in {"import_module", "__import__"}:
                yield node.lineno, _absolute(text, source)
        case _:
            pass


def _absolute(name: str, source: Source) -> str:
    """Return the full name of what an import says, counting its leading dots from the package of the source."""
    bare = name.lstrip(".")
    level = len(name) - len(bare)
    if not level:
        return bare
    base = source.package.split(".")
    base = base[: len(base) - level + 1]
    return ".".join([*base, bare] if bare else base)
