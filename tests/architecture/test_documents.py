"""The documents are whole: every page can be reached, every Python block runs, every promise names its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from sybil.document import PythonDocStringDocument

HOUSE = Path(__file__).parents[2]
PAGES = [path for path in [HOUSE / "README.md", *sorted(HOUSE.glob("docs/**/*.md"))] if path.exists()]
MODULES = sorted(HOUSE.glob("torchsystem/**/*.py"))

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
