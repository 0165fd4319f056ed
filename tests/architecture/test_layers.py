"""Who may import whom, kept by a walk over the syntax trees of the package, and the walk itself put to the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.imports import Source, sources
from tests.architecture.layers import cycle, violations

PACKAGE = Path(__file__).parents[2] / "torchsystem"


def house(**texts: str) -> dict[str, Source]:
    """Build a package from texts: `depends__plan="..."` is the text of `torchsystem/depends/plan.py`."""
    names = {f"torchsystem.{key.replace('__', '.')}": text for key, text in texts.items()}
    parents = {name.rpartition(".")[0] for name in names}
    texts = {**dict.fromkeys(parents, ""), **names}
    return {name: Source(name, name in parents, text) for name, text in texts.items()}


def complaints(**texts: str) -> str:
    """Return all that the walk finds wrong, as one text."""
    return "\n".join(violations(house(**texts)))


def test_the_package_keeps_its_layers() -> None:
    """Every import of every module stands in the table."""
    assert list(violations(sources(PACKAGE))) == []


def test_the_package_has_no_cycles() -> None:
    """No module needs itself, directly, through others, or through an `__init__` on the way."""
    assert cycle(sources(PACKAGE)) == []


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("depends", "from torchsystem.services import Service"),
        ("errors", "from torchsystem import registry"),
        ("triggers", "import torch"),
        ("depends__plan", "import pydantic"),
        ("domain", "from torchsystem.registry import gethash"),
        ("services", "from torchsystem.domain import Event"),
        ("services__delivery", "import torch"),
        ("services__delivery", "def f():\n    import torch"),
        ("registry", "from torchsystem.domain import Aggregate"),
        (
            "compiler",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torchsystem.domain import Aggregate",
        ),
        ("compiler", "from .domain import Aggregate"),
        ("compiler", "def f():\n    from importlib import import_module\n    import_module('torchsystem.domain')"),
        ("compiler", "import torch"),
        ("domain", "import numpy"),
        ("training", "from torchsystem.storage import Repository"),
        ("storage", "from torchsystem.training import Training"),
        ("distributed", "from torchsystem.training import Training"),
        ("plans", "from torchsystem.storage import Repository"),
        ("plans", "from torchsystem.storage.layout import Layout"),
        ("training", "from torchsystem.system import System"),
        ("services", "from torchsystem.adapters import history"),
        ("system", "from torchsystem.adapters import history"),
        ("testing", "from torchsystem.system import System"),
        ("domain", "from torchsystem import Depends"),
        ("adapters__history", "import torchsystem"),
        ("kitchen", "import os"),
        ("domain", "from torchsystem.kitchen import stove"),
    ],
)
def test_an_import_outside_the_table_is_found(part: str, text: str) -> None:
    """Upwards, sideways, past the front door, or to a package that the part does not build on: each is named."""
    found = complaints(**{part: text})
    assert f"torchsystem.{part.replace('__', '.')}" in found


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("depends", "import inspect\nfrom typing_extensions import TypeVar\nfrom torchsystem.errors import Cycle"),
        ("triggers", "from .progress import Progress"),
        ("services", "from torchsystem.depends import Provider"),
        ("services__service", "from .delivery import deliver\nfrom ..depends.plan import Plan"),
        ("domain", "import torch"),
        ("compiler", "def f():\n    import torch"),
        ("compiler", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("training", "from torchsystem.domain import Aggregate\nfrom torchsystem.distributed import agreement"),
        ("plans", "from torchsystem.storage.ports import Store\nfrom torchsystem.storage import ports"),
        ("adapters__rest", "import fastapi\nfrom torchsystem.system import System\nfrom torchsystem.plans import Plan"),
        ("testing", "import pytest\nfrom torchsystem.storage import Repository"),
    ],
)
def test_an_import_in_the_table_may_stand(part: str, text: str) -> None:
    """Downwards, within a part, and the few ways sideways that the house allows."""
    assert complaints(**{part: text, "storage__ports": ""}) == ""


def test_a_complaint_says_who_where_and_whom() -> None:
    """A reader of the failure can go straight to the line."""
    assert complaints(services="import os\nfrom torchsystem.domain import Event") == (
        "torchsystem.services:2 imports torchsystem.domain: `services` (layer 1) must not know `domain` (layer 1)"
    )


@pytest.mark.parametrize(
    "texts",
    [
        {"depends__plan": "from .solve import run", "depends__solve": "from .plan import Plan"},
        {"depends__plan": "def f():\n    from .solve import run", "depends__solve": "from .plan import Plan"},
        {"depends": "from .plan import Plan", "depends__plan": "from torchsystem.depends import Plan"},
        {"depends": "from .plan import Plan", "depends__plan": "from . import Plan"},
        {"progress": "from torchsystem.triggers import every", "triggers": "from torchsystem.progress import Progress"},
        {"depends__plan": "from .plan import Plan"},
        {
            "depends": "from .provider import Provider",
            "depends__provider": "from torchsystem import errors",
            "depends__marker": "",
            "errors": "from torchsystem.depends.marker import Depends",
        },
    ],
    ids=["pair", "lazy", "init", "init-relative", "across", "itself", "init-on-the-way"],
)
def test_a_cycle_is_found(texts: dict[str, str]) -> None:
    """Two modules of a package, one and its `__init__`, one and itself; also an `__init__` passed on the way."""
    assert cycle(house(**texts)) != []


def test_what_merely_shares_a_package_is_no_cycle() -> None:
    """An `__init__` may gather modules that use one another in one direction, and another part may use both."""
    texts = {
        "depends": "from .solve import run\nfrom .plan import Plan",
        "depends__solve": "from .plan import Plan\nfrom torchsystem import errors",
        "depends__plan": "from torchsystem.errors import Cycle",
        "errors": "",
        "services": "from .service import Service",
        "services__service": "from torchsystem.depends import run",
    }
    assert cycle(house(**texts)) == []
