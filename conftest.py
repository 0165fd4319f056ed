"""Settings of the whole test run: how hypothesis searches, and which documents are run as tests."""

from __future__ import annotations

import os
from contextlib import ExitStack, chdir
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sybil import Document, Region

# A time limit makes a slow machine look like a bug. In CI every run tries the same examples: red means changed.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def bare_doctests(document: Document) -> Iterator[Region]:
    """Find the `>>>` examples that stand outside fenced blocks; those inside are the code-block parser's."""
    fences = [(fence.start, fence.end) for fence in FencedCodeBlockLexer(language=r".+")(document)]
    for region in DocTestStringParser()(document.text, document.path):
        if not any(start <= region.start < end for start, end in fences):
            yield region


def open_page(namespace: dict[str, object]) -> None:
    """Run a page as its reader would: from top to bottom, as a script, in an empty folder."""
    page = ExitStack()
    page.enter_context(chdir(page.enter_context(TemporaryDirectory())))
    namespace.update(__name__="__main__", __page__=page)


def close_page(namespace: dict[str, object]) -> None:
    """Leave the folder of a page, and remove it."""
    page = namespace["__page__"]
    assert isinstance(page, ExitStack)
    page.close()


# Every Python block of README, docs and docstrings is run.
pages = Sybil([PythonCodeBlockParser(), SkipParser()], pattern="*.md", setup=open_page, teardown=close_page)
docstrings = Sybil(
    [PythonCodeBlockParser(), bare_doctests, SkipParser()],
    path="torchsystem",
    pattern="*.py",
    document_types={".py": PythonDocStringDocument},
)
pytest_collect_file = (pages + docstrings).pytest()
