"""How the peers do what `depends.py` measures, each as its documentation shows, with nothing kept between calls."""

# ruff: noqa: B008, D103, RET504 - the names say what is timed; a bare `return SOME_A` some take for a constant

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from timing import Operation


class A:
    """What the first dependency gives; peers find dependencies by type, so each has its own."""


class B:
    """What the second gives."""


class C:
    """What the third gives."""


class Session:
    """What has to be closed."""


SOME_A, SOME_B, SOME_C, SOME_SESSION = A(), B(), C(), Session()


def first() -> A:
    made = SOME_A
    return made


def second() -> B:
    made = SOME_B
    return made


def third() -> C:
    made = SOME_C
    return made


def session() -> Iterator[Session]:
    try:
        yield SOME_SESSION
    finally:
        third()


Handlers = dict[str, Callable[..., Any]]


def fast_depends() -> Handlers:
    """Declare in the signature, and inject by a decorator."""
    lib: Any = importlib.import_module("fast_depends")
    provider: Any = lib.Provider()

    def one(x: int, a: A = lib.Depends(first)) -> object:
        return x, a

    def three(x: int, a: A = lib.Depends(first), b: B = lib.Depends(second), c: C = lib.Depends(third)) -> object:
        return x, a, b, c

    def opened(x: int, a: Session = lib.Depends(session)) -> object:
        return x, a

    handlers = {"one dependency": one, "three": three, "generator": opened}
    injected = {case: lib.inject(f, dependency_provider=provider, cast=False) for case, f in handlers.items()}
    overriding: Any = lib.Provider()
    overriding.override(first, second)
    injected["overridden"] = lib.inject(one, dependency_provider=overriding, cast=False)
    return injected


def dishka() -> Handlers:
    """Open a scope for each call, and get what is needed from it."""
    lib: Any = importlib.import_module("dishka")
    provider = lib.Provider(scope=lib.Scope.REQUEST)
    for factory in (first, second, third, session):
        provider.provide(factory)
    container = lib.make_container(provider, lock_factory=None)

    def one(x: int) -> object:
        with container() as scope:
            return x, scope.get(A)

    def three(x: int) -> object:
        with container() as scope:
            return x, scope.get(A), scope.get(B), scope.get(C)

    def opened(x: int) -> object:
        with container() as scope:
            return x, scope.get(Session)

    return {"one dependency": one, "three": three, "generator": opened}


def wireup() -> Handlers:
    """Declare by annotations, and inject by a decorator of the container."""
    lib: Any = importlib.import_module("wireup")
    factories = [lib.injectable(factory, lifetime="scoped") for factory in (first, second, third, session)]
    container = lib.create_sync_container(injectables=factories)

    def one(x: int, a: Any) -> object:
        return x, a

    def three(x: int, a: Any, b: Any, c: Any) -> object:
        return x, a, b, c

    def opened(x: int, a: Any) -> object:
        return x, a

    one.__annotations__ = {"x": int, "a": lib.Injected[A]}
    three.__annotations__ = {"x": int, "a": lib.Injected[A], "b": lib.Injected[B], "c": lib.Injected[C]}
    opened.__annotations__ = {"x": int, "a": lib.Injected[Session]}
    handlers = {"one dependency": one, "three": three, "generator": opened}
    return {case: lib.inject_from_container(container)(handler) for case, handler in handlers.items()}


def incant() -> Handlers:
    """Compose a function of the handler and its dependencies: code generation, bound early."""
    lib: Any = importlib.import_module("incant")
    incanter = lib.Incanter()
    for factory in (first, second, third):
        incanter.register_by_type(factory, factory.__annotations__ and _returned(factory))
    incanter.register_by_type(contextmanager(session), Session, is_ctx_manager="sync")

    def one(x: int, a: Any) -> object:
        return x, a

    def three(x: int, a: Any, b: Any, c: Any) -> object:
        return x, a, b, c

    def opened(x: int, a: Any) -> object:
        return x, a

    one.__annotations__ = {"x": int, "a": A}
    three.__annotations__ = {"x": int, "a": A, "b": B, "c": C}
    opened.__annotations__ = {"x": int, "a": Session}
    handlers = {"one dependency": one, "three": three, "generator": opened}
    return {case: incanter.compose(handler) for case, handler in handlers.items()}


def svcs() -> Handlers:
    """Open a container for each call, and get what is needed from it."""
    lib: Any = importlib.import_module("svcs")
    registry = lib.Registry()
    registry.register_factory(A, first)
    registry.register_factory(B, second)
    registry.register_factory(C, third)
    registry.register_factory(Session, session)

    def one(x: int) -> object:
        with lib.Container(registry) as container:
            return x, container.get(A)

    def three(x: int) -> object:
        with lib.Container(registry) as container:
            return (x, *container.get(A, B, C))

    def opened(x: int) -> object:
        with lib.Container(registry) as container:
            return x, container.get(Session)

    return {"one dependency": one, "three": three, "generator": opened}


def _returned(factory: Callable[..., object]) -> type:
    return {first: A, second: B, third: C}[factory]


PEERS = {"fast-depends": fast_depends, "dishka": dishka, "wireup": wireup, "incant": incant, "svcs": svcs}


def operations() -> tuple[dict[str, list[Operation]], list[str]]:
    """Return the operations of the peers that are installed, by case, and the names of the others."""
    found: dict[str, list[Operation]] = {}
    absent: list[str] = []
    for name, build in PEERS.items():
        try:
            handlers = build()
        except ImportError:
            absent.append(name)
            continue
        for case, handler in handlers.items():
            found.setdefault(case, []).append(Operation(name, handler, (1,)))
    return found, absent
