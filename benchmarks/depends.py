"""What injection costs, beside hand-written code and beside the peers that are installed.

    taskset -c 0 python benchmarks/depends.py

Every dependency is made anew for each call and does nothing but return an object, so that what is left is the
injection. The first line of each case is what one would write by hand; the ratios are to it, in the same process.
Exits with 1 when a target is missed.
"""

# ruff: noqa: D103, RET504 - the names say what is timed; a bare `return SOME` some peers take for a constant

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import depends_peers
from timing import Operation, table

from torchsystem import Depends, Provider, inject
from torchsystem.services import Service

TARGETS = {
    "no dependency": 1.1,
    "one dependency": 1.5,
    "three": 1.6,
    "tree of five": 1.4,
    "diamond": 1.6,
    "generator": 1.5,
    "generator behind one": 1.5,
    "overridden": 1.5,
    "by name": 2.5,
    "async": 1.3,
    "register and call once": 100,
}


class A:
    """What a dependency gives."""


SOME = A()


def first() -> A:
    made = SOME
    return made


def second() -> A:
    made = SOME
    return made


def third() -> A:
    made = SOME
    return made


def pair(a: A = Depends(first), b: A = Depends(second)) -> A:
    return a or b


def root(pair: A = Depends(pair), c: A = Depends(third)) -> A:
    return pair or c


def left(a: A = Depends(first)) -> A:
    return a


def right(a: A = Depends(first)) -> A:
    return a


def session() -> Iterator[A]:
    try:
        yield SOME
    finally:
        third()


def store(session: A = Depends(session)) -> A:
    return session


async def first_async() -> A:
    made = SOME
    return made


async def second_async() -> A:
    made = SOME
    return made


def none(x: int, y: int) -> object:
    return x, y


def one(x: int, a: A = Depends(first)) -> object:
    return x, a


def three(x: int, a: A = Depends(first), b: A = Depends(second), c: A = Depends(third)) -> object:
    return x, a, b, c


def tree(x: int, a: A = Depends(root)) -> object:
    return x, a


def diamond(x: int, a: A = Depends(left), b: A = Depends(right)) -> object:
    return x, a, b


def opened(x: int, a: A = Depends(session)) -> object:
    return x, a


def behind(x: int, a: A = Depends(store)) -> object:
    return x, a


async def awaited(x: int, a: A = Depends(first_async), b: A = Depends(second_async)) -> object:
    return x, a, b


# The same by hand.


def one_by_hand(x: int) -> object:
    return one(x, first())


def three_by_hand(x: int) -> object:
    return three(x, first(), second(), third())


def tree_by_hand(x: int) -> object:
    return tree(x, root(pair(first(), second()), third()))


def diamond_by_hand(x: int) -> object:
    shared = first()
    return diamond(x, left(shared), right(shared))


def opened_by_hand(x: int) -> object:
    generator = session()
    value = next(generator)
    try:
        result = opened(x, value)
    except BaseException as error:
        generator.throw(error)
        raise
    next(generator, None)
    return result


def behind_by_hand(x: int) -> object:
    generator = session()
    value = next(generator)
    try:
        result = behind(x, store(value))
    except BaseException as error:
        generator.throw(error)
        raise
    next(generator, None)
    return result


async def awaited_by_hand(x: int) -> object:
    return await awaited(x, await first_async(), await second_async())


def make_handler() -> Callable[..., object]:
    """Define a handler anew, as a module does that is imported."""

    def handler(x: int, a: A = Depends(first), b: A = Depends(second)) -> object:
        return x, a, b

    return handler


def registered_by_hand() -> object:
    """Wrap a new handler by hand, file it under its name, and call it."""
    handler = make_handler()

    def wrapper(x: int) -> object:
        return handler(x, first(), second())

    HANDLERS[handler.__name__] = wrapper
    return wrapper(1)


HANDLERS: dict[str, Callable[..., object]] = {}


def by_name_by_hand(name: str, x: int) -> object:
    return HANDLERS[name](x)


def ours() -> dict[str, Operation]:
    """Return our operation for each case."""
    provider, overridden, service = Provider(), Provider(), Service()
    overridden.override(first, second)
    service.handler(one)
    injected = inject(provider)
    handlers: dict[str, Callable[..., Any]] = {
        "no dependency": injected(none),
        "one dependency": injected(one),
        "three": injected(three),
        "tree of five": injected(tree),
        "diamond": injected(diamond),
        "generator": injected(opened),
        "generator behind one": injected(behind),
        "overridden": inject(overridden)(one),
        "async": injected(awaited),
    }
    operations = {case: Operation("torchsystem", call, (1,), case == "async") for case, call in handlers.items()}
    operations["no dependency"] = Operation("torchsystem", handlers["no dependency"], (1, 2))
    operations["by name"] = Operation("torchsystem", service.handle, ("one", 1))
    operations["register and call once"] = Operation("torchsystem", lambda: injected(make_handler())(1))
    operations["override, two calls"] = Operation("torchsystem", overriding(injected(one), provider))
    operations["a shape never seen before"] = Operation("torchsystem", new_shapes(provider))
    return operations


def overriding(handler: Callable[..., object], provider: Provider) -> Callable[[], None]:
    """Return an override with its restore, and the two calls around it."""

    def override() -> None:
        with provider.override(first, lambda: SOME):
            handler(1)
        handler(1)

    return override


def new_shapes(provider: Provider) -> Callable[[], None]:
    """Return a registration with a call for which no code can have been written before."""
    numbers = itertools.count()

    def register() -> None:
        handler = make_handler()
        handler.__qualname__ = f"handler_{next(numbers)}"
        inject(provider)(handler)(1)

    return register


def by_hand() -> dict[str, Operation]:
    """Return the hand-written operation for each case."""
    HANDLERS["one"] = one_by_hand
    calls: dict[str, Callable[..., Any]] = {
        "one dependency": one_by_hand,
        "three": three_by_hand,
        "tree of five": tree_by_hand,
        "diamond": diamond_by_hand,
        "generator": opened_by_hand,
        "generator behind one": behind_by_hand,
        "overridden": one_by_hand,
        "async": awaited_by_hand,
    }
    operations = {case: Operation("by hand", call, (1,), case == "async") for case, call in calls.items()}
    operations["no dependency"] = Operation("by hand", none, (1, 2))
    operations["by name"] = Operation("by hand", by_name_by_hand, ("one", 1))
    operations["register and call once"] = Operation("by hand", registered_by_hand)
    operations["override, two calls"] = Operation("by hand", lambda: (one_by_hand(1), one_by_hand(1)))
    operations["a shape never seen before"] = Operation("by hand", registered_by_hand)
    return operations


def main() -> int:
    """Print the table, and return the exit status."""
    peers, absent = depends_peers.operations()
    hand, own = by_hand(), ours()
    cases = {case: [hand[case], own[case], *peers.get(case, [])] for case in [*TARGETS, *(own.keys() - TARGETS.keys())]}
    kept = table("Dependency injection", cases, TARGETS)
    for name in absent:
        print(f"  {name} is not installed: skipped")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
