"""Say who may import whom: the table of the house, and the rules that keep it."""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from tests.architecture.imports import imports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.architecture.imports import Import, Source

ROOT = "torchsystem"

# Every part of the house and the layer it is in. A part that is not listed here is refused: the table comes first.
LAYERS = {
    "errors": 0,
    "progress": 0,
    "triggers": 0,
    "depends": 0,
    "domain": 1,
    "services": 1,
    "registry": 1,
    "compiler": 1,
    "training": 2,
    "storage": 2,
    "plans": 2,
    "distributed": 2,
    "system": 3,
    "adapters": 3,
    "testing": 3,
}

# A part imports itself and the layers below. Within layer 0 parts build on one another (cycles are refused elsewhere);
# within the others only as listed: the importing part, and the module that it and all below it may be imported from.
WITHIN_A_LAYER = {
    ("training", "torchsystem.distributed"),
    ("plans", "torchsystem.storage.ports"),
    ("adapters", "torchsystem.system"),
}

# What a part may import beside the standard library and typing-extensions. The rim, layer 3, is free: that is its job.
THIRD_PARTIES = {
    "domain": {"torch"},
    "registry": {"torch", "pydantic"},
    "compiler": {"torch"},
    "training": {"torch"},
    "storage": {"torch", "safetensors", "fsspec"},
    "distributed": {"torch"},
}
RIM = 3

# What a part may import only inside functions, so that importing the part stays quick.
LAZY_THIRD_PARTIES = {"compiler": {"torch"}, "registry": {"pydantic"}}


def violations(modules: Mapping[str, Source]) -> Iterator[str]:
    """Name every import that the table does not allow."""
    for source in modules.values():
        if source.name == ROOT:
            continue
        part = _part(source.name)
        if part not in LAYERS:
            yield f"{source.name}: `{part}` has no layer"
            continue
        for found in imports(source, modules):
            complaint = _complaint(part, found)
            if complaint:
                yield f"{found}: {complaint}"


def _complaint(part: str, found: Import) -> str | None:
    """Return what is wrong with an import, or `None` if it may stand."""
    top = found.target.partition(".")[0]
    if top == ROOT:
        return _complaint_within(part, found.target)
    if top in sys.stdlib_module_names or top in {"typing_extensions", "__future__"} or LAYERS[part] == RIM:
        return None
    if top not in THIRD_PARTIES.get(part, ()):
        return f"`{part}` does not build on {top}"
    if top in LAZY_THIRD_PARTIES.get(part, ()) and not found.deferred:
        return f"`{part}` imports {top} only inside functions"
    return None


def _complaint_within(part: str, target: str) -> str | None:
    if target == ROOT:
        return "the front door is for users; import the name from where it lives"
    other = _part(target)
    if other not in LAYERS:
        return f"`{other}` has no layer"
    if other == part or LAYERS[other] < LAYERS[part] or LAYERS[other] == LAYERS[part] == 0:
        return None
    if any(part == user and f"{target}.".startswith(f"{used}.") for user, used in WITHIN_A_LAYER):
        return None
    return f"`{part}` (layer {LAYERS[part]}) must not know `{other}` (layer {LAYERS[other]})"


def _part(name: str) -> str:
    return name.split(".")[1]


def cycle(modules: Mapping[str, Source]) -> list[str]:
    """Return a circle of modules that need one another, lazy and type-checking imports included; else nothing."""
    sorter = TopologicalSorter({name: _needs(source, modules) for name, source in modules.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def _needs(source: Source, modules: Mapping[str, Source]) -> set[str]:
    """Return the modules that an importer needs: those it names, and every `__init__` on the way to them.

    The packages that the importer itself lies in are always on the way; they count only when they are named.
    """
    named = {found.target for found in imports(source, modules)}
    passed = {package for target in named for package in _packages(target)}
    outer = {source.name, *_packages(source.name)}
    return (named | passed - outer) & modules.keys()


def _packages(name: str) -> Iterator[str]:
    """Name the packages that a module lies in, the nearest first."""
    while name := name.rpartition(".")[0]:
        yield name
