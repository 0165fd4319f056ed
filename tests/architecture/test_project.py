"""What the project declares about itself is true and complete."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parents[2]
TEXT = (HOUSE / "pyproject.toml").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads(TEXT)
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
GROUPS: dict[str, list[str | dict[str, str]]] = PROJECT["dependency-groups"]
CONSTRAINTS = (HOUSE / "constraints.txt").read_text(encoding="utf-8")


def canonical(requirement: str) -> str:
    """Return the name of what is required, in the one spelling that all spellings have in common (PEP 503)."""
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Return the locked versions, by canonical name."""
    lines = [line for line in CONSTRAINTS.splitlines() if line and not line.startswith("#")]
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_the_core_needs_four_packages() -> None:
    """What everybody installs is exactly torch, pydantic, typing-extensions and tensorboard."""
    core = {canonical(requirement) for requirement in PROJECT["project"]["dependencies"]}
    assert core == {"pydantic", "tensorboard", "torch", "typing-extensions"}


def test_all_is_every_extra() -> None:
    """`torchsystem[all]` names every other extra, and nothing besides."""
    assert EXTRAS["all"] == [f"torchsystem[{','.join(sorted(EXTRAS.keys() - {'all'}))}]"]


def test_every_declared_package_is_locked() -> None:
    """Whatever the package, an extra or a group asks for has one version in constraints.txt."""
    extras = [requirement for extra in EXTRAS.values() for requirement in extra]
    groups = [requirement for group in GROUPS.values() for requirement in group if isinstance(requirement, str)]
    asked = {canonical(requirement) for requirement in [*PROJECT["project"]["dependencies"], *extras, *groups]}
    assert asked - {"torchsystem"} - pins().keys() == set()


def test_the_lock_holds_on_every_machine() -> None:
    """Versions and nothing else: no address, no path, no build of one machine; and torch as everybody can have it."""
    assert pins()["torch"] == "2.13.0"
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins().values())


def test_every_exception_from_the_rules_says_why() -> None:
    """Each rule that ruff is told to ignore is explained where it is ignored."""
    ignored = re.findall(r'^.*"[A-Z]{1,4}\d{3,4}".*$', TEXT, re.MULTILINE)
    assert ignored
    assert [line for line in ignored if "# " not in line] == []
