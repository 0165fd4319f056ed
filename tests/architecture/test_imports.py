"""The reader of imports sees every import, in whatever spelling; it is what all the rules of the house rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.architecture.imports import Import, Source, imports, sources

if TYPE_CHECKING:
    from pathlib import Path

MODULES = {"house", "house.cellar", "house.cellar.wine", "house.cellar.shelf", "house.roof"}


def read(text: str, name: str = "house.cellar.wine", *, is_package: bool = False) -> list[tuple[str, bool]]:
    """Return the targets of a text's imports, and whether each is deferred."""
    return [(found.target, found.deferred) for found in imports(Source(name, is_package, text), MODULES)]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("import house.roof", "house.roof"),
        ("import house.roof as top", "house.roof"),
        ("from house.roof import tile", "house.roof"),
        ("from house import roof", "house.roof"),
        ("from house import door", "house"),
        ("from house.roof import *", "house.roof"),
        ("from . import shelf", "house.cellar.shelf"),
        ("from . import door", "house.cellar"),
        ("from .shelf import bottle", "house.cellar.shelf"),
        ("from .. import roof", "house.roof"),
        ("from ..roof import tile", "house.roof"),
        ("import_module('house.roof')", "house.roof"),
        ("importlib.import_module('..roof', __package__)", "house.roof"),
        ("__import__('house')", "house"),
    ],
)
def test_every_spelling_of_an_import_is_read(text: str, target: str) -> None:
    """Absolute, relative and dynamic imports all name the module that they bring in."""
    assert read(text) == [(target, False)]


def test_the_dots_of_an_init_count_from_its_own_package() -> None:
    """In `cellar/__init__.py` one dot is `cellar`; in `cellar/wine.py` it is `cellar` too."""
    assert read("from .shelf import bottle", "house.cellar", is_package=True) == [("house.cellar.shelf", False)]
    assert read("from ..roof import tile", "house.cellar", is_package=True) == [("house.roof", False)]


@pytest.mark.parametrize(
    "text",
    [
        "def door():\n    import house.roof",
        "async def door():\n    import house.roof",
        "class Door:\n    def open(self):\n        if self:\n            from house import roof",
        "if TYPE_CHECKING:\n    import house.roof",
        "if typing.TYPE_CHECKING:\n    from house import roof",
        "door = lambda: import_module('house.roof')",
    ],
)
def test_an_import_that_importing_the_module_does_not_run_is_read_and_marked(text: str) -> None:
    """Imports in functions and for type checkers count, and are known as deferred."""
    assert read(text) == [("house.roof", True)]


@pytest.mark.parametrize(
    "text",
    [
        "class Door:\n    import house.roof",
        "try:\n    import house.roof\nexcept ImportError:\n    pass",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import house.roof",
        "if not TYPE_CHECKING:\n    import house.roof",
        "with door:\n    import house.roof",
    ],
)
def test_an_import_that_importing_the_module_runs_is_not_marked(text: str) -> None:
    """Whatever stands outside functions is run on import, however deep it is nested."""
    assert read(text) == [("house.roof", False)]


def test_modules_are_found_by_their_dotted_names(tmp_path: Path) -> None:
    """A folder is read whole: packages by their `__init__`, modules by their file, each with its text."""
    cellar = tmp_path / "house" / "cellar"
    cellar.mkdir(parents=True)
    (cellar / "__init__.py").write_text("")
    (cellar / "wine.py").write_text("import house")
    assert sources(tmp_path / "house") == {
        "house.cellar": Source("house.cellar", is_package=True, text=""),
        "house.cellar.wine": Source("house.cellar.wine", is_package=False, text="import house"),
    }


def test_an_import_is_shown_with_its_line() -> None:
    """What is found is said the way one looks it up."""
    (found,) = imports(Source("house.roof", is_package=False, text="\n\nimport house.cellar"), MODULES)
    assert found == Import("house.roof", 3, "house.cellar", deferred=False)
    assert str(found) == "house.roof:3 imports house.cellar"
