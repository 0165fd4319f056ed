"""Generators of random numbers that objects hold: a loader's own, a sampler's, a data set's, an aggregate's."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from torchsystem.domain.parts import OF_TORCH
from torchsystem.training.randomness import in_use, is_generator

OF_LOADER = ("_iterator", "worker_init_fn")  # of a loader, what a run does not draw from
MANY = 256  # items: a longer container is one of data
LIMIT = 10_000  # objects that are looked at, the nearest first
_OTHERS = frozenset({"events", "_compilation", "_wiring"})  # of an aggregate, what is no part of what it computes
_LIBRARIES = frozenset({"torch", "torchsystem", "numpy", *sys.stdlib_module_names})  # they draw from what is in use
_COMPUTING = ("forward", "fit", "evaluate")
_CALLED = ("__call__", "__getitem__", "__getitems__", "__iter__", "__next__")  # what a loader calls
_LEAVES = (str, bytes, bytearray, int, float, complex, bool, type(None), type, ModuleType, Tensor, Module)


def generators_in(holder: object, *, beside: Iterable[str] = ()) -> dict[str, Any]:
    """Find the generators that an object holds, by the path to them: `"sampler.generator"`.

    It looks into attributes, into containers that are not full of data, and into functions: what they are bound to,
    and what those that draw find around them. One that is held twice is found once; those in use everywhere are not.

    Args:
        holder: The object.
        beside: Attributes of it that are not looked into.

    Examples:
        >>> from random import Random
        >>> from types import SimpleNamespace
        >>> sorted(generators_in(SimpleNamespace(flip=SimpleNamespace(random=Random(0)), numbers=[1, 2])))
        ['flip.random']
    """
    skipped = set(beside)
    return _found({id(holder)}, ((name, value) for name, value in _inside(holder) if name not in skipped))


def generators_of(loader: object) -> dict[str, Any]:
    """Find those of a loader."""
    return generators_in(loader, beside=OF_LOADER)


def generators_of_modules(root: Module) -> dict[str, Any]:
    """Find those that a module and those inside it draw from, and of which no snapshot knows."""
    skipped = OF_TORCH.union(_OTHERS)
    held = (
        (f"{path}.{name}" if path else name, value)
        for path, module in root.named_modules()
        for name, value in [*vars(module).items(), *_methods(type(module), _COMPUTING).items()]
        if name not in skipped
    )
    return _found(set(), held)


def _found(seen: set[int], held: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    common = _common()
    found: dict[str, Any] = {}
    waiting = deque(held)
    while waiting and len(seen) < LIMIT:
        path, value = waiting.popleft()
        if isinstance(value, _LEAVES) or id(value) in seen:
            continue
        seen.add(id(value))
        if is_generator(value):
            if id(value) not in common:
                found[path] = value
        else:
            waiting.extend((f"{path}.{name}", inside) for name, inside in _inside(value))
    return found


def _common() -> set[int]:
    """Return the identities of the generators in use, and of those that modules draw from by functions."""
    common = {**in_use(), "torch": torch.default_generator}
    bound = [getattr(getattr(generator, "seed", None), "__self__", None) for generator in common.values()]
    return {id(generator) for generator in [*common.values(), *bound] if generator is not None}


def _inside(value: Any) -> Iterable[tuple[str, Any]]:
    """Return what an object is made of, by name."""
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()] if len(value) <= MANY else ()
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [(str(index), item) for index, item in enumerate(value)] if len(value) <= MANY else ()
    if isinstance(value, FunctionType):
        return _around(value)
    if isinstance(value, MethodType):
        return [("__self__", value.__self__), ("__func__", value.__func__)]
    if isinstance(value, partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    return [*_attributes(value), *_methods(type(value)).items()]


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield name, getattr(value, name)


def _methods(kind: type, called: Iterable[str] = _CALLED) -> dict[str, FunctionType]:
    """Return what is called of an object, and what that calls of it in turn; of libraries that draw as all do, none."""
    methods: dict[str, FunctionType] = {}
    waiting = deque(called)
    while waiting:
        name = waiting.popleft()
        method = getattr(kind, name, None)
        if name not in methods and isinstance(method, FunctionType) and not _is_of_library(method):
            methods[name] = method
            waiting.extend(_names(method.__code__))
    return methods


def _around(function: FunctionType) -> list[tuple[str, Any]]:
    """Return what a function finds around it: what it closes over, its defaults, and globals that it names."""
    if _is_of_library(function):
        return []
    around = [*(function.__kwdefaults__ or {}).items(), *enumerate(function.__defaults__ or ())]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            around.append((name, cell.cell_contents))
        except ValueError:  # it is empty yet
            continue
    known = function.__globals__
    named = ((name, known[name]) for name in sorted(_names(function.__code__)) if name in known)
    around += [(name, value) for name, value in named if is_generator(value) or callable(value)]
    return [(str(name), value) for name, value in around]


def _names(code: CodeType) -> set[str]:
    """Return what code names, and code in it, such as that of a comprehension."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _is_of_library(function: FunctionType) -> bool:
    return (function.__module__ or "").partition(".")[0] in _LIBRARIES
