"""The documents are whole: every page can be reached, every Python block runs, every promise names its test."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from sybil.document import PythonDocStringDocument

from tests.architecture.test_surface import SURFACE

HOUSE = Path(__file__).parents[2]
PAGES = [path for path in [HOUSE / "README.md", *sorted(HOUSE.glob("docs/**/*.md"))] if path.exists()]
MODULES = sorted(HOUSE.glob("torchsystem/**/*.py"))

API = {
    name for page in HOUSE.glob("docs/api/*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
}

# What a fenced block may call its language. Blocks called exactly `python` are run (see conftest.py); any other
# way to spell it would quietly not be.
LANGUAGES = {"bash", "console", "json", "makefile", "mermaid", "python", "text", "toml", "yaml"}


def shown(path: Path) -> str:
    """Return the name of a file as a reader knows it."""
    return path.relative_to(HOUSE).as_posix()


def languages(text: str) -> list[tuple[str, str]]:
    """Return each block's fence and what it says after its ticks."""
    return re.findall(r"^[ \t]*(`{3,})(.*)\n(?:.*\n)*?[ \t]*\1[ \t]*$", f"{text}\n", re.MULTILINE)


def strays(text: str) -> list[str]:
    """Return the languages of a text's blocks that nobody knows how to run or to leave alone."""
    return [language for _, language in languages(text) if language not in LANGUAGES]


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_block_of_a_page_is_run_or_known_not_to_be(page: Path) -> None:
    """A block that misspells its language would not be run, and nobody would notice."""
    assert strays(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", MODULES, ids=shown)
def test_every_block_of_a_docstring_is_run_or_known_not_to_be(module: Path) -> None:
    """The same for what stands in docstrings."""
    docstrings = PythonDocStringDocument.extract_docstrings(module.read_text(encoding="utf-8"))
    assert [stray for _, _, text in docstrings for stray in strays(text)] == []


@pytest.mark.parametrize("module", MODULES, ids=shown)
def test_a_docstring_is_written_as_the_site_reads_it(module: Path) -> None:
    """Examples stand under `Examples:`, else the site sets their `>>>` as quotations; Markdown has no `:meth:`."""
    docstrings = PythonDocStringDocument.extract_docstrings(module.read_text(encoding="utf-8"))
    unread = re.compile(r"^ *Example:$|:(?:attr|class|exc|func|meth|mod):`", re.MULTILINE)
    assert [found.strip() for *_, text in docstrings for found in unread.findall(text)] == []


def test_a_block_that_would_not_run_is_found() -> None:
    """`py`, a title after `python`, and a bare fence are strays; what stands inside a block is no fence."""
    text = "```py\n1\n```\n```python title='x'\n1\n```\n  ```\n  1\n  ```\n````text\n```py\n````\n```python\n1\n```"
    assert strays(text) == ["py", "python title='x'", ""]


def test_the_navigation_lists_every_page_once() -> None:
    """A page that is missing from the navigation cannot be found; an entry without a page leads nowhere."""
    listed = re.findall(r": (\S+\.md)$", (HOUSE / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = [path.relative_to(HOUSE / "docs").as_posix() for path in HOUSE.glob("docs/**/*.md")]
    assert sorted(listed) == sorted(pages)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_what_a_page_imports_is_in_the_api(page: Path) -> None:
    """Whoever meets a name of ours in a page can look it up."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    imported = {name for block in blocks for name in imports_of(block)}
    assert [f"{module}.{name}" for module, name in sorted(imported) if not is_in_the_api(module, name)] == []


@pytest.mark.parametrize("package", sorted(SURFACE))
def test_what_is_public_is_in_the_api(package: str) -> None:
    """Each name, also one that a module of the package is called by, too: of the two the site shows the module."""
    assert [name for name in sorted(SURFACE[package]) if not is_in_the_api(package, name)] == []


def imports_of(text: str) -> list[tuple[str, str]]:
    """Return from which modules of ours a text imports which names."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    ours = [(node.module or "", node.names) for node in nodes if (node.module or "").split(".")[0] == "torchsystem"]
    return [(module, each.name) for module, names in ours for each in names]


def is_in_the_api(module: str, name: str) -> bool:
    """Tell whether a name has a place on an API page: by itself, or in its module, where none below is called so."""
    found = getattr(import_module(module), name)
    if isinstance(found, ModuleType):
        return found.__name__ in API
    if not hasattr(found, "__qualname__"):  # a constant is shown with its class
        found = type(found)
    places = {f"{found.__module__}.{found.__qualname__}", found.__module__}
    if not (HOUSE / module.replace(".", "/") / f"{name}.py").exists():
        places.add(module)
    if module == "torchsystem":  # the front door hands out what lives elsewhere
        places.add(".".join(found.__module__.split(".")[:2]))
    return bool(places & API)


def test_every_guarantee_names_a_test_that_exists() -> None:
    """A promise without a test is a hope: each row of the page names one, by file and function."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (HOUSE / "docs/guarantees.md").read_text(encoding="utf-8"))
    missing = [f"{path}::{name}" for path, name in named if name not in definitions(HOUSE / path)]
    assert named
    assert missing == []


def test_every_row_of_the_guarantees_names_a_test() -> None:
    """No row of the table goes without."""
    rows = re.findall(
        r"^\|(?! *(?:Promise|-)).*$", (HOUSE / "docs/guarantees.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [row for row in rows if "`tests/" not in row] == []


def definitions(path: Path) -> set[str]:
    """Return the names that a file defines at its top level; none if there is no such file."""
    if not path.exists():
        return set()
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    assigned = {ast.unparse(target) for node in nodes if isinstance(node, ast.Assign) for target in node.targets}
    return assigned | {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
